"""Foreign text costs time in proportion to its size: what would cost more is refused before it is parsed."""

import json
import os

import pytest

from mvpose.config import MAX_KEY_PARTS, MAX_TOML_BYTES, load_toml, parse_toml
from mvpose.errors import CalibrationError, ConfigError
from mvpose.footage.calibration import MAX_BYTES, read_calibration
from mvpose.footage.calibration.file_cameras import MAX_CAMERAS
from mvpose.footage.calibration.opencv_yaml import MAX_KEY, _entries, read_opencv_yaml
from mvpose.footage.capture_toml import read_capture_toml
from mvpose.tracking import TrackingConfig

DOTTED = ".".join(["a"] * 24_000) + " = 1\n"
QUOTED = " . ".join(["'a b'", '"c\\"d"'] * MAX_KEY_PARTS) + " = 1\n"


def written(tmp_path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


@pytest.mark.parametrize("rest", [": 1", "x", ""])
def test_a_yaml_key_is_measured_before_it_is_looked_at(tmp_path, rest):
    """What is done for a key may grow with the square of its length: 4 million spaces took two hours."""
    longest = f"K_{' ' * (MAX_KEY - 2)}"
    with pytest.raises(CalibrationError, match="starts a key of more than 300 characters"):
        read_calibration(written(tmp_path, "intri.yml", f"%YAML:1.0\n{longest} {rest}\n"))
    assert list(_entries(f"%YAML:1.0\n{longest}: 1\n")) == [("K_", "1")]


@pytest.mark.parametrize("text", [DOTTED, f"[{DOTTED[:-5]}]\n", QUOTED, f"x = {{ {DOTTED[:-1]} }}\n"])
def test_keys_of_many_parts_are_refused_before_they_are_parsed(tmp_path, text):
    with pytest.raises(ValueError, match="a key has more than 16 parts"):
        parse_toml(text)
    with pytest.raises(CalibrationError, match="a key has more than 16 parts"):
        read_calibration(written(tmp_path, "Calib.toml", text))
    written(tmp_path, "capture.toml", text)
    with pytest.raises(ConfigError, match=r"capture\.toml is not valid TOML: a key has more than 16 parts"):
        read_capture_toml(str(tmp_path), (), outside_archive=False)
    with pytest.raises(ConfigError, match="a key has more than 16 parts"):
        load_toml("run.toml", text, TrackingConfig)


def test_keys_and_numbers_that_files_have_are_none_of_many_parts():
    numbers = f"matrix = [{', '.join(['1.25', '-0.5e-3'] * 1000)}]\nname = '{'/'.join(['a.b'] * 100)}'\n"
    parsed = parse_toml(f"{'.'.join('abcdefghijklmnop')} = 1\n{numbers}# ...... 1.2.3\n")
    assert len(parsed["matrix"]) == 2000


def test_a_file_above_its_limit_is_not_read(tmp_path):
    for name, maximum in (("capture.toml", MAX_TOML_BYTES), ("Calib.toml", MAX_BYTES)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(maximum + 1)
    with pytest.raises(ConfigError, match="it is larger than 1 MiB"):
        read_capture_toml(str(tmp_path), (), outside_archive=False)
    with pytest.raises(CalibrationError, match="it is larger than 8 MiB"):
        read_calibration(str(tmp_path / "Calib.toml"))


def test_toml_above_its_limit_is_not_parsed(tmp_path):
    """Each table costs much more than its letters: 8 MiB of them took half a minute."""
    headers = "[a]\n[b]\n" * (MAX_TOML_BYTES // 8)
    with pytest.raises(ValueError, match="twice"):
        parse_toml(headers)
    with pytest.raises(CalibrationError, match="it is larger than 1 MiB, the size limit"):
        read_calibration(written(tmp_path, "Calib.toml", f"{headers}#"))


def test_a_pipe_as_a_calibration_or_capture_toml_is_refused(tmp_path):
    for name in ("capture.toml", "Calib.toml"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="it is a pipe"):
        read_capture_toml(str(tmp_path), (), outside_archive=False)
    with pytest.raises(CalibrationError, match="it is a pipe"):
        read_calibration(str(tmp_path / "Calib.toml"))


def test_cameras_are_counted_before_any_is_looked_at(tmp_path):
    """None of them has all that a camera needs: what was looked at would be said to lack it."""
    count = MAX_CAMERAS + 1
    toml = "".join(f"[c{i}]\nmatrix = 1\nrotation = 1\ntranslation = 1\n" for i in range(count))
    yaml = f"%YAML:1.0\nnames: [{', '.join(f'c{i}' for i in range(count))}]\n"
    yaml += "".join(f"T_c{i}: 1\nR_c{i}: 1\n" for i in range(count))
    panoptic = json.dumps({"cameras": [{"name": f"c{i}"} for i in range(count)]})
    for name, text in (("a.toml", toml), ("a.yml", yaml), ("a.json", panoptic)):
        with pytest.raises(CalibrationError, match=r"it has 1025 cameras; the limit is 1024"):
            read_calibration(written(tmp_path, name, text))


def test_one_camera_named_a_million_times_is_read_no_million_times():
    with pytest.raises(CalibrationError, match="several cameras are named 01"):
        read_opencv_yaml([f"%YAML:1.0\nnames: [{', '.join(['01'] * 500)}]\nT_01: 1\nR_01: 1\n"])


def test_names_that_no_file_can_have_are_refused(tmp_path):
    text = f"['{'a' * 256}']\nmatrix = 1\nrotation = 1\ntranslation = 1\n"
    with pytest.raises(CalibrationError, match="has more than 255 characters"):
        read_calibration(written(tmp_path, "a.toml", text))
