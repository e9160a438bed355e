"""A run made through the production door, against a truth of which the errors are known."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Scoring, rows_of
from mvpose.evaluation.run_poses import matched, run_answers
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from tests.pipeline import coded_footage

FRAMES = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    place = tmp_path_factory.mktemp("run")
    coded_footage.write_capture(str(place / "archive" / "one"), FRAMES)
    job = ReconstructJob(
        archive=str(place / "archive"),
        output=str(place / "run"),
        detector=DetectorConfig(detector=coded_footage.DETECTOR),
        engine=EngineConfig(local=True),
    )
    reconstruct_archive(job)
    return RunFolder(job.output)


def truth_of(run: RunFolder, shift: np.ndarray, capture: str = "one") -> list[Sample]:
    """What the run found, moved by `shift` (T, P, 1, 3), every track a person, last track first."""
    (plan,) = run.plans()
    poses = run.poses(plan)
    assert poses is not None
    frames, people = poses.xyz.shape[:2]
    scene = SampleScene(
        capture_id=capture, subject="s", action="walk", split="test", rig=plan.capture.rig, skeleton=poses.skeleton
    )
    order = np.arange(people)[::-1]
    moved = (poses.xyz + shift)[:, order].reshape(frames * people, -1, 3)
    labels = Labels(
        frame=np.repeat(np.arange(frames), people),
        position=np.repeat(np.arange(frames), people),
        xyz=moved.astype(np.float64),
        person=np.tile(np.arange(people), frames),
    )
    return list(scene_samples(scene, labels, lambda f: dict.fromkeys(plan.capture.rig.names, SampleImage())))


def test_a_run_scored_equals_the_distance_computed_by_hand(run):
    (plan,) = run.plans()
    poses = run.poses(plan)
    assert poses is not None
    size = np.linspace(0.01, 0.03, FRAMES)[:, None, None, None] * np.ones((FRAMES, poses.xyz.shape[1], 1, 1))
    samples = truth_of(run, size * [0.6, 0.0, 0.8])
    rows = rows_of(run_answers(run, samples), Scoring())
    expected = [np.linspace(0.01, 0.03, FRAMES)[s.frame] for s in samples]
    assert len(rows) == len(samples) >= FRAMES
    np.testing.assert_allclose(rows.mpjpe_m, expected, atol=1e-6)
    np.testing.assert_allclose(rows.mpjpe_relative_m, 0.0, atol=1e-6)
    np.testing.assert_allclose(rows.mpjve_m[rows.frame > 0], 0.02 / (FRAMES - 1), atol=1e-6)
    assert (rows["views"] == len(plan.capture.videos)).all() and rows.max_views.all() and (rows.found == 1).all()


def test_frames_and_captures_that_the_run_lacks_have_no_answer_or_are_refused(run):
    samples = truth_of(run, np.zeros((1, 1, 1, 3)))
    answers = run_answers(run, [*samples, replace(samples[0], frame=FRAMES + 5)])
    assert np.isfinite(answers.joints[:-1]).any(axis=(1, 2)).all() and np.isnan(answers.joints[-1]).all()
    with pytest.raises(ConfigError, match=r"none of the captures.*one.*two"):
        run_answers(run, truth_of(run, np.zeros((1, 1, 1, 3)), capture="two"))


def test_people_are_paired_with_tracks_so_that_the_whole_is_nearest():
    """The first person is nearest to track 0, but taking it would leave the second 3 m off."""
    truth = np.array([[[0.0, 0, 0]], [[1.0, 0, 0]]])
    tracks = np.array([[[0.4, 0, 0]], [[-2.0, 0, 0]]])
    assert matched(tracks, truth) == [(0, 1), (1, 0)]


def test_a_track_that_shares_no_joint_is_nobody():
    truth = np.array([[[0.0, 0, 0], [np.nan] * 3]])
    assert matched(np.array([[[np.nan] * 3, [1.0, 1, 1]]]), truth) == []
    assert matched(np.zeros((0, 2, 3)), truth) == []
