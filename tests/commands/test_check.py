"""`mvpose check` through the door, on coded footage whose calibration is right or wrong on purpose."""

import json
import os

import pytest

from mvpose.commands.check import Check, run
from mvpose.errors import ConfigError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.quality.preflight import PreflightConfig
from tests.pipeline import coded_footage

FRAMES = 40
DETECTOR = DetectorConfig(detector=coded_footage.DETECTOR)
PREFLIGHT = PreflightConfig(runs=1, run_frames=24, max_shift=6)


@pytest.fixture
def archive(tmp_path) -> str:
    coded_footage.write_capture(str(tmp_path / "archive" / "one"), FRAMES)
    return str(tmp_path / "archive")


def check(archive: str, **more) -> int:
    return run(Check(archive=archive, detector=DETECTOR, preflight=PREFLIGHT, **more))


def test_a_good_capture_passes_with_code_0(archive, capsys):
    assert check(archive, verbose=True) == 0
    said = capsys.readouterr().out
    assert said.startswith("one: pass") and "synchronisation cam3: in step" in said


def test_swapped_cameras_fail_with_code_4_and_are_named(archive, tmp_path, capsys):
    videos = [os.path.join(archive, "one", "videos", f"cam{camera}.mp4") for camera in (1, 2)]
    for source, target in ((videos[0], "other"), (videos[1], videos[0]), ("other", videos[1])):
        os.rename(os.path.join(archive, source), os.path.join(archive, target))
    output = str(tmp_path / "found.json")
    assert check(archive, output=output) == 4
    assert "camera names cam1, cam2" in capsys.readouterr().out
    with open(output) as file:
        text = file.read()
    assert "NaN" not in text and "Infinity" not in text
    found = json.loads(text)["one"]
    assert found["status"] == "fail"
    assert [f["cameras"] for f in found["findings"] if f["check"] == "camera names"] == [["cam1", "cam2"]]


def test_videos_of_different_length_warn_with_code_3(archive, capsys):
    coded_footage.write_video(os.path.join(archive, "one", "videos", "cam2.mp4"), 2, 24)
    assert check(archive) == 3
    assert "lengths differ by 0.53 s" in capsys.readouterr().out


def test_a_capture_that_cannot_be_used_fails_and_the_others_are_checked(archive, capsys):
    broken = coded_footage.write_capture(os.path.join(archive, "two"), FRAMES)
    with open(os.path.join(broken, "calibration", "Calib.toml"), "w") as file:
        file.write("nothing = 1\n")
    assert check(archive) == 4
    said = capsys.readouterr().out
    assert "two: fail" in said and "cannot be used, calibration" in said and "one: pass" in said


def test_only_the_captures_asked_for_are_looked_at(archive, capsys):
    coded_footage.write_capture(os.path.join(archive, "two"), FRAMES)
    assert check(archive, captures=("two",)) == 0
    assert "one:" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="three"):
        check(archive, captures=("three",))


def test_an_archive_must_be_named():
    with pytest.raises(ConfigError, match="mvpose check ARCHIVE"):
        run(Check())
