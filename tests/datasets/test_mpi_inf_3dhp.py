from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from mvpose.datasets.files import DatasetError
from mvpose.datasets.mpi_inf_3dhp import JOINTS_OF_28, MpiInf3dhp
from mvpose.datasets.mpi_inf_3dhp_test import JOINTS_OF_17, MPI_INF_3DHP17
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import MvposeError

# Cameras 0 to 2 of S1/Seq1 as published, each 4 x 4, millimetres, world with y up.
INTRINSIC = [
    "1497.693 0 1024.704 0 0 1497.103 1051.394 0 0 0 1 0 0 0 0 1",
    "1495.217 0 1030.519 0 0 1495.52 1052.626 0 0 0 1 0 0 0 0 1",
    "1495.587 0 983.8873 0 0 1497.828 987.5902 0 0 0 1 0 0 0 0 1",
]
EXTRINSIC = [
    "0.9650164 0.00488022 0.262144 -562.8666 -0.004488356 -0.9993728 0.0351275 1398.138 "
    "0.262151 -0.03507521 -0.9643893 3852.623 0 0 0 1",
    "0.6050639 -0.02184232 0.7958773 -1429.856 -0.22647 -0.9630526 0.1457429 738.1779 "
    "0.7632883 -0.2684261 -0.587655 4897.966 0 0 0 1",
    "-0.3608179 -0.009492658 0.932588 57.25702 -0.0585942 -0.9977421 -0.03282591 1307.287 "
    "0.9307939 -0.06648842 0.359447 2799.822 0 0 0 1",
]
# Names of the 28 joints, and of the test set's 17, as MPI-INF-3DHP's own scripts list them.
NAMES28 = """
    spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist left_hand
    right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot left_toe
    right_hip right_knee right_ankle right_foot right_toe
"""
NAMES17 = """
    head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee
    right_ankle left_hip left_knee left_ankle pelvis spine head
"""


def camera(number: int) -> tuple[np.ndarray, np.ndarray]:
    """K and the 4 x 4 pose of one of 14 cameras: the three published ones, over and over."""
    k = np.array(INTRINSIC[number % 3].split(), float).reshape(4, 4)[:3, :3]
    return k, np.array(EXTRINSIC[number % 3].split(), float).reshape(4, 4)


