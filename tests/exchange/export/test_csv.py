"""CSV written by pandas, read back by pyarrow and by the csv module."""

import csv
import io

import numpy as np
import pyarrow.csv

from mvpose.exchange.export.anipose_project import anipose_files
from mvpose.exchange.export.csv import long_csv_files, wide_csv_files
from mvpose.scenes import two_people_crossing
from tests.exchange.export.recordings import broken, whole


def columns(content: bytes) -> dict[str, list]:
    return pyarrow.csv.read_csv(io.BytesIO(content)).to_pydict()


def numbers(values: list) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def test_long_rows_hold_every_value_and_empty_cells_what_is_missing():
    recording = broken()
    ((name, content),) = long_csv_files(recording)
    assert name == "walk_long.csv"
    table = columns(content)
    poses = recording.poses
    assert len(table["frame"]) == (20 * 2 - 1) * 26
    assert (set(table["capture"]), set(table["person"])) == ({"day1/walk"}, {3, 4})
    t, p = np.array(table["frame"]), np.array(table["person"]) - 3
    j = np.array([poses.skeleton.index(joint) for joint in table["joint"]])
    xyz = np.stack([numbers(table[f"{axis}_m"]) for axis in "xyz"], axis=-1)
    assert np.array_equal(xyz.astype(np.float32), poses.xyz[t, p, j], equal_nan=True)
    assert np.array_equal(numbers(table["error_px"]).astype(np.float32), poses.error_px[t, p, j], equal_nan=True)
    assert np.array_equal(numbers(table["sigma_mm"]).astype(np.float32), poses.sigma_mm[t, p, j], equal_nan=True)
    assert np.array_equal(numbers(table["confidence"]).astype(np.float32), poses.confidence[t, p, j])
    assert np.array_equal(np.array(table["views"]), poses.num_views[t, p, j])
    assert np.array_equal(np.array(table["interpolated"], dtype=bool), recording.filled[t, p, j])
    assert np.allclose(table["time_s"], t / recording.fps)


def test_no_missing_value_is_written_as_zero():
    ((_, content),) = long_csv_files(broken())
    missing = [row for row in csv.DictReader(io.StringIO(content.decode())) if row["confidence"] == "0"]
    empty = ("x_m", "y_m", "z_m", "error_px", "sigma_mm")
    assert missing and all(row[name] == "" for row in missing for name in empty)


def test_wide_has_a_row_a_frame_and_names_the_person_where_there_are_several():
    recording = broken()
    ((_, content),) = wide_csv_files(recording)
    table = columns(content)
    assert table["frame"] == list(range(20))
    knee = recording.poses.skeleton.index("left_knee")
    for i, axis in enumerate("xyz"):
        read = numbers(table[f"person4_left_knee_{axis}_m"]).astype(np.float32)
        assert np.array_equal(read, recording.poses.xyz[:, 1, knee, i], equal_nan=True)
    ((_, alone),) = wide_csv_files(whole())
    assert "left_knee_x_m" in columns(alone)


def test_anipose_finds_its_columns_and_missing_is_empty():
    recording = broken()
    files = dict(anipose_files(recording, two_people_crossing().rig))
    assert list(files) == ["calibration/calibration.toml", "pose-3d/walk_person3.csv", "pose-3d/walk_person4.csv"]
    table = columns(files["pose-3d/walk_person4.csv"])
    wrist = recording.poses.skeleton.index("left_wrist")
    there = np.isfinite(recording.poses.xyz[:, 1, wrist, 0])
    for i, axis in enumerate("xyz"):
        read = numbers(table[f"left_wrist_{axis}"]).astype(np.float32)
        assert np.array_equal(read, recording.poses.xyz[:, 1, wrist, i], equal_nan=True)
    for name in ("error", "ncams", "score"):
        assert np.array_equal(np.isfinite(numbers(table[f"left_wrist_{name}"])), there)
    assert np.array_equal(numbers(table["left_wrist_ncams"])[there], recording.poses.num_views[there, 1, wrist])
    axes = [[table[f"M_{i}{j}"][0] for j in range(3)] for i in range(3)]
    assert axes == np.eye(3).tolist() and table["center_2"][0] == 0 and table["fnum"] == list(range(20))
