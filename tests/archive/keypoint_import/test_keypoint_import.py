"""Other tools' 2D joints: missing stays missing, frames keep their numbers, and nothing in a file is run.

tests/data/deeplabcut_*.h5 were written by pandas 3.1 and PyTables 3.11: 4 frames, body parts nose, left_wrist, tail,
x = 100 frame + 10 individual + part + 0.5, y = 1000 + 100 frame + 10 individual + part, likelihood 0.9 - 0.1 part, and
left_wrist of the first individual missing in frame 2. `individuals` has two of them, `fixed` is pandas' other format.
"""

import io
import json
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest

from mvpose.archive.export.openpose_json import openpose_files
from mvpose.archive.keypoint_import import import_keypoints, read_view
from mvpose.errors import ConfigError
from mvpose.scenes import dropped_frame
from mvpose.skeleton import BODY25, COCO17, Skeleton

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "data")
MOUSE = Skeleton("mouse", ("nose", "left_wrist", "tail"), ())


def written(folder: str, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return str(folder)


def test_openpose_json_comes_back_as_it_was_exported(tmp_path):
    scene = dropped_frame(num_frames=32)
    keypoints = scene.keypoints()
    folder = written(tmp_path, dict(openpose_files(keypoints, scene.rig.names)))
    read = import_keypoints([f"{folder}/{camera}_json" for camera in scene.rig.names], keypoints.skeleton)
    assert np.allclose(read.xy, keypoints.xy, atol=1e-3, equal_nan=True)
    assert np.allclose(read.confidence, keypoints.confidence, atol=1e-5)
    assert np.array_equal(read.box_score > 0, keypoints.box_score > 0)
    inside = read.box_score > 0
    assert (read.box[inside][:, :2] >= np.nanmin(keypoints.xy[inside], axis=1) - 1e-2).all()


def person(skeleton: Skeleton, value: float) -> dict:
    return {"person_id": [-1], "pose_keypoints_2d": [value, value + 1, 0.8] * len(skeleton.joints)}


def test_openpose_frames_keep_their_numbers_and_zero_is_missing(tmp_path):
    two = [person(COCO17, 5.0), person(COCO17, 9.0)]
    two[1]["pose_keypoints_2d"][:3] = [0, 0, 0]
    files = {
        "a/x_000000000012_keypoints.json": json.dumps({"people": two}).encode(),
        "a/x_000000000010_keypoints.json": json.dumps({"people": [person(COCO17, 3.0)]}).encode(),
        "a/notes.txt": b"",
    }
    read = import_keypoints([f"{written(tmp_path, files)}/a"], COCO17, first_number=10)
    assert read.xy.shape == (1, 3, 2, 17, 2)
    assert (read.xy[0, 0, 0, :, 0] == 3.0).all() and (read.box_score[0, 1] == 0).all()
    assert np.isnan(read.xy[0, 2, 1, 0]).all() and read.confidence[0, 2, 1, 0] == 0
    assert np.isfinite(read.xy[0, 2, 1, 1:]).all()
    assert read.box[0, 2, 1].tolist() == [9.0, 10.0, 9.0, 10.0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/1.json": b"{"}, "not OpenPose JSON"),
        ({"a/1.json": b"[]"}, "not OpenPose JSON"),
        ({"a/1.json": b'{"people": [{"pose_keypoints_2d": [1, 2]}]}'}, "not OpenPose JSON"),
        ({"a/1.json": json.dumps({"people": [person(BODY25, 1.0)]}).encode()}, "25 joints"),
        ({"a/99999999999.json": b'{"people": []}'}, "first_number"),
        ({"a/readme.md": b""}, "no numbered JSON"),
    ],
)
def test_what_is_not_openpose_is_refused_by_name(tmp_path, files, said):
    with pytest.raises(ConfigError, match=said):
        read_view(f"{written(tmp_path, files)}/a", COCO17)


@pytest.mark.parametrize("file", ["deeplabcut_table.h5", "deeplabcut_individuals.h5", "deeplabcut_fixed.h5"])
def test_deeplabcut_tables_are_read_without_unpickling_anything(file):
    read = import_keypoints([os.path.join(DATA, file)], MOUSE)
    people = 2 if "individuals" in file else 1
    assert read.xy.shape == (1, 4, people, 3, 2)
    t, i, j = np.meshgrid(np.arange(4), np.arange(people), np.arange(3), indexing="ij")
    expected = np.stack([100 * t + 10 * i + j + 0.5, 1000 + 100 * t + 10 * i + j], axis=-1)
    missing = (t == 2) & (i == 0) & (j == 1)
    assert np.allclose(read.xy[0][~missing], expected[~missing])
    assert np.isnan(read.xy[0][missing]).all() and (read.confidence[0][missing] == 0).all()
    assert np.allclose(read.confidence[0][~missing], (0.9 - 0.1 * j)[~missing])


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (os.path.join(tmp_path, "ran"),)

    path = os.path.join(tmp_path, "trap.h5")
    shutil.copy(os.path.join(DATA, "deeplabcut_table.h5"), path)
    with h5py.File(path, "r+") as file:
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps([Trap()], protocol=0))
    with pytest.raises(ConfigError, match="never loaded"):
        read_view(path, MOUSE)
    assert not os.path.exists(os.path.join(tmp_path, "ran"))


