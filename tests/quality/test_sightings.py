"""Where the other views say that joints are: exact for exact joints, on lines where there is one other view."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.errors import NoPersonError
from mvpose.quality.camera_turns import corrected, turned, worst_turn
from mvpose.quality.sightings import (
    all_people,
    expectation,
    median_misfits_px,
    pair_residuals_px,
    shifted_frames,
    sighted,
)
from mvpose.quality.swapped_names import best_exchange, exchanged
from mvpose.quality.world_frame import degrees_from_up, measured_world_frame, nearest_axis
from mvpose.skeleton import BODY_JOINTS
from tests.reconstruction.faults import of_views, turned_by

RUN = np.repeat([0, 1], 10)


@pytest.fixture(scope="module")
def scene():
    return scenes.two_people_crossing(num_frames=20)


def test_exact_joints_are_where_the_others_say(scene):
    seen = sighted(scene.keypoints(noise_px=0.0), RUN, scene.rig, scene.fps)
    assert seen.ideal.shape[1] == 2
    assert median_misfits_px(seen, scene.rig).max() < 1e-3
    assert max(pair_residuals_px(seen, scene.rig).values()) < 1e-3


def test_exact_joints_of_two_views_are_on_each_others_lines(scene):
    pair, keypoints = scene.rig.select(scene.rig.names[:2]), of_views(scene.keypoints(noise_px=0.0), [0, 1])
    seen = sighted(keypoints, RUN, pair, scene.fps)
    expected = expectation(seen, pair, 1)
    assert median_misfits_px(seen, pair).max() < 1e-3
    assert expected.normal is not None
    moved = seen.ideal[..., 1, :] + 7.0 * expected.normal
    assert torch.allclose(expected.offsets(moved).norm(dim=-1)[expected.known], torch.tensor(7.0).double(), atol=1e-2)


def test_a_shift_there_and_back_leaves_what_the_run_still_has(scene):
    seen = sighted(scene.keypoints(), RUN, scene.rig, scene.fps)
    shift = torch.tensor([[0, 0], [3, 3], [0, 0], [0, 0]])
    back = seen.shifted(shift).shifted(-shift)
    kept = back.weight > 0
    assert torch.equal(back.ideal[kept], seen.ideal[kept])
    assert torch.equal(back.weight[[3, 9, 13, 19]], seen.weight[[3, 9, 13, 19]])
    assert not back.weight[[0, 2, 10, 12], ..., 1].any() and back.weight[[0, 12], ..., 0].any()


def test_no_shift_reaches_into_another_run():
    source, there = shifted_frames(torch.tensor([0, 0, 1, 1]), 1)
    assert there.tolist() == [True, False, True, False] and source[there].tolist() == [1, 3]


def test_the_body_is_the_joints_that_images_agree_on(scene):
    body = all_people(scene.keypoints(), scene.rig).body
    assert set(body.skeleton.joints) == set(BODY_JOINTS) and body.ideal.shape[2] == len(BODY_JOINTS)


def test_nobody_is_an_error_that_names_the_cameras(scene):
    keypoints = scene.keypoints()
    with pytest.raises(NoPersonError, match="cam01"):
        sighted(replace(keypoints, confidence=np.zeros_like(keypoints.confidence)), RUN, scene.rig, scene.fps)


@pytest.mark.parametrize(("view", "axis", "degrees"), [(0, 0, 2.0), (2, 1, -1.5), (3, 2, 4.0)])
def test_the_turn_that_is_found_undoes_the_one_that_was_made(scene, view, axis, degrees):
    off = turned_by(scene.rig, view, axis, degrees)
    seen = sighted(scene.keypoints(noise_px=0.0), RUN, off, scene.fps).body
    turn, back = worst_turn(seen, off)
    assert turn.view == view
    assert torch.allclose(back.camera_from_world.rotation, scene.rig.camera_from_world.rotation, atol=1e-4)
    assert turn.corrected_px < 0.05


def test_a_turn_leaves_the_camera_where_it_stands(scene):
    off = turned_by(scene.rig, 1, 1, 20.0)
    assert torch.allclose(off.centres_world, scene.rig.centres_world)
    assert torch.equal(turned(scene.rig, 1, torch.eye(3).double()).projections, scene.rig.projections)


def test_two_cameras_of_a_rig_are_never_turned(scene):
    off = turned_by(turned_by(turned_by(scene.rig, 0, 0, 3.0), 1, 1, 3.0), 2, 0, -3.0)
    turns, _ = corrected(sighted(scene.keypoints(), RUN, off, scene.fps).body, off, 0.0)
    assert len(turns) <= 2


def test_a_good_rig_explains_more_than_any_exchange_of_it(scene):
    found = best_exchange(scene.keypoints(), scene.rig)
    assert found.explained > 0.9 > found.explained_exchanged
    mistaken = best_exchange(scene.keypoints(), exchanged(scene.rig, 1, 3))
    assert mistaken.views == (1, 3)
    assert mistaken.explained_exchanged == pytest.approx(found.explained, abs=1e-6)


def test_the_room_is_that_of_the_scene():
    scene = scenes.ring4(num_frames=20)
    room = measured_world_frame(sighted(scene.keypoints(), RUN, scene.rig, scene.fps), scene.rig)
    feet = [i for i, joint in enumerate(scene.skeleton.joints) if "toe" in joint or "heel" in joint]
    assert room.floor_m == pytest.approx(np.quantile(scene.joints[:, 0, feet, 2].min(axis=-1), 0.1), abs=0.03)
    assert room.stature_m == pytest.approx(1.72, abs=0.05)
    assert degrees_from_up(room.body_up) < 10 and nearest_axis(room.body_up) == "z"
    assert degrees_from_up(room.cameras_up) < 1
    assert np.array(room.camera_heights_m) == pytest.approx(1.6 - room.floor_m)
