"""Finished results that somebody deleted are missing, not done: the same command computes them again."""

import os
import shutil

import pytest

from mvpose.cli import run
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.verification import verify_run
from tests.pipeline import coded_footage

SAID = "finished results were missing from the output and have been computed again: "


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    """A capture of three clips, and one that cannot be read."""
    return coded_footage.write_damaged_archive(str(tmp_path_factory.mktemp("archive")))


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("undisturbed") / "run")
    assert reconstruct_archive(job(archive, output)).failures
    return output


@pytest.fixture
def output(undisturbed, tmp_path) -> str:
    return shutil.copytree(undisturbed, str(tmp_path / "run"))


def job(archive: str, output: str, **changes) -> ReconstructJob:
    detector, engine = DetectorConfig(detector=coded_footage.DETECTOR), EngineConfig(local=True)
    return ReconstructJob(archive=archive, output=output, clip_frames=10, detector=detector, engine=engine, **changes)


def contents(output: str) -> dict[str, bytes]:
    """Every file of a run with its bytes, except those that hold timings."""
    paths = [os.path.join(folder, file) for folder, _, files in os.walk(output) for file in files]
    found = {}
    for path in paths:
        with open(path, "rb") as opened:
            found[os.path.relpath(path, output)] = b"" if "/commits/" in path else opened.read()
    return {name: data for name, data in found.items() if name != "performance.json"}


@pytest.mark.parametrize(
    ("lost", "counted"),
    [
        (["poses"], "3 poses"),
        (["keypoints", "tracks"], "3 keypoints, 3 tracks"),
        (["commits/keypoints"], "6 keypoints"),
        (["identities/whole", "filtered/whole"], "1 identities, 1 filtered"),
        (["quality", "commits/filtered"], "2 filtered, 1 quality"),
        (["poses/whole", "summary.json"], "3 poses"),
        (["figures.parquet", "verdicts.parquet", "failures"], "1 figures.parquet, 1 verdicts.parquet, 1 failures"),
        (["plan.parquet"], ""),
        (["catalogue.parquet"], ""),
    ],
)  # fmt: skip
def test_what_was_deleted_is_computed_again_and_nothing_else_changes(archive, undisturbed, output, lost, counted):
    for name in lost:
        path = os.path.join(output, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    notes = reconstruct_archive(job(archive, output)).notes
    assert [note for note in notes if note.startswith(SAID + counted)] == [notes[0]] * bool(counted)
    assert contents(output) == contents(undisturbed)
    assert verify_run(output).findings == ()
    assert not any(note.startswith(SAID) for note in reconstruct_archive(job(archive, output)).notes)


def test_a_dry_run_names_what_was_deleted_and_leaves_the_rest(archive, output, capsys):
    shutil.rmtree(os.path.join(output, "tracks"))
    before = contents(output)
    flags = ["--dry-run", "--local", "--clip-frames", "10", "--detector.detector", coded_footage.DETECTOR]
    assert run(["reconstruct", archive, "--output", output, *flags]) == 0
    assert "are missing from the output and will be computed again: 3 tracks\n" in capsys.readouterr().out
    assert contents(output) == before


def test_a_run_that_was_interrupted_computes_what_was_deleted_too(archive, undisturbed, output):
    """Its first clip was detected and tracked, and the 2D joints of it were deleted."""
    os.remove(os.path.join(output, "summary.json"))
    for kind in ("identities", "poses", "filtered", "quality"):
        shutil.rmtree(os.path.join(output, "commits", kind))
    (first, *_) = sorted(os.listdir(os.path.join(output, "keypoints", "whole")))
    os.remove(os.path.join(output, "keypoints", "whole", first))
    assert f"{SAID}1 keypoints" in reconstruct_archive(job(archive, output)).notes
    assert contents(output) == contents(undisturbed)


def test_filtered_poses_that_were_not_requested_before_are_not_missing(archive, output, tmp_path):
    plain = str(tmp_path / "plain")
    reconstruct_archive(job(archive, plain, filtered=False))
    notes = reconstruct_archive(job(archive, plain, replan=True)).notes
    assert not any(note.startswith(SAID) for note in notes)
    assert verify_run(plain).findings == ()