def test_joints_are_renamed_left_out_or_missing():
    uri = os.path.join(DATA, "deeplabcut_table.h5")
    read = import_keypoints([uri], COCO17, names={"tail": "right_wrist"})
    there = np.isfinite(read.xy[0, 0, 0, :, 0])
    assert {COCO17.joints[j] for j in np.flatnonzero(there)} == {"nose", "left_wrist", "right_wrist"}
    with pytest.raises(ConfigError, match="names"):
        import_keypoints([uri], Skeleton("other", ("a", "b"), ()))


def sleap_file(path: str, preset: str) -> np.ndarray:
    """xy (T P J 2) that the file holds, in SLEAP's order or in sleap-io's, with its `dims`."""
    rng = np.random.default_rng(0)
    xy, scores = rng.uniform(0, 500, (5, 2, 3, 2)), rng.uniform(0.2, 1.1, (5, 2, 3))
    xy[1, 0, 2] = scores[1, 0, 2] = np.nan
    scores[3, 1, 0] = np.nan
    with h5py.File(path, "w") as file:
        file["node_names"] = [b"nose", b"left_wrist", b"tail"]
        if preset == "matlab":
            file["tracks"], file["point_scores"] = xy.transpose(1, 3, 2, 0), scores.transpose(1, 2, 0)
        else:
            file["tracks"], file["point_scores"] = xy, scores
            file["tracks"].attrs["dims"] = json.dumps(["frame", "track", "node", "xy"])
            file["point_scores"].attrs["dims"] = json.dumps(["frame", "track", "node"])
    return xy


@pytest.mark.parametrize("preset", ["matlab", "standard"])
def test_sleap_is_read_in_both_orders_of_its_axes(tmp_path, preset):
    path = os.path.join(tmp_path, "a.analysis.h5")
    xy = sleap_file(path, preset)
    read = import_keypoints([path], MOUSE)
    assert np.allclose(read.xy[0], xy, atol=1e-4, equal_nan=True)
    assert read.confidence[0, 1, 0, 2] == 0
    assert read.confidence[0, 3, 1, 0] == 1.0 and read.confidence.max() <= 1.0


def test_cameras_of_different_length_are_padded_and_not_cut(tmp_path):
    path = os.path.join(tmp_path, "a.h5")
    sleap_file(path, "matlab")
    read = import_keypoints([path, os.path.join(DATA, "deeplabcut_table.h5")], MOUSE)
    assert read.xy.shape[:3] == (2, 5, 2)
    assert (read.box_score[1, 4] == 0).all() and np.isnan(read.xy[1, 4]).all() and (read.box_score[0, 4] > 0).any()
    assert import_keypoints([path], MOUSE, num_frames=3).xy.shape[1] == 3


def test_neither_hdf5_nor_a_table_is_refused_by_name(tmp_path):
    path = os.path.join(tmp_path, "a.h5")
    with open(path, "wb") as file:
        file.write(b"x,y\n1,2\n")
    with pytest.raises(ConfigError, match=r"a\.h5.*HDF5"):
        read_view(path, MOUSE)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["other"] = [1, 2]
    with open(path, "wb") as file:
        file.write(buffer.getvalue())
    with pytest.raises(ConfigError, match="neither a SLEAP"):
        read_view(path, MOUSE)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_view(os.path.join(tmp_path, "absent.h5"), MOUSE)


def test_arrays_kept_in_other_files_are_refused_and_these_not_opened(tmp_path):
    """Raw storage elsewhere, a virtual dataset, a link: each would read a file of the archive's choosing."""
    np.arange(4.0).tofile(tmp_path / "private.bin")
    with h5py.File(tmp_path / "private.h5", "w") as private:
        private["x"] = np.arange(4.0)
    raw, layout = str(tmp_path / "private.bin"), h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "private.h5"), "x", (4,))
    for make, said in (
        (
            lambda f: f.create_dataset("tracks", (4,), "f8", external=[(raw, 0, 32)]),
            "kept in",
        ),
        (lambda f: f.create_virtual_dataset("tracks", layout), "kept in other files"),
        (lambda f: f.__setitem__("tracks", h5py.ExternalLink(str(tmp_path / "private.h5"), "x")), "no dataset"),
        (lambda f: f.create_dataset("tracks", (1 << 40,), "f8", chunks=(1024,)), "more than 2 GiB"),
    ):
        with h5py.File(tmp_path / "analysis.h5", "w") as file:
            file["node_names"] = np.array([b"nose"])
            make(file)
        with pytest.raises(ConfigError, match=said):
            read_view(str(tmp_path / "analysis.h5"), MOUSE)
