"""A moment and a shift that explain what a camera shows: found from all frames, and not where a camera moved."""

import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.quality.lost_frames import lost_frames, put_back
from mvpose.quality.sightings import median_misfits_px, sighted
from mvpose.quality.synchronisation import CameraTiming, synchronised
from tests.reconstruction.faults import seen_at, turned_by

LIMIT, COUNT = 12, 80


@pytest.fixture(scope="module")
def scene():
    return scenes.ring4(num_frames=COUNT + 12)


def shown(scene, before: int, after: int, view: int = 1):
    """Sightings of which one view shows frames this much later until half of the take, and after it."""
    own = np.arange(COUNT)
    frames = [own + 4] * 4
    frames[view] = own + 4 + np.where(own < COUNT // 2, before, after)
    return sighted(seen_at(scene.keypoints(), frames), np.zeros(COUNT, int), scene.rig, scene.fps).body


def timings(*by_stretch: float) -> list[CameraTiming]:
    """Cameras of which nothing is measured but the second's stretches."""
    nan, nothing = float("nan"), torch.full((max(len(by_stretch), 1),), torch.nan)
    own = torch.tensor(by_stretch) if by_stretch else nothing
    return [CameraTiming(nan, nan, nan, nan, own if v == 1 else nothing, nan, False) for v in range(4)]


@pytest.mark.parametrize(("before", "after", "lost"), [(0, 6, 6), (0, -3, -3), (-4, 0, 4)])
def test_the_camera_the_moment_and_the_frames_are_found(scene, before, after, lost):
    """The last fails if a camera must be in step before the moment."""
    seen = shown(scene, before, after)
    found = lost_frames(seen, scene.rig, timings(), LIMIT)
    assert (found.view, found.frames) == (1, lost) and abs(found.first - COUNT // 2) <= 8
    repaired = median_misfits_px(put_back(seen, found), scene.rig)[1]
    assert found.shifted_px < found.misfit_px
    assert repaired < 6.0


def test_a_camera_in_step_or_late_all_the_time_lost_nothing(scene):
    """Fails if an account is not compared with one shift of all frames, or with others that are late."""
    assert lost_frames(shown(scene, 0, 0), scene.rig, timings(), LIMIT) is None
    late = shown(scene, 5, 5)
    assert lost_frames(late, scene.rig, synchronised(late, scene.rig, LIMIT)[0], LIMIT) is None


def test_stretches_with_other_offsets_are_another_frame_rate(scene):
    """Fails if what single stretches say is not asked: between the first and the last there are others, 2 and 4."""
    own = np.arange(COUNT)
    run = own // (COUNT // 4)
    frames = [own + 4] * 4
    frames[1] = own + 4 - 2 * run
    seen = sighted(seen_at(scene.keypoints(), frames), run, scene.rig, scene.fps).body
    assert lost_frames(seen, scene.rig, timings(0.0, 2.0, 4.0, 6.0), 6) is None


def test_a_camera_that_moved_lost_nothing(scene):
    """Fails if the shift may explain where people are, and not only how they move."""
    seen, turned = shown(scene, 0, 0), turned_by(scene.rig, 1, 1, 4.0)
    late = torch.arange(COUNT) >= COUNT // 2
    there = seen.ideal.clone()
    rays = (there[late][..., 1, :] - scene.rig.centre[1]) / scene.rig.focal[1]
    rotation = turned.camera_from_world.rotation[1] @ scene.rig.camera_from_world.rotation[1].T
    directions = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) @ rotation.T
    there[late, ..., 1, :] = directions[..., :2] / directions[..., 2:] * scene.rig.focal[1] + scene.rig.centre[1]
    seen.ideal.copy_(there)
    assert lost_frames(seen, scene.rig, timings(), LIMIT) is None
