"""C3D written by ezc3d, read back by the pure Python `c3d`."""

import io

import c3d
import ezc3d
import numpy as np
import pytest

from mvpose.archive.export.c3d import c3d_files
from mvpose.skeleton import Skeleton
from tests.archive.export.recordings import broken, recording_of, whole

pytestmark = pytest.mark.filterwarnings("ignore:No analog data")


def read(content: bytes) -> tuple[c3d.Reader, np.ndarray]:
    """The reader, and (T N 5): x y z residual cameras."""
    reader = c3d.Reader(io.BytesIO(content))
    return reader, np.stack([points for _, points, _ in reader.read_frames()])


def labels(reader: c3d.Reader) -> list[str]:
    named = ["POINT:LABELS", *(f"POINT:LABELS{i}" for i in range(2, 9))]
    parameters = [reader.get(name) for name in named]
    return [label.strip() for p in parameters if p is not None for label in p.string_array]


def test_points_are_millimetre_floats_and_missing_ones_have_residual_minus_one():
    recording = broken()
    ((name, content),) = c3d_files(recording)
    reader, points = read(content)
    assert name == "walk.c3d"
    xyz = recording.poses.xyz.reshape(20, 52, 3)
    there = np.isfinite(xyz).all(axis=-1)
    assert np.allclose(points[there][:, :3], xyz[there] * 1000, atol=1e-3)
    assert (points[there][:, 3] == 0).all() and (points[~there][:, 3] == -1).all()
    assert reader.get("POINT:SCALE").float_value < 0
    assert reader.get("POINT:UNITS").string_value.strip() == "mm"
    assert reader.get("POINT:X_SCREEN").string_value.strip() == "+X"
    assert reader.get("POINT:Y_SCREEN").string_value.strip() == "+Z"
    assert reader.point_rate == pytest.approx(recording.fps, rel=1e-6)


def test_labels_name_the_person_where_there_are_several():
    ((_, content),) = c3d_files(broken())
    joints = broken().poses.skeleton.joints
    assert labels(read(content)[0]) == [f"person{t}:{j}" for t in (3, 4) for j in joints]
    ((_, alone),) = c3d_files(whole())
    assert labels(read(alone)[0]) == list(joints)


def test_labels_beyond_255_are_kept():
    names = tuple(f"marker_{i}" for i in range(300))
    xyz = np.random.default_rng(0).normal(size=(3, 1, 300, 3))
    ((_, content),) = c3d_files(recording_of(xyz, Skeleton("many", names, ())))
    reader, points = read(content)
    assert labels(reader) == list(names)
    assert np.allclose(points[..., :3], xyz[:, 0] * 1000, atol=1e-3)


def test_a_recording_above_65535_frames_is_split_and_no_frame_is_lost():
    num_frames = 65_535 + 20
    xyz = np.zeros((num_frames, 1, 1, 3))
    xyz[:, 0, 0, 0] = np.arange(num_frames) * 1e-3
    files = list(c3d_files(recording_of(xyz, Skeleton("one", ("a",), ()))))
    assert [name for name, _ in files] == ["walk_frames0000000-0065534.c3d", "walk_frames0065535-0065554.c3d"]
    first, second = (c3d.Reader(io.BytesIO(content)) for _, content in files)
    assert (first.frame_count, second.frame_count) == (65_535, 20)
    _, points = read(files[1][1])
    assert np.allclose(points[:, 0, 0], np.arange(65_535, num_frames), atol=1e-2)


def test_parts_join_to_the_whole():
    parts = [read(content)[1] for _, content in c3d_files(broken(), max_frames=7)]
    assert [len(part) for part in parts] == [7, 7, 6]
    ((_, content),) = c3d_files(broken())
    assert np.array_equal(np.concatenate(parts), read(content)[1])


def test_ezc3d_reads_missing_points_as_missing_and_those_alone(tmp_path):
    recording = broken()
    path = str(tmp_path / "walk.c3d")
    with open(path, "wb") as file:
        file.write(next(c3d_files(recording))[1])
    data = ezc3d.c3d(path)["data"]
    there = np.isfinite(recording.poses.xyz.reshape(20, 52, 3)).all(axis=-1)
    residuals = data["meta_points"]["residuals"][0].T
    assert (residuals[there] == 0).all() and (residuals[~there] == -1).all()
    xyz = data["points"][:3].transpose(2, 1, 0)
    assert np.allclose(xyz[there], recording.poses.xyz.reshape(20, 52, 3)[there] * 1000, atol=1e-3)
    assert np.isnan(xyz[~there]).all()
