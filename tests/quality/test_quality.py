from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mvpose import scenes
from mvpose.quality.quality import CaptureFrames, judged_frames, quality, quality_of_parts
from mvpose.quality.quality_figures import Quality
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.reconstruction.view_errors import keypoints_at, poses_at
from mvpose.records import BY_FRAME, SECOND_LOOK, Keypoints2D, Poses3D
from mvpose.scenes import Scene
from mvpose.skeleton import BODY_JOINTS, HALPE26, PANOPTIC19
from tests.reconstruction.left_out_views import leave_one_camera_out, view_errors


def reconstructed(scene: Scene, keypoints: Keypoints2D) -> Poses3D:
    config = ReconstructionConfig()
    return reconstruct(keypoints, scene.rig, config, scene.fps)


def quality_of(scene: Scene, noise_px: float = 2.0) -> Quality:
    keypoints = scene.keypoints(noise_px)
    return quality(reconstructed(scene, keypoints), keypoints, scene.rig, scene.fps)


def test_perfect_footage_has_perfect_figures():
    figures = quality_of(scenes.two_people_crossing(num_frames=10), noise_px=0.0).figures()
    for name, value in figures.items():
        if name.endswith("error_limit_px"):
            assert value > 1, name
        elif name.endswith("_px"):
            assert value < 0.01, name
        elif name.endswith(("spread_share", "asymmetry_share")) or name in ("swapped_share", "too_fast_share"):
            assert value < 1e-4, name
        elif name.endswith(("excluded_share", "unused_frames_share", "second_look_share")):
            assert value == 0, name
        elif name.endswith("_share"):
            assert value == 1, name
    assert figures["body_views_used"] == figures["body_views_seen"] == pytest.approx(4.0, abs=0.1)
    assert figures["bone/left_hip-left_knee/length_m"] == pytest.approx(0.43 * (1 + 0.93) / 2, abs=1e-4)


def test_views_found_by_a_second_look_are_counted_over_all_parts():
    """Fails if the views of one part alone count, or empty slots count as views."""
    scene = scenes.two_people_crossing(num_frames=10)
    scene = replace(scene, detected=scene.detected & (np.arange(10) < 8)[None, :, None])
    keypoints = scene.keypoints()
    score = keypoints.box_score.copy()
    score[1, :3], score[2, 4:6, 0] = SECOND_LOOK, SECOND_LOOK
    keypoints = replace(keypoints, box_score=score)
    poses = reconstructed(scene, keypoints)
    halves = [
        CaptureFrames(a, *(f(x, slice(a, a + 5)) for f, x in ((poses_at, poses), (keypoints_at, keypoints))))
        for a in (0, 5)
    ]
    found = quality_of_parts(halves, (0, 10), scene.rig, scene.fps)
    assert found.figures()["views_found_by_second_look_share"] == pytest.approx(8 / (4 * 8 * 2))


def test_figures_are_flat_numbers_whose_names_end_in_their_unit():
    figures = quality_of(scenes.ring4(num_frames=5)).figures()
    assert all(isinstance(value, float) for value in figures.values())
    assert {name.rpartition("_")[2] for name in figures} <= {"px", "mm", "m", "share", "used", "seen"}
    assert {"camera/cam03/left_out_mean_px", "joint/neck/used_median_px", "bone/neck-head/spread_share"} <= set(figures)


def test_a_camera_that_is_off_is_the_one_that_was_excluded():
    found = quality_of(replace(scenes.outlier_view(num_frames=20), shift_px=np.array([[0, 0]] * 4 + [[40.0, 15.0]])))
    assert found.camera_excluded_share[4] > 0.99 and max(found.camera_excluded_share[:4]) < 0.01
    assert found.camera_unused_frames_share[4] > 0.9
    assert found.camera_all_views[4].mean_px > 35 and found.used.mean_px < 3
    assert found.body_all_views.mean_px > 2 * found.body_used.mean_px
    assert found.body_views_seen == pytest.approx(5.0, abs=0.05)
    assert found.body_views_used == pytest.approx(4.0, abs=0.05)
    assert found.camera_left_out[4].median_px > 10 * found.camera_left_out[0].median_px


def test_joints_that_are_missing_are_counted_and_frames_too():
    scene = scenes.dropped_frame(num_frames=40)
    keypoints = scene.keypoints()
    poses = reconstructed(scene, keypoints)
    wrist = HALPE26.index("left_wrist")
    poses.xyz[:10, :, wrist] = np.nan
    found = quality(poses, keypoints, scene.rig, scene.fps)
    assert found.frames_share == pytest.approx(39 / 40)
    assert found.joint_reconstructed_share[wrist] == pytest.approx(29 / 39)
    assert found.reconstructed_share == pytest.approx((39 * 26 - 10) / (39 * 26))
    assert found.present_share == pytest.approx(39 / 40)
    assert found.camera_unused_frames_share[1] == pytest.approx(10 / 39)


