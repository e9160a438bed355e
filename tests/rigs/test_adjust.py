from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.errors import NoPersonError, TooFewViewsError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.rigs.adjust import AdjustmentConfig, AdjustmentReport, adjust_extrinsics
from mvpose.scenes import Scene
from tests.reconstruction.faults import resized

CONFIG = AdjustmentConfig()


def knocked(rig: CameraRig, degrees: float, metres: float, seed: int = 0) -> CameraRig:
    """Every camera turned and moved by so much, each its own way."""
    rng = np.random.default_rng(seed)
    axis, direction = (rng.normal(size=(2, len(rig), 3))).tolist()
    unit = [torch.nn.functional.normalize(torch.tensor(v, dtype=torch.float64), dim=-1) for v in (axis, direction)]
    return replace(
        rig,
        camera_from_world=Rigid.from_rotation_vector(np.radians(degrees) * unit[0], metres * unit[1])
        @ rig.camera_from_world,
    )


def mean_error_m(scene: Scene, rig: CameraRig) -> float:
    """Of poses after the best rigid motion is taken out: the frame as a whole is not what images tell."""
    poses = reconstruct(scene.keypoints(), rig, ReconstructionConfig(), scene.fps)
    return float(np.nanmean(np.linalg.norm(poses.xyz - scene.joints, axis=-1)))


def test_cameras_that_were_knocked_are_put_right():
    scene = scenes.ring4(num_frames=120)
    wrong = knocked(scene.rig, degrees=0.6, metres=0.02)
    adjusted, report = adjust_extrinsics(scene.keypoints(), wrong, CONFIG)
    assert report.kept
    assert report.before_px > 6.0 and report.after_px < 2.3
    # What the cameras as a whole are off by stays: it cannot be seen. Distances between cameras come out right.
    between, true, before = (torch.cdist(r.centres_world, r.centres_world) for r in (adjusted, scene.rig, wrong))
    assert (between - true).abs().max() < 0.5 * (before - true).abs().max()
    assert max(report.moved_m) > 0.01 and max(report.turned_degrees) > 0.3


def test_scale_and_place_of_the_rig_as_a_whole_are_kept():
    scene = scenes.ring4(num_frames=60)
    wrong = knocked(scene.rig, degrees=0.6, metres=0.02)
    adjusted, _ = adjust_extrinsics(scene.keypoints(), wrong, CONFIG)
    assert (adjusted.centres_world.mean(dim=0) - wrong.centres_world.mean(dim=0)).norm() < 0.01
    spread = [(r.centres_world - r.centres_world.mean(dim=0)).norm(dim=-1).mean() for r in (adjusted, wrong)]
    assert spread[0] == pytest.approx(float(spread[1]), rel=0.005)


def test_cameras_that_are_right_stay_where_they_are():
    scene = scenes.ring4(num_frames=120)
    adjusted, report = adjust_extrinsics(scene.keypoints(), scene.rig, CONFIG)
    assert (adjusted.centres_world - scene.rig.centres_world).norm(dim=-1).max() < 0.01
    assert max(report.turned_degrees) < 0.1
    assert mean_error_m(scene, adjusted) < 1.3 * mean_error_m(scene, scene.rig)


def test_a_correction_that_does_not_hold_on_other_frames_is_not_kept():
    scene = scenes.ring4(num_frames=120)
    keypoints = scene.keypoints()
    # The frames learned from are shifted in one view; those held out (stretches 2 and 5 of 8) are not.
    for start, stop in ((0, 30), (45, 75), (90, 120)):
        keypoints.xy[1, start:stop] += 14.0
    rig, report = adjust_extrinsics(keypoints, scene.rig, CONFIG)
    assert not report.kept
    assert report.after_px > report.before_px
    assert rig is scene.rig
    assert "unchanged" in str(report)


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_frames_of_any_size_give_the_same_cameras(scale):
    scene = scenes.ring4(num_frames=60)
    wrong = knocked(scene.rig, degrees=0.6, metres=0.02)
    (expected, _), (found, _) = (
        adjust_extrinsics(k, r, CONFIG)
        for k, r in ((scene.keypoints(6.0), wrong), resized(scene.keypoints(6.0), wrong, scale))
    )
    torch.testing.assert_close(found.centres_world, expected.centres_world, atol=1e-4, rtol=0.0)


def test_it_works_with_two_people_and_with_wrong_joints_among_the_right():
    scene = scenes.two_people_crossing(num_frames=60)
    keypoints = scene.keypoints()
    rng = np.random.default_rng(0)
    keypoints.xy[rng.uniform(size=keypoints.xy.shape[:-1]) < 0.05] += 90.0
    _, report = adjust_extrinsics(keypoints, knocked(scene.rig, degrees=0.5, metres=0.02), CONFIG)
    _, clean = adjust_extrinsics(scene.keypoints(), knocked(scene.rig, degrees=0.5, metres=0.02), CONFIG)
    assert report.kept
    np.testing.assert_allclose(report.turned_degrees, clean.turned_degrees, atol=0.08)


def test_a_bystander_whom_two_cameras_see_counts_as_well():
    # Of people seen by three cameras alone, this footage has none.
    scene = scenes.ring4(num_frames=60)
    detected = scene.detected.copy()
    detected[2:] = False
    _, report = adjust_extrinsics(replace(scene, detected=detected).keypoints(), knocked(scene.rig, 0.6, 0.02), CONFIG)
    assert report.kept and report.num_poses + report.num_held_out == 60


def test_the_report_is_flat_numbers_and_a_sentence():
    report = AdjustmentReport(("a", "b"), True, (0.01, 0.02), (0.5, 1.0), 9.0, 5.0, 11.0, 6.0, 75, 25)
    figures = report.figures()
    assert all(isinstance(value, float) for value in figures.values())
    assert figures["camera/b/moved_m"] == 0.02 and figures["adjustment_held_out_after_px"] == 5.0
    assert str(report) == (
        "extrinsics adjusted: 9.00 -> 5.00 px on held-out frames; a 10 mm and 0.50 degrees; b 20 mm and 1.00 degrees"
    )


def test_nobody_to_learn_from_is_an_error_that_says_so():
    scene = scenes.ring4(num_frames=8)
    empty = replace(scene, detected=np.zeros_like(scene.detected)).keypoints()
    with pytest.raises(NoPersonError, match="no person was found"):
        adjust_extrinsics(empty, scene.rig, CONFIG)
    few = replace(scene, detected=scene.detected & (np.arange(8) == 2)[:, None]).keypoints()
    with pytest.raises(NoPersonError, match="longer footage"):
        adjust_extrinsics(few, scene.rig, CONFIG)


def test_one_camera_cannot_be_adjusted():
    scene = scenes.ring4(num_frames=3)
    one = {n: getattr(scene.keypoints(), n)[:1] for n in ("xy", "confidence", "box", "box_score")}
    with pytest.raises(TooFewViewsError, match="cam01"):
        adjust_extrinsics(replace(scene.keypoints(), **one), scene.rig.select(("cam01",)), CONFIG)
