"""TRC read back by trc-data-reader, and by OpenSim's own rules written out here."""

import os

import numpy as np
import pytest
from trc import TRCData

from mvpose.archive.export.trc import trc_files
from tests.archive.export.recordings import broken, recording_of, whole

OPENSIM_KEYS = [
    "DataRate",
    "CameraRate",
    "NumFrames",
    "NumMarkers",
    "Units",
    "OrigDataRate",
    "OrigDataStartFrame",
    "OrigNumFrames",
]


def opensim_cells(line: str) -> list[str]:
    """OpenSim 4's tokenizer: every tab ends a cell, and what is empty after the last tab is no cell."""
    cells = line.split("\t")
    return cells[:-1] if cells[-1] == "" else cells


def read_as_opensim(text: str) -> tuple[dict[str, str], list[str], np.ndarray, np.ndarray]:
    """(header, markers, time, xyz (T J 3)), or an assertion where TRCFileAdapter would throw."""
    lines = text.split("\n")
    assert lines[0].split()[0] == "PathFileType"
    keys = [cell for cell in opensim_cells(lines[1]) if cell]
    values = [cell for cell in opensim_cells(lines[2]) if cell]
    assert keys == OPENSIM_KEYS and len(values) == len(keys)
    header = dict(zip(keys, values, strict=True))
    labels = [cell for cell in opensim_cells(lines[3]) if cell]
    assert labels[:2] == ["Frame#", "Time"] and len(labels) == int(header["NumMarkers"]) + 2
    axes = [cell for cell in opensim_cells(lines[4]) if cell]
    assert axes == [f"{axis}{i}" for i in range(1, len(labels) - 1) for axis in "XYZ"]
    assert lines[5] == ""
    rows = [opensim_cells(line) for line in lines[6:] if line]
    assert all(len(row) == 3 * len(labels[2:]) + 2 for row in rows)
    numbers = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return header, labels[2:], numbers[:, 1], numbers[:, 2:].reshape(len(rows), -1, 3)


def test_opensims_rules_hold_and_what_is_missing_stays_missing():
    recording = broken()
    files = list(trc_files(recording))
    assert [name for name, _ in files] == ["walk_person3.trc", "walk_person4.trc"]
    for place, (_, content) in enumerate(files):
        header, markers, time, xyz = read_as_opensim(content.decode())
        assert header["Units"] == "m" and header["NumFrames"] == "20" and header["OrigNumFrames"] == "20"
        assert float(header["DataRate"]) == pytest.approx(recording.fps, rel=1e-9)
        assert tuple(markers) == recording.poses.skeleton.joints
        assert np.allclose(time, np.arange(20) / recording.fps, atol=1e-9)
        world = xyz[..., [2, 0, 1]]
        assert np.allclose(world, recording.poses.xyz[:, place], atol=1e-6, equal_nan=True)


def test_opensim_itself_reads_the_same_where_it_is_installed(tmp_path):
    opensim = pytest.importorskip("opensim")
    recording = broken()
    for place, (name, content) in enumerate(trc_files(recording)):
        path = os.path.join(tmp_path, name)
        with open(path, "wb") as file:
            file.write(content)
        table = opensim.TimeSeriesTableVec3(path)
        rows = [table.getRowAtIndex(t) for t in range(table.getNumRows())]
        xyz = np.array([[[row[j][i] for i in (2, 0, 1)] for j in range(26)] for row in rows])
        assert np.allclose(xyz, recording.poses.xyz[:, place], atol=1e-6, equal_nan=True)


def test_trc_data_reader_reads_the_same():
    recording = whole()
    ((_, content),) = trc_files(recording)
    read = TRCData()
    read.parse(content.decode(), line_sep="\n")
    assert read["Units"] == "m" and read["NumMarkers"] == 26
    assert read["DataRate"] == pytest.approx(recording.fps)
    for j, joint in enumerate(recording.poses.skeleton.joints):
        assert np.allclose(np.array(read[joint])[:, [2, 0, 1]], recording.poses.xyz[:, 0, j], atol=1e-6)


def test_up_is_the_second_column_and_the_turn_is_no_mirror():
    point = np.zeros((2, 1, 26, 3))
    point[..., 2] = 1.75
    ((_, content),) = trc_files(recording_of(point))
    assert read_as_opensim(content.decode())[3][0, 0].tolist() == [0.0, 1.75, 0.0]
    axes = np.eye(3)[:, [1, 2, 0]]
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_frames_are_numbered_one_by_one_and_time_starts_at_zero():
    ((_, content),) = trc_files(whole())
    rows = [line.split("\t") for line in content.decode().split("\n")[6:] if line]
    assert [int(row[0]) for row in rows] == list(range(1, 21))
    assert float(rows[0][1]) == 0.0


def test_a_recording_whose_people_come_later_has_all_frames_from_number_1_at_time_0():
    xyz = np.ones((12, 1, 26, 3))
    xyz[:5] = np.nan
    recording = recording_of(xyz)
    ((_, content),) = trc_files(recording)
    header, _, time, read = read_as_opensim(content.decode())
    rows = [line.split("\t") for line in content.decode().split("\n")[6:] if line]
    assert header["OrigDataStartFrame"] == "1" and [int(row[0]) for row in rows] == list(range(1, 13))
    assert time == pytest.approx(np.arange(12) / recording.fps, abs=1e-9)
    assert np.isnan(read[:5]).all() and np.isfinite(read[5:]).all()