def test_sigmas_are_told_by_their_medians_and_nothing_is_told_of_those_that_are_not_known():
    scene = scenes.ring4(num_frames=20)
    keypoints = scene.keypoints()
    poses = reconstructed(scene, keypoints)
    nose, wrist = HALPE26.indices("nose", "left_wrist")
    poses.sigma_mm[:] = 12.0
    poses.sigma_mm[:, :, nose], poses.sigma_mm[:, :, wrist] = np.nan, 30.0
    poses.sigma_mm[:5, :, wrist] = np.nan
    figures = quality(poses, keypoints, scene.rig, scene.fps).figures()
    assert figures["body_sigma_median_mm"] == 12.0 and figures["joint/left_wrist/sigma_median_mm"] == 30.0
    assert np.isnan(figures["joint/nose/sigma_median_mm"])
    poses.sigma_mm[:] = np.nan
    assert np.isnan(quality(poses, keypoints, scene.rig, scene.fps).figures()["body_sigma_median_mm"])


def test_the_limit_of_errors_is_told_in_the_pixels_that_it_was():
    scene = scenes.dropped_frame(num_frames=40)
    keypoints = scene.keypoints()
    found = quality(
        reconstructed(scene, keypoints), keypoints, scene.rig, scene.fps, ReconstructionConfig(max_error=0.04)
    )
    side = np.where(keypoints.box_score > 0, (keypoints.box[..., 2:] - keypoints.box[..., :2]).max(axis=-1), np.nan)
    np.testing.assert_allclose(found.camera_error_limit_px, 0.04 * np.nanmean(side, axis=(1, 2)), rtol=1e-4)
    assert found.error_limit_px == pytest.approx(0.04 * np.nanmean(side), rel=1e-4)
    assert found.figures()["camera/cam02/error_limit_px"] == found.camera_error_limit_px[1]


def test_bones_that_change_their_lengths_are_seen():
    scene = scenes.ring4(num_frames=40)
    keypoints = scene.keypoints(noise_px=0.0)
    poses = reconstructed(scene, keypoints)
    elbow, wrist = HALPE26.indices("left_elbow", "left_wrist")
    stretch = 1.0 + 0.1 * np.sin(np.arange(40.0))[:, None, None]
    poses.xyz[:, :, wrist] = poses.xyz[:, :, elbow] + stretch * (poses.xyz[:, :, wrist] - poses.xyz[:, :, elbow])
    found = quality(poses, keypoints, scene.rig, scene.fps)
    spread = dict(zip(HALPE26.bones, found.bone_spread, strict=True))
    assert spread["left_elbow", "left_wrist"] == pytest.approx(0.1 / np.sqrt(2), rel=0.1)
    assert spread["right_elbow", "right_wrist"] < 1e-3
    assert found.body_bone_spread == pytest.approx(0.1 / np.sqrt(2) / 8, rel=0.1)


def test_a_jump_through_the_room_is_too_fast():
    scene = scenes.ring4(num_frames=20)
    keypoints = scene.keypoints()
    poses = reconstructed(scene, keypoints)
    poses.xyz[10, :, 3] += 2.0
    found = quality(poses, keypoints, scene.rig, scene.fps)
    assert found.too_fast_share == pytest.approx(2 / (19 * 26))


def test_a_skeleton_without_some_body_joints_and_people_never_seen_give_nan_not_an_error():
    scene = scenes.ring4(num_frames=3, skeleton=PANOPTIC19)
    keypoints = scene.keypoints()
    poses = reconstructed(scene, keypoints)
    empty = replace(
        poses,
        xyz=np.full_like(poses.xyz, np.nan),
        views_used=np.zeros_like(poses.views_used),
        num_views=np.zeros_like(poses.num_views),
    )
    found = quality(empty, keypoints, scene.rig, scene.fps)
    assert np.isnan(found.used.mean_px) and found.frames_share == 0


def test_an_error_in_millimetres_is_the_one_in_pixels_at_the_depth_of_the_joint():
    """All cameras of the ring stand equally far from its middle: a shift of the images is one length in the room."""
    scene = scenes.ring4(num_frames=5)
    found = quality_of(scene)
    depth_m = float(np.linalg.norm(scene.rig.centres_world.numpy() - scene.joints.mean(axis=(0, 1, 2)), axis=-1).mean())
    pixel_mm = 1000 * depth_m / float(scene.rig.focal.mean())
    assert found.body_used_mm == pytest.approx(found.body_used.mean_px * pixel_mm, rel=0.1)
    assert found.camera_used_mm[0] == pytest.approx(found.camera_used[0].mean_px * pixel_mm, rel=0.3)


def parted(keypoints: Keypoints2D, poses: Poses3D, edges: list[int]) -> list[CaptureFrames]:
    """The frames between edges, each with its own people and places alone."""
    parts = []
    for start, stop in pairwise(edges):
        own, seen = poses_at(poses, slice(start, stop)), keypoints_at(keypoints, slice(start, stop))
        people = np.isfinite(own.xyz).any(axis=(0, 2, 3))
        by_person = {name: getattr(own, name)[:, people] for name in BY_FRAME}
        parts.append(CaptureFrames(start, replace(own, **by_person, track_id=own.track_id[people]), seen))
    return parts


