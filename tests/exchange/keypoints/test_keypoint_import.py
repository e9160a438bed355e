"""Other tools' 2D joints: missing stays missing, frames keep their numbers, and nothing in a file is run.

tests/data/deeplabcut_*.h5 were written by pandas 3.1 and PyTables 3.11: 4 frames, body parts nose, left_wrist, tail,
x = 100 frame + 10 individual + part + 0.5, y = 1000 + 100 frame + 10 individual + part, likelihood 0.9 - 0.1 part, and
left_wrist of the first individual missing in frame 2. `individuals` has two of them, `fixed` is pandas' other format.
"""

import json
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.errors import ConfigError
from mvpose.exchange.export.openpose_json import openpose_files
from mvpose.exchange.keypoints import DeepLabCutImport, KeypointImport, OpenPoseImport, SleapImport
from mvpose.exchange.keypoints.captures import stamped
from mvpose.exchange.keypoints.contents import keypoints_of, read_table
from mvpose.models.detection.cards import read_card
from mvpose.records import Keypoints2D
from mvpose.scenes import dropped_frame
from mvpose.skeleton import BODY25, COCO17, MPII16, Skeleton

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "data")
MOUSE = ("nose", "left_wrist", "tail")


def joints_of(sources: list[str], config: KeypointImport, frames: range) -> Keypoints2D:
    return keypoints_of(stamped(sources), config, frames)


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
    read = joints_of([f"{folder}/{camera}_json" for camera in scene.rig.names], OpenPoseImport(), range(32))
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
    read = joints_of([f"{written(tmp_path, files)}/a"], OpenPoseImport(), range(10, 13))
    assert read.xy.shape == (1, 3, 2, 17, 2)
    assert (read.xy[0, 0, 0, :, 0] == 3.0).all() and (read.box_score[0, 1] == 0).all()
    assert np.isnan(read.xy[0, 2, 1, 0]).all() and read.confidence[0, 2, 1, 0] == 0
    assert np.isfinite(read.xy[0, 2, 1, 1:]).all()
    assert read.box[0, 2, 1].tolist() == [9.0, 10.0, 9.0, 10.0]


def whole(confidence: float, *coordinates: float) -> bytes:
    """A file of one person whose joints have one confidence, at coordinates that repeat."""
    xy = np.resize(coordinates, (17, 2))
    return json.dumps({"people": [{"pose_keypoints_2d": np.c_[xy, np.full(17, confidence)].ravel().tolist()}]}).encode()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/1.json": b"{"}, r"1\.json is not OpenPose JSON"),
        ({"a/1.json": b""}, r"1\.json is not OpenPose JSON.*delete it"),
        ({"a/1.json": b"[]"}, "not OpenPose JSON"),
        ({"a/1.json": b'{"people": [[1]]}'}, "not OpenPose JSON"),
        ({"a/1.json": b'{"people": [{"pose_keypoints_2d": [1, 2]}]}'}, "not OpenPose JSON"),
        ({"a/1.json": json.dumps({"people": [person(BODY25, 5.0)]}).encode()}, "25 joints.*coco17 has 17"),
        ({"a/1.json": whole(90.0, 5.0, 8.0)}, "confidences up to 90"),
        ({"a/1.json": whole(0.9, 0.5, 0.9)}, "normalised"),
        ({"a/1.json": whole(0.9, 5.0), "a/01.json": whole(0.9, 5.0)}, "several files numbered 1"),
        (
            {"a/x_1.json": whole(0.9, 5.0), "a/results_2024.json": b"{}"},
            r"several sequences: results_\*\.json \(1\), x_\*\.json \(1\)",
        ),
        ({"a/readme.md": b""}, "no numbered JSON"),
    ],
)
def test_what_is_not_openpose_is_refused_by_name(tmp_path, files, said):
    with pytest.raises(ConfigError, match=said):
        joints_of([f"{written(tmp_path, files)}/a"], OpenPoseImport(skeleton="coco17"), range(3))


