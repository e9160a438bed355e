"""Footage in which there is nobody, or hardly anybody: complete runs, which every reader of a run can read."""

import os
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mvpose.cli import run
from mvpose.datasets.sample import Labels, SampleImage, SampleScene, scene_samples
from mvpose.evaluation.answers import Scoring, rows_of
from mvpose.evaluation.run_poses import run_answers
from mvpose.run.run_folder import RunFolder
from mvpose.run.verification import verify_run
from tests.footage.numbered_video import number_of
from tests.pipeline import coded_footage

FRAMES = 6


class Partial(coded_footage.CodedDetector):
    """Sees people where `ODD_CAMERAS` and `ODD_FRAMES` say (comma between them), or boxes without a joint."""

    def people(self, image):
        found = super().people(image)
        camera, frame = divmod(number_of(image), coded_footage.FRAMES_A_CAMERA)
        if str(camera) not in os.environ["ODD_CAMERAS"] or str(frame) not in os.environ["ODD_FRAMES"]:
            found = type(found)(found.box[:0], found.score[:0], found.xy[:0], found.confidence[:0])
        return replace(found, confidence=found.confidence * 0) if os.environ.get("ODD_JOINTS") == "none" else found


@pytest.fixture
def reconstructed(tmp_path, monkeypatch, capsys):
    """Reconstruct footage of so many frames with people in these cameras and frames: the run, and what was said."""

    def reconstruct(cameras: str, frames: str, num_frames: int = FRAMES, joints: str = "") -> tuple[str, str]:
        for name, value in (("ODD_CAMERAS", cameras), ("ODD_FRAMES", frames), ("ODD_JOINTS", joints)):
            monkeypatch.setenv(name, value)
        archive, output = str(tmp_path / "archive"), str(tmp_path / "run")
        coded_footage.write_capture(os.path.join(archive, "odd"), num_frames)
        flags = ["--clip-frames", "3", "--local", "--tracking.no-enabled"]
        flags += ["--detector.detector", "tests.pipeline.test_odd_footage:Partial"]
        assert run(["reconstruct", archive, "--output", output, *flags]) == 0
        said = capsys.readouterr().out
        assert "nan" not in said and "without a result" not in said
        assert verify_run(output).findings == ()
        return output, said

    return reconstruct


FORMATS = ["trc", "c3d", "csv_long", "csv_wide", "bvh", "pose2sim", "anipose", "openpose_json"]


@pytest.mark.parametrize(
    ("cameras", "frames", "joints"),
    [("", "012345", ""), ("2", "012345", ""), ("0123", "012345", "none")],
    ids=["nobody", "seen by one camera", "boxes without joints"],
)
def test_a_capture_without_people_is_complete_and_empty(reconstructed, cameras, frames, joints):
    output, said = reconstructed(cameras, frames, joints=joints)
    assert "note: odd: no people were reconstructed" in said and "  odd: usable: people: " in said
    assert "; nobody found\n" in said
    assert pq.read_table(os.path.join(output, "poses")).num_rows == 0
    (plan,) = RunFolder(output).plans()
    poses = RunFolder(output).poses(plan)
    assert poses is not None and poses.xyz.shape[:2] == (FRAMES, 0)


def test_figures_that_could_not_be_computed_are_noted(reconstructed, monkeypatch):
    def broken(*_):
        raise IndexError("no figures today")

    monkeypatch.setattr("mvpose.pipeline.stages.quality_of_parts", broken)
    _, said = reconstructed("0123", "012345")
    assert "note: odd: no figures of merit: IndexError: no figures today" in said


def test_a_run_without_people_can_be_viewed_exported_and_evaluated(reconstructed):
    output, _ = reconstructed("", "")
    assert run(["view", output, "--tracking.no-enabled"]) == 0
    assert run(["export", output, "--format", *FORMATS, "--filtered"]) == 0
    (plan,) = RunFolder(output).plans()
    truth = coded_footage.scene(FRAMES)
    scene = SampleScene(
        capture_id="odd", subject="s", action="walk", split="test", rig=plan.capture.rig, skeleton=truth.skeleton
    )
    frames = np.arange(FRAMES)
    labels = Labels(frame=frames, position=frames, xyz=truth.joints[:, 0])
    samples = scene_samples(scene, labels, lambda _: dict.fromkeys(scene.rig.names, SampleImage()))
    rows = rows_of(run_answers(RunFolder(output), samples), Scoring())
    assert len(rows) == FRAMES and (rows.found == 0).all() and rows.mpjpe_m.isna().all()


def test_a_person_in_one_frame_is_in_one_row_and_an_empty_clip_is_no_failure(reconstructed, capsys):
    """BVH has no missing values: that it cannot hold one frame of six is said, and all else is written."""
    output, said = reconstructed("0123", "4")
    assert "nobody" not in said
    assert pq.read_table(os.path.join(output, "poses")).column("frame").to_pylist() == [4]
    assert run(["export", output, "--format", *FORMATS]) == 3
    assert capsys.readouterr().out.count("odd: no ") == 1


def test_a_capture_of_one_frame_is_complete(reconstructed):
    output, _ = reconstructed("0123", "0", num_frames=1)
    assert pq.read_table(os.path.join(output, "poses")).column("frame").to_pylist() == [0]


def test_a_camera_that_never_sees_anybody_is_done_without(reconstructed):
    output, _ = reconstructed("013", "012345")
    assert pq.read_table(os.path.join(output, "poses")).num_rows == FRAMES