@pytest.fixture(scope="module")
def footage() -> tuple[Scene, Keypoints2D, Poses3D]:
    """Two people with holes; the second comes late, is not there for a while and jumps once, between two parts."""
    scene = scenes.two_people_crossing(num_frames=90)
    keypoints = scene.keypoints(noise_px=3.0)
    poses = reconstructed(scene, keypoints)
    gone = np.random.default_rng(0).random(poses.confidence.shape) < 0.1
    gone[:35, 1] = gone[60:70, 1] = True
    poses.xyz[gone], poses.sigma_mm[gone], poses.views_used[gone], poses.num_views[gone] = np.nan, np.nan, False, 0
    poses.xyz[50:, 1] += 2.0
    return scene, keypoints, poses


@pytest.mark.parametrize("edges", [[0, 50, 90], [0, 30, 31, 65, 90], [0, 1, 2, 3, 50, 51, 90]])
def test_part_by_part_the_figures_are_those_of_the_whole(footage, edges):
    scene, keypoints, poses = footage
    whole = quality(poses, keypoints, scene.rig, scene.fps).figures()
    found = quality_of_parts(parted(keypoints, poses, edges), (0, 90), scene.rig, scene.fps).figures()
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert found[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert found["too_fast_share"] > 0


def test_frames_that_no_part_has_are_frames_without_anybody(footage):
    scene, keypoints, poses = footage
    arrays = {name: getattr(poses, name).copy() for name in ("xyz", "sigma_mm", "views_used")}
    holed = replace(poses, **arrays)
    holed.xyz[40:55], holed.sigma_mm[40:55], holed.views_used[40:55] = np.nan, np.nan, False
    parts = parted(keypoints, poses, [0, 40, 55, 90])
    whole = quality(holed, keypoints, scene.rig, scene.fps).figures()
    found = quality_of_parts([parts[0], parts[2]], (0, 90), scene.rig, scene.fps).figures()
    for name, value in whole.items():
        assert found[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name


def test_means_and_medians_are_over_every_distance_there_is(footage):
    """Slow twin: all distances at once."""
    scene, keypoints, poses = footage
    found = quality_of_parts(parted(keypoints, poses, [0, 33, 90]), (0, 90), scene.rig, scene.fps)
    distances = view_errors(poses, keypoints, scene.rig).error_px
    used = np.where(poses.views_used, distances, np.nan)
    wrist = HALPE26.index("left_wrist")
    for errors, values in (
        (found.used, used), (found.all_views, distances), (found.camera_used[2], used[..., 2]),
        (found.camera_all_views[1], distances[..., 1]), (found.joint_used[wrist], used[:, :, wrist]),
        (found.joint_all_views[wrist], distances[:, :, wrist]),
    ):  # fmt: skip
        assert errors.median_px == pytest.approx(float(np.nanmedian(values)), rel=1e-6)
        assert errors.mean_px == pytest.approx(float(np.nanmean(values)), rel=1e-6)
    bones = np.array(HALPE26.bone_indices)
    lengths = np.linalg.norm(poses.xyz[:, :, bones[:, 0]] - poses.xyz[:, :, bones[:, 1]], axis=-1)
    np.testing.assert_allclose(found.bone_length_m, np.nanmedian(lengths, axis=0).mean(axis=0), rtol=1e-6)
    spreads = (np.nanstd(lengths.astype(float), axis=0) / np.nanmedian(lengths, axis=0)).mean(axis=0)
    np.testing.assert_allclose(found.bone_spread, spreads, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_frames", "num_views", "count"),
    [(1, 4, 1), (10, 4, 10), (24, 4, 10), (150, 4, 50), (300, 4, 100), (90_000, 4, 100), (90_000, 31, 25)],
)
def test_cameras_are_left_out_on_frames_all_over_the_capture(num_frames, num_views, count):
    # Fails without a limit for long captures or many cameras, or if the last frames are in no sample.
    judged = judged_frames(num_frames, num_views)
    assert len(judged) == count
    assert (judged[0], judged[-1]) == (0, num_frames - 1)
    assert np.ptp(np.diff(judged)) <= 1 if count > 1 else True


def test_the_sampled_frames_tell_the_error_of_all(footage):
    scene, keypoints, poses = footage
    every = leave_one_camera_out(poses, keypoints, scene.rig)
    found = quality(poses, keypoints, scene.rig, scene.fps)
    body = [HALPE26.index(joint) for joint in BODY_JOINTS]
    judged = judged_frames(len(every), len(scene.rig))
    assert found.body_left_out.mean_px == pytest.approx(float(np.nanmean(every[judged][:, :, body])), rel=1e-6)
    assert found.body_left_out.mean_px == pytest.approx(float(np.nanmean(every[:, :, body])), rel=0.03)