def test_a_joint_set_that_is_not_recognised_has_to_be_named(tmp_path):
    folder = written(tmp_path, {"a/1.json": json.dumps({"people": [person(MPII16, 5.0)]}).encode()})
    with pytest.raises(ConfigError, match=r"16 joints.*17 \(coco17\).*--skeleton"):
        joints_of([f"{folder}/a"], OpenPoseImport(), range(2))
    assert joints_of([f"{folder}/a"], OpenPoseImport(skeleton="mpii16"), range(2)).skeleton == MPII16


@pytest.mark.parametrize("file", ["deeplabcut_table.h5", "deeplabcut_individuals.h5", "deeplabcut_fixed.h5"])
def test_deeplabcut_tables_are_read_without_unpickling_anything(file):
    read = joints_of([os.path.join(DATA, file)], DeepLabCutImport(), range(4))
    assert read.skeleton.joints == MOUSE and read.skeleton.bones == ()
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
        read_table(path)
    assert not os.path.exists(os.path.join(tmp_path, "ran"))


def test_joints_are_renamed_left_out_or_missing():
    uri = os.path.join(DATA, "deeplabcut_table.h5")
    read = joints_of([uri], DeepLabCutImport(skeleton="coco17", joints=("tail=right_wrist",)), range(4))
    there = np.isfinite(read.xy[0, 0, 0, :, 0])
    assert {COCO17.joints[j] for j in np.flatnonzero(there)} == {"nose", "left_wrist", "right_wrist"}
    with pytest.raises(ConfigError, match=r"left_wrist, tail, of which 2 belong to the skeleton coco17.*--joints"):
        joints_of([uri], DeepLabCutImport(skeleton="coco17"), range(4))
    with pytest.raises(ConfigError, match="the same name"):
        joints_of([uri], DeepLabCutImport(joints=("tail=nose",)), range(4))
    with pytest.raises(ConfigError, match="tail is not of the form FROM=TO"):
        DeepLabCutImport(joints=("tail",))


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
    read = joints_of([path], SleapImport(), range(5))
    assert read.skeleton.joints == MOUSE
    assert np.allclose(read.xy[0], xy, atol=1e-4, equal_nan=True)
    assert read.confidence[0, 1, 0, 2] == 0
    assert read.confidence[0, 3, 1, 0] == 1.0 and read.confidence.max() <= 1.0


def test_cameras_of_different_length_are_padded_and_not_cut(tmp_path):
    path = os.path.join(tmp_path, "a.h5")
    sleap_file(path, "matlab")
    read = joints_of([path, os.path.join(DATA, "deeplabcut_table.h5")], SleapImport(), range(5))
    assert read.xy.shape[:3] == (2, 5, 2)
    assert (read.box_score[1, 4] == 0).all() and np.isnan(read.xy[1, 4]).all() and (read.box_score[0, 4] > 0).any()


def test_neither_hdf5_nor_a_table_is_refused_by_name(tmp_path):
    path = os.path.join(tmp_path, "a.h5")
    with open(path, "wb") as file:
        file.write(b"x,y\n1,2\n")
    with pytest.raises(ConfigError, match=r"a\.h5.*not a DeepLabCut table"):
        joints_of([path], DeepLabCutImport(), range(1))
    with h5py.File(path, "w") as file:
        file["other"] = [1, 2]
    with pytest.raises(ConfigError, match=r"a\.h5.*neither a SLEAP"):
        joints_of([path], DeepLabCutImport(), range(1))
    with pytest.raises(ConfigError, match=r"absent\.h5"):
        joints_of([os.path.join(tmp_path, "absent.h5")], DeepLabCutImport(), range(1))


CSV = """\
scorer,,,me,me,me,me,me,me
bodyparts,,,nose,nose,left_wrist,left_wrist,tail,tail
coords,,,x,y,x,y,x,y
labeled-data,walk2,img0012.png,5.5,6.5,7.0,8.0,9.0,10.0
labeled-data,walk2,img0007.png,1.5,2.5,,,4.0,5.0
"""


