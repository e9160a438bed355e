"""A unit that a calibration does not state is guessed from the rig's size and confirmed by the people that come out."""

import os
import re
import shutil

import numpy as np
import pytest

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import confirm_unit
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from tests.pipeline import coded_footage

FRAMES = 6
PER_METRE = {"m": 1.0, "cm": 100.0, "mm": 1000.0, "in": 1 / 0.0254}


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> str:
    return coded_footage.write_capture(str(tmp_path_factory.mktemp("units") / "archive" / "one"), FRAMES)


def write_in(unit: str, capture: str, folder: str) -> str:
    """A copy of the capture whose calibration is in another unit."""
    shutil.copytree(capture, folder)
    path = os.path.join(folder, "calibration", "Calib.toml")
    with open(path) as file:
        text = file.read()

    def scaled(match: re.Match) -> str:
        numbers = [float(n) * PER_METRE[unit] for n in match[1].split(",")]
        return f"translation = {numbers}"

    with open(path, "w") as file:
        file.write(re.sub(r"translation = \[([^]]*)\]", scaled, text))
    return folder


def reconstructed(archive, output):
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    return reconstruct_archive(
        ReconstructJob(archive=str(archive), output=str(output), detector=detector, engine=EngineConfig(local=True))
    )


def error_m(output, capture_id: str) -> float:
    run = RunFolder(str(output))
    (plan,) = [plan for plan in run.plans() if plan.capture_id == capture_id]
    poses = run.poses(plan)
    assert poses is not None
    return float(np.nanmedian(np.linalg.norm(poses.xyz - coded_footage.scene(40).joints[:FRAMES], axis=-1)))


@pytest.mark.parametrize(
    ("unit", "sentence"),
    [("cm", 'read in mm, which makes people .* `unit = "cm"`'), ("in", "not a rig of .* Set the unit")],
)
def test_a_unit_that_cannot_be_guessed_stops_its_capture_and_no_other(unit, sentence, capture, tmp_path):
    write_in(unit, capture, str(tmp_path / "archive" / "other"))
    write_in("mm", capture, str(tmp_path / "archive" / "usual"))
    summary = reconstructed(tmp_path / "archive", tmp_path / "run")
    (failure,) = summary.failures
    assert failure.clip.capture_id == "other"
    assert re.search(sentence, failure.detail)
    assert error_m(tmp_path / "run", "usual") < 0.02
    (tmp_path / "archive" / "other" / "capture.toml").write_text(f'unit = "{unit}"\n')
    assert not reconstructed(tmp_path / "archive", tmp_path / "named").failures
    assert error_m(tmp_path / "named", "other") < 0.02


def test_a_unit_that_the_user_named_is_not_questioned(capture, tmp_path):
    write_in("cm", capture, str(tmp_path / "archive" / "dolls"))
    (tmp_path / "archive" / "dolls" / "capture.toml").write_text('unit = "mm"\n')
    assert not reconstructed(tmp_path / "archive", tmp_path / "run").failures


@pytest.mark.parametrize("height_m", [0.62, 1.0, 1.75, 2.5, float("nan")])
@pytest.mark.parametrize("unit", ["m", "cm", "mm", "in"])
def test_people_of_a_human_height_confirm_any_unit(height_m, unit):
    confirm_unit(height_m, unit)


def test_a_height_that_no_unit_explains_is_not_the_units_fault():
    """A doll of 0.5 m in metres: 5 mm, 0.5 mm and 13 mm in the other units."""
    confirm_unit(0.5, "m")


@pytest.mark.parametrize(("height_m", "read", "unit"), [(0.17, "mm", "cm"), (0.067, "mm", "in"), (17.0, "cm", "mm")])
def test_the_unit_that_makes_people_of_human_height_is_named(height_m, read, unit):
    with pytest.raises(CalibrationError, match=rf'`unit = "{unit}"`'):
        confirm_unit(height_m, read)
