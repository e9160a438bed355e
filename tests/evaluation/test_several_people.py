"""Average precision and PCP of runs of several people: counted by hand, and by `evaluate` on a run."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.datasets.sample import Labels, SampleImage, SampleScene, scene_samples
from mvpose.evaluation.several_people import PeopleFrames, people_figures
from mvpose.records import Poses3D
from mvpose.scenes import ring4, two_people_crossing
from mvpose.skeleton import HALPE26

FRAMES = 10


@pytest.fixture(scope="module")
def scene():
    return two_people_crossing(num_frames=FRAMES)


def poses_of(xyz: np.ndarray, confidence: float = 0.9) -> Poses3D:
    """Tracks at these joints (T P J 3); NaN for none."""
    there = np.isfinite(xyz[..., 0])
    nothing = np.full(there.shape, np.nan)
    return Poses3D(
        xyz=xyz.astype(np.float32),
        confidence=np.where(there, confidence, 0.0).astype(np.float32),
        error_px=nothing,
        sigma_mm=nothing,
        num_views=there.astype(np.int64),
        views_used=there[..., None],
        track_id=np.arange(xyz.shape[1]),
        skeleton=HALPE26,
    )


def frames_of(scene, poses: Poses3D) -> PeopleFrames:
    joints = scene.joints
    truth = SampleScene(capture_id="c", subject="", action="", split="test", rig=scene.rig, skeleton=scene.skeleton)
    count, people = joints.shape[:2]
    frame = np.repeat(np.arange(count), people)
    labels = Labels(
        frame=frame, position=frame, xyz=joints.reshape(-1, *joints.shape[2:]), person=np.tile(np.arange(people), count)
    )
    samples = scene_samples(truth, labels, lambda _: dict.fromkeys(scene.rig.names, SampleImage()))
    return PeopleFrames.of(poses, [(sample, sample.frame) for sample in samples], None)


def means(captures, **options) -> dict[str, float]:
    return {name: e.mean for name, e in people_figures(captures, **{"all_people": True, **options}).items()}


def test_a_perfect_run_has_every_figure_at_one(scene):
    found = means([frames_of(scene, poses_of(scene.joints))])
    assert set(found) >= {"ap@25mm", "ap@150mm", "recall@500mm", "pcp3d", "pcp3d/actor=1", "pcp3d/actor=2"}
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_average_precision_is_by_threshold_and_falls_with_a_track_too_many(scene):
    off = scene.joints + np.array([0.08, 0.0, 0.0])
    found = means([frames_of(scene, poses_of(off))])
    assert found["ap@75mm"] == 0.0 and found["ap@100mm"] == pytest.approx(1.0)
    # A third track far away, in which the run is surer than in the others, precedes every hit: 2 of 3 are right.
    ghost = poses_of(np.concatenate([scene.joints[:, :1] + 5.0, scene.joints], axis=1))
    surer = np.where(np.arange(3)[None, :, None] == 0, 0.99, 0.9) * np.ones_like(ghost.confidence)
    found = means([frames_of(scene, replace(ghost, confidence=surer.astype(np.float32)))])
    assert found["ap@25mm"] == pytest.approx(2 / 3, abs=1e-6) and found["pcp3d"] == pytest.approx(1.0)


def test_a_person_who_was_missed_costs_recall_and_that_actors_pcp(scene):
    one = scene.joints.copy()
    one[:, 1] = np.nan
    found = means([frames_of(scene, poses_of(one))])
    assert found["recall@500mm"] == pytest.approx(0.5) and found["ap@150mm"] == pytest.approx(0.5)
    assert found["pcp3d/actor=1"] == pytest.approx(1.0) and found["pcp3d/actor=2"] < 0.5


def test_a_missing_joint_does_not_lose_a_pose_but_missing_more_than_half_does(scene):
    few, hardly = scene.joints.copy(), scene.joints.copy()
    few[:, :, :5], hardly[:, :, :15] = np.nan, np.nan
    assert means([frames_of(scene, poses_of(few))])["ap@25mm"] == pytest.approx(1.0)
    assert means([frames_of(scene, poses_of(hardly))])["recall@500mm"] == 0.0


def test_people_left_out_of_the_truth_on_purpose_are_not_counted_as_false(scene):
    found = means([frames_of(scene, poses_of(scene.joints))], all_people=False)
    assert "pcp3d" in found and not [name for name in found if name.startswith(("ap", "recall"))]


def test_one_person_at_a_time_has_no_such_figures(scene):
    alone = ring4(num_frames=FRAMES)
    assert people_figures([frames_of(alone, poses_of(alone.joints))], all_people=True) == {}


def test_captures_of_different_numbers_of_people_are_scored_together(scene):
    alone = ring4(num_frames=FRAMES)
    found = means([frames_of(scene, poses_of(scene.joints)), frames_of(alone, poses_of(alone.joints + 1.0))])
    # 10 of 30 people are missed, by tracks that are as sure as the others.
    assert found["recall@500mm"] == pytest.approx(2 / 3) and 0.4 < found["ap@25mm"] <= 2 / 3
    assert "pcp3d/actor=1" not in found and found["pcp3d"] == pytest.approx(2 / 3, abs=0.01)