def test_images_labelled_by_hand_are_the_frames_of_their_numbers_and_sure(tmp_path):
    folder = written(tmp_path, {"CollectedData_me.csv": b"\xef\xbb\xbf" + CSV.encode()})
    uri = f"{folder}/CollectedData_me.csv"
    read = joints_of([uri], DeepLabCutImport(), range(7, 13))
    assert np.flatnonzero(read.box_score[0, :, 0]).tolist() == [0, 5]
    assert read.xy[0, 5, 0, 0].tolist() == [5.5, 6.5] and np.isnan(read.xy[0, 0, 0, 1]).all()
    assert set(read.confidence[0, [0, 5]].ravel().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("img0007", "img0012"), "frame 12 occurs twice"),
        (("img0007.png", "walk"), "neither a frame nor a numbered image"),
        (("img0007.png", "-3"), "frame -3"),
        (("img0007.png", "7.5"), "neither a frame"),
        (("coords", "parts"), "scorer, bodyparts and coords"),
        (("1.5", "one"), "cannot be read as a table"),
    ],
)
def test_a_table_whose_rows_are_no_frames_is_refused(tmp_path, changed, said):
    uri = f"{written(tmp_path, {'a.csv': CSV.replace(*changed).encode()})}/a.csv"
    with pytest.raises(ConfigError, match=said):
        joints_of([uri], DeepLabCutImport(), range(20))


def test_arrays_kept_in_other_files_are_refused_and_these_not_opened(tmp_path):
    """Raw storage elsewhere, a virtual dataset, a link: each would read a file of the archive's choosing."""
    np.arange(4.0).tofile(tmp_path / "private.bin")
    with h5py.File(tmp_path / "private.h5", "w") as private:
        private["x"] = np.arange(4.0)
    raw, layout = str(tmp_path / "private.bin"), h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "private.h5"), "x", (4,))
    for make, said in (
        (lambda f: f.create_dataset("tracks", (4,), "f8", external=[(raw, 0, 32)]), "stored in other files"),
        (lambda f: f.create_virtual_dataset("tracks", layout), "stored in other files"),
        (lambda f: f.__setitem__("tracks", h5py.ExternalLink(str(tmp_path / "private.h5"), "x")), "no dataset"),
        (lambda f: f.create_dataset("tracks", (1 << 40,), "f8", chunks=(1024,)), "more than 2 GiB"),
    ):
        with h5py.File(tmp_path / "analysis.h5", "w") as file:
            file["node_names"] = np.array([b"nose"])
            make(file)
        with pytest.raises(ConfigError, match=said):
            joints_of([str(tmp_path / "analysis.h5")], SleapImport(), range(1))


def test_json_of_25_joints_is_openposes_and_others_are_read_as_rtmposes_unless_the_scale_is_stated(tmp_path):
    # Fails if all JSON has one scale, or the stated one is not used.
    files = {f"{s.name}/1.json": json.dumps({"people": [person(s, 5.0)]}).encode() for s in (BODY25, COCO17)}
    folder = written(tmp_path, files)

    def scale(name: str, *stated: str) -> ConfidenceScale:
        return joints_of([f"{folder}/{name}"], OpenPoseImport(confidence_scale=stated), range(2)).scale

    assert scale("body25").likelihood_of(np.array([0.1])) == pytest.approx(0.3)
    assert scale("coco17") == scale("body25", "rtmpose") == read_card("rtmpose_s_halpe26").confidence
    assert scale("body25", "likelihood") == AS_STATED
    assert scale("coco17", "0.2=0.5", "0.8=1").likelihood == ((0.0, 0.0), (0.2, 0.5), (0.8, 1.0))


def test_points_of_other_tools_have_their_confidence_as_likelihood_and_another_scale_is_another_import():
    # Fails if the digest does not cover the scale, so that a resumed run mixes two.
    assert DeepLabCutImport().scale(COCO17) == SleapImport().scale(BODY25) == AS_STATED
    stated = [(), ("openpose",), ("rtmpose",), ("0.2=0.5", "1=1")]
    assert len({OpenPoseImport(confidence_scale=each).digest for each in stated}) == len(stated)


@pytest.mark.parametrize("stated", [("openpos",), ("0.2=half",), ("0.5=0.4", "0.2=0.8"), ("openpose", "0.1=0.3")])
def test_a_scale_that_cannot_be_understood_is_refused(stated):
    with pytest.raises(ConfigError, match="scale"):
        OpenPoseImport(confidence_scale=stated)
