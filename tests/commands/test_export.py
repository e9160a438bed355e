"""`mvpose export` on a run made through the production door."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from trc import TRCData

from mvpose.commands.export import Export, run
from mvpose.commands.record import Record
from mvpose.commands.record import run as record
from mvpose.commands.view import View
from mvpose.commands.view import run as view
from mvpose.errors import ConfigError
from mvpose.footage.calibration import read_calibration
from mvpose.footage.catalogue import Catalogue, read_catalogue, write_catalogue
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from mvpose.temporal.filter_settings import ButterworthFilter
from tests.pipeline import coded_footage

FRAMES = 40
ALL = (
    "trc", "c3d", "csv_long", "csv_wide", "bvh", "pose2sim", "anipose", "nwb", "openpose_json", "calibration_pose2sim",
    "calibration_anipose", "calibration_easymocap", "calibration_opencv", "calibration_panoptic",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> str:
    """A run folder of two captures of 40 frames."""
    archive = tmp_path_factory.mktemp("archive")
    for name in ("one", "two"):
        coded_footage.write_capture(str(archive / name), FRAMES)
    output = str(tmp_path_factory.mktemp("output") / "run")
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    reconstruct_archive(
        ReconstructJob(
            archive=str(archive), output=output, clip_frames=20, detector=detector, engine=EngineConfig(local=True),
            filtering=ButterworthFilter(cutoff_hz=2.0),
        )
    )  # fmt: skip
    return output


def files_below(folder: str) -> set[str]:
    return {os.path.relpath(os.path.join(root, file), folder) for root, _, files in os.walk(folder) for file in files}


def test_every_format_is_written_and_says_its_unit(finished, tmp_path, capsys):
    assert run(Export(run=finished, format=ALL, output=str(tmp_path), captures=("one",))) == 0
    below = files_below(str(tmp_path / "one"))
    assert {
        "raw/one_person0.trc", "raw/one.c3d", "raw/one_long.csv", "raw/one_wide.csv", "raw/one_person0.bvh",
        "raw/pose2sim/calibration/Calib.toml", "raw/pose2sim/pose-3d/one_person0.trc",
        "raw/anipose/calibration/calibration.toml", "raw/anipose/pose-3d/one_person0.csv", "raw/one.nwb",
        "openpose/cam3_json/cam3_000000000039_keypoints.json", "calibration_pose2sim/Calib.toml",
        "calibration_easymocap/intri.yml", "calibration_easymocap/extri.yml", "calibration_opencv/calibration.yml",
        "calibration_panoptic/calibration.json", "calibration_anipose/calibration.toml", "about.json",
    } <= below  # fmt: skip
    with open(tmp_path / "one" / "about.json") as file:
        about = json.load(file)
    assert about["formats"]["trc"] == "metres, Y up" and about["formats"]["c3d"] == "millimetres, Z up"
    assert set(files_below(str(tmp_path))) == {f"one/{file}" for file in below}
    assert "one: bvh, 1 files" in capsys.readouterr().out


def test_positions_are_those_of_the_run_and_the_rig_is_the_one_used(finished, tmp_path):
    run(Export(run=finished, format=("trc", "calibration_pose2sim"), output=str(tmp_path)))
    folder = RunFolder(finished)
    for plan in folder.plans():
        name = plan.capture.capture_id
        poses = folder.poses(plan)
        assert poses is not None
        read = TRCData()
        read.load(str(tmp_path / name / "raw" / f"{name}_person0.trc"))
        knee = np.array(read["left_knee"])[:, [2, 0, 1]]
        assert np.allclose(knee, poses.xyz[:, 0, poses.skeleton.index("left_knee")], atol=1e-6)
        rig = read_calibration(str(tmp_path / name / "calibration_pose2sim" / "Calib.toml"))
        assert np.allclose(rig.projections, folder.rig(plan).projections)


def test_filtered_poses_stand_beside_the_raw_ones(finished, tmp_path):
    assert run(Export(run=finished, output=str(tmp_path), captures=("two",), filtered=True)) == 0
    texts = []
    for variant in ("raw", "filtered"):
        with open(tmp_path / "two" / variant / "two_person0.trc") as file:
            texts.append(file.read())
    assert texts[0] != texts[1]
    with open(tmp_path / "two" / "about.json") as file:
        assert json.load(file)["filtering"]["filtering.cutoff_hz"] == 2.0


def test_filtered_poses_that_could_not_be_made_are_said_and_the_raw_ones_are_written(finished, tmp_path, capsys):
    """The footage has 25 frames/s: nothing above 12.5 Hz is in it for a filter to take out."""
    output = str(tmp_path / "run")
    shutil.copytree(finished, output)
    archive = RunFolder(output).catalogue().captures[0].videos[0].uri.split("/one/")[0]
    summary = reconstruct_archive(
        ReconstructJob(
            archive=archive, output=output, clip_frames=20, detector=DetectorConfig(detector=coded_footage.DETECTOR),
            engine=EngineConfig(local=True), filtering=ButterworthFilter(cutoff_hz=500.0), replan=True,
        )
    )  # fmt: skip
    assert summary.failures == ()
    assert any("one: no filtered poses: cutoff_hz is 500" in note for note in summary.notes)
    assert run(Export(run=output, output=str(tmp_path / "out"), filtered=True)) == 3
    assert "one: no trc: one has no filtered poses: cutoff_hz is 500" in capsys.readouterr().out
    assert os.path.exists(tmp_path / "out" / "two" / "raw" / "two_person0.trc")


@pytest.mark.parametrize("command", [Export, Record])
def test_captures_that_could_not_be_planned_are_told(tmp_path, capsys, command):
    """Fails if only the captures of the plan are gone through: nothing was said, and the exit code was 0."""
    archive = tmp_path / "archive"
    coded_footage.write_capture(str(archive / "one"), 2)
    (calibration,) = (archive / "one" / "calibration").iterdir()
    calibration.write_text("[cam0]\nname = 7\n")
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    job = ReconstructJob(
        archive=str(archive), output=str(tmp_path / "run"), detector=detector, engine=EngineConfig(local=True)
    )
    assert len(reconstruct_archive(job).unplanned) == 1
    made = command(run=str(tmp_path / "run"), output=str(tmp_path / "made"))
    assert (run(made) if isinstance(made, Export) else record(made)) == 3
    assert capsys.readouterr().out.startswith("one: no result: ")


def test_an_unknown_capture_or_no_run_is_one_sentence(finished):
    with pytest.raises(ConfigError, match="there are one, two"):
        run(Export(run=finished, captures=("three",)))
    with pytest.raises(ConfigError, match="no run given"):
        run(Export())


@pytest.mark.parametrize("planted", ["../../x", "/x", "one/../../../x", "one\n", "x\0"])
def test_a_run_that_names_a_capture_outside_itself_is_refused_and_nothing_is_written(finished, tmp_path, planted):
    output = shutil.copytree(finished, str(tmp_path / "deep" / "run"))
    catalogue = read_catalogue(f"{output}/catalogue.parquet")
    captures = [replace(capture, capture_id=planted) for capture in catalogue.captures[:1]]
    write_catalogue(f"{output}/catalogue.parquet", Catalogue(captures, [], []))
    for command in (
        lambda: run(Export(run=output)),
        lambda: record(Record(run=output)),
        lambda: view(View(run=(output,))),
    ):
        with pytest.raises(ConfigError, match="is not a name inside a folder"):
            command()
    assert [where for where, _, files in os.walk(tmp_path) if files and not where.startswith(output)] == []


def test_an_export_writes_over_no_files_but_its_own(finished, tmp_path):
    mine = tmp_path / "one" / "raw" / "mine.trc"
    os.makedirs(mine.parent)
    mine.write_text("years of work")
    with pytest.raises(ConfigError, match="Results need their own folder"):
        run(Export(run=finished, output=str(tmp_path), captures=("one",)))
    assert [files for _, _, files in os.walk(tmp_path) if files] == [["mine.trc"]]