def calibration(radial: str = "0") -> str:
    lines = ["Skeletool Camera Calibration File V1.0"]
    for i in range(14):
        lines += [
            f"name          {i}", "  sensor      10 10", "  size        2048 2048", "  animated    0",
            f"  intrinsic   {INTRINSIC[i % 3]} ", f"  extrinsic   {EXTRINSIC[i % 3]} ", f"  radial      {radial}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def joints_mm(frames: int) -> np.ndarray:
    """28 joints of somebody, y up."""
    rng = np.random.default_rng(5)
    body = rng.uniform([-300.0, 100.0, -300.0], [300.0, 1700.0, 300.0], (28, 3))
    return body + 3.0 * np.arange(frames)[:, None, None]


def seen_mm(points: np.ndarray, number: int) -> np.ndarray:
    _, pose = camera(number)
    return points @ pose[:3, :3].T + pose[:3, 3]


def pixels(seen: np.ndarray, number: int) -> np.ndarray:
    k, _ = camera(number)
    return seen[..., :2] / seen[..., 2:] * np.diag(k)[:2] + k[:2, 2]


def cells(values: list[np.ndarray]) -> np.ndarray:
    out = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        out[i, 0] = value.reshape(len(value), -1)
    return out


def write_annotations(path: Any, frames: int = 7, scale: float = 1.0, offset_px: float = 0.0) -> None:
    seen = [seen_mm(joints_mm(frames), i) for i in range(14)]
    content = {
        "annot2": cells([pixels(s, i) + offset_px for i, s in enumerate(seen)]),
        "annot3": cells([s * scale for s in seen]), "univ_annot3": cells([s * 1.1 for s in seen]),
        "cameras": np.arange(14), "frames": np.arange(frames),
    }  # fmt: skip
    savemat(path, content)


@pytest.fixture
def folder(tmp_path) -> str:
    place = tmp_path / "S1" / "Seq1"
    place.mkdir(parents=True)
    (place / "camera.calibration").write_text(calibration())
    write_annotations(place / "annot.mat")
    return str(tmp_path)


def test_joints_of_the_cameras_become_world_metres_z_up_at_the_annotated_pixels(folder):
    dataset = MpiInf3dhp(folder=folder, stride=3)
    assert dataset.shards() == ["S1/Seq1"]
    samples = list(dataset.read("S1/Seq1"))
    assert [s.frame for s in samples] == [0, 3, 6] and samples[0].split == TRAIN
    truth = joints_mm(7)[6, list(JOINTS_OF_28)]
    upright = np.stack([truth[:, 0], -truth[:, 2], truth[:, 1]], axis=-1) / 1000.0
    # The published matrices are rounded to 7 digits.
    np.testing.assert_allclose(samples[2].xyz, upright, atol=1e-5)
    assert samples[2].xyz[:, 2].min() > 0 and samples[2].rig.names == ("0", "1", "2", "4", "5", "6", "7", "8")
    found, _ = samples[2].rig.project(torch.from_numpy(samples[2].xyz))
    for view, name in enumerate(samples[2].rig.names):
        expected = pixels(seen_mm(truth, int(name)), int(name))
        np.testing.assert_allclose(found[view].numpy(), expected, atol=0.05)


def test_a_published_point_of_camera_0_is_where_it_was_published():
    """A pelvis of S1/Seq1 in camera 0, from another project's tests, lies between floor and waist in the world."""
    k, pose = camera(0)
    world = np.linalg.inv(pose) @ np.array([-15.40262894, 957.80694580, 3670.33007812, 1.0])
    assert 300.0 < world[1] < 1200.0 and k[0, 0] == 1497.693


def test_chest_height_cameras_are_the_five():
    from mvpose.datasets.mpi_inf_3dhp import CAMERA_SUBSETS

    assert CAMERA_SUBSETS["chest_height"] == (0, 2, 4, 7, 8)


def test_the_joints_of_training_and_test_are_the_same_by_name():
    alias = {"pelvis": "hip"}
    assert tuple(alias.get(n, n) for n in [NAMES28.split()[i] for i in JOINTS_OF_28]) == MPI_INF_3DHP17.joints
    assert tuple(alias.get(n, n) for n in [NAMES17.split()[i] for i in JOINTS_OF_17]) == MPI_INF_3DHP17.joints


def test_pictures_are_frames_of_videos_or_unpacked_files(folder, tmp_path):
    dataset = MpiInf3dhp(folder=folder, cameras="chest_height", stride=3)
    picture = list(dataset.read("S1/Seq1"))[1].pictures[1]
    assert (picture.uri, picture.frame) == (f"{folder}/S1/Seq1/imageSequence/video_2.avi", 3)
    (tmp_path / "S1" / "Seq1" / "imageFrames").mkdir()
    picture = list(dataset.read("S1/Seq1"))[1].pictures[1]
    assert (picture.uri, picture.frame) == (f"{folder}/S1/Seq1/imageFrames/video_2/frame_000004.jpg", -1)


def test_joints_scaled_to_one_height_are_refused(folder, tmp_path):
    """`univ_annot3` in the place of `annot3`: every camera sees the pixels it should, and no two agree in the world."""
    write_annotations(tmp_path / "S1" / "Seq1" / "annot.mat", scale=1.1)
    with pytest.raises(DatasetError, match=r"annot\.mat: camera .* univ_annot3"):
        list(MpiInf3dhp(folder=folder).read("S1/Seq1"))


def test_annotations_that_do_not_fit_the_calibration_are_refused(folder, tmp_path):
    write_annotations(tmp_path / "S1" / "Seq1" / "annot.mat", offset_px=40.0)
    with pytest.raises(DatasetError, match=r"px from annot2: camera\.calibration is not"):
        list(MpiInf3dhp(folder=folder).read("S1/Seq1"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("camera.calibration", "other\n", "first line is not"),
        ("camera.calibration", calibration() + "name 14\n", "99 lines after the first, not 7 a camera"),
        ("camera.calibration", calibration(radial="0.1"), "camera 0 has radial distortion"),
        ("camera.calibration", calibration().replace("animated    0", "animated    1"), "camera 0 moves"),
        ("camera.calibration", calibration().replace("sensor", "size", 1), "has the keys name, size, size"),
        ("annot.mat", "not MATLAB", "no MATLAB file"),
    ],
)
def test_a_bad_file_is_told_with_path_and_reason(folder, tmp_path, file, content, said):
    (tmp_path / "S1" / "Seq1" / file).write_text(content)
    with pytest.raises(MvposeError, match=said) as error:
        list(MpiInf3dhp(folder=folder).read("S1/Seq1"))
    assert f"{folder}/S1/Seq1/{file}" in str(error.value)


def test_annotations_of_other_than_14_cameras_are_refused(folder, tmp_path):
    savemat(tmp_path / "S1" / "Seq1" / "annot.mat", {"annot2": np.zeros((2, 2)), "annot3": np.zeros((2, 2))})
    with pytest.raises(DatasetError, match="not 14 cells"):
        list(MpiInf3dhp(folder=folder).read("S1/Seq1"))


# ---- the test set


def write_test_sequence(folder: Any, name: str = "TS1", noise_px: float = 0.0) -> None:
    rng = np.random.default_rng(2)
    place = folder / "mpi_inf_3dhp_test_set" / name
    place.mkdir(parents=True)
    seen = seen_mm(joints_mm(6)[:, :17], 0)
    with h5py.File(place / "annot_data.mat", "w") as file:
        file["annot2"] = (pixels(seen, 0) + rng.normal(0, noise_px + 1e-9, (6, 17, 2)))[:, None]
        file["annot3"], file["univ_annot3"] = seen[:, None], 1.1 * seen[:, None]
        file["valid_frame"] = np.array([[1.0], [0.0], [1.0], [1.0], [0.0], [1.0]])
        file["activity_annotation"] = np.array([[1.0], [1.0], [3.0], [3.0], [7.0], [7.0]])


def test_valid_frames_of_the_test_set_have_the_camera_their_pixels_imply(tmp_path):
    write_test_sequence(tmp_path, noise_px=0.5)
    dataset = MpiInf3dhp(folder=str(tmp_path))
    assert dataset.shards() == ["mpi_inf_3dhp_test_set/TS1"]
    samples = list(dataset.read("mpi_inf_3dhp_test_set/TS1"))
    assert [(s.frame, s.position, s.action) for s in samples] == [
        (0, 0, "standing_walking"), (2, 1, "sitting"), (3, 2, "sitting"), (5, 3, "other"),
    ]  # fmt: skip
    k, _ = camera(0)
    np.testing.assert_allclose(samples[0].rig.intrinsics[0].numpy(), k, atol=3.0)
    seen = seen_mm(joints_mm(6)[5, :17], 0)[list(JOINTS_OF_17)]
    found, visible = samples[3].rig.project(torch.from_numpy(samples[3].xyz))
    np.testing.assert_allclose(found[0].numpy(), pixels(seen, 0), atol=1.5)
    assert visible.all() and samples[3].split == TEST
    # Z up: what the camera has further down is lower.
    assert np.corrcoef(samples[3].xyz[:, 2], seen[:, 1])[0, 1] == pytest.approx(-1.0)
    assert samples[3].pictures[0].uri.endswith("mpi_inf_3dhp_test_set/TS1/imageSequence/img_000006.jpg")


def test_a_test_sequence_whose_pixels_no_camera_explains_is_refused(tmp_path):
    write_test_sequence(tmp_path, noise_px=60.0)
    with pytest.raises(DatasetError, match=r"annot_data\.mat: annot3 does not explain annot2"):
        list(MpiInf3dhp(folder=str(tmp_path)).read("mpi_inf_3dhp_test_set/TS1"))


@pytest.mark.parametrize("content", [b"not HDF5", None])
def test_a_bad_test_file_is_told_with_path(content, tmp_path):
    write_test_sequence(tmp_path)
    uri = tmp_path / "mpi_inf_3dhp_test_set" / "TS1" / "annot_data.mat"
    if content is not None:
        uri.write_bytes(content)
    else:
        with h5py.File(uri, "a") as file:
            del file["annot3"]
    with pytest.raises(MvposeError, match=r"TS1/annot_data\.mat"):
        list(MpiInf3dhp(folder=str(tmp_path)).read("mpi_inf_3dhp_test_set/TS1"))


def test_labels_kept_in_another_file_are_refused(tmp_path):
    write_test_sequence(tmp_path)
    (tmp_path / "private").write_bytes(bytes(80))
    with h5py.File(tmp_path / "mpi_inf_3dhp_test_set" / "TS1" / "annot_data.mat", "a") as file:
        del file["valid_frame"]
        file.create_dataset("valid_frame", (10,), "f8", external=[(str(tmp_path / "private"), 0, 80)])
    with pytest.raises(MvposeError, match=r"annot_data\.mat: its `valid_frame` is kept in other files"):
        list(MpiInf3dhp(folder=str(tmp_path)).read("mpi_inf_3dhp_test_set/TS1"))
