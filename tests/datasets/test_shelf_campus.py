import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import NEITHER, TEST
from mvpose.datasets.shelf_campus import ShelfCampus
from mvpose.errors import MvposeError
from mvpose.scenes import ring4

FOCAL, MIDDLE = np.array([1063.5, 1065.0]), np.array([511.0, 350.0])


def poses_m(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """R and t of cameras in a ring, metres, Z up; the fifth stands beside the first."""
    pose = ring4().rig.camera_from_world.to(torch.float64)
    rotation, translation = pose.rotation.numpy(), pose.translation.numpy()
    return [(rotation[i % 4], translation[i % 4] + 0.3 * (i // 4)) for i in range(count)]


def project(points_m: np.ndarray, camera: int) -> np.ndarray:
    r, t = poses_m(5)[camera]
    seen = points_m @ r.T + t
    return seen[:, :2] / seen[:, 2:] * FOCAL + MIDDLE


def calibration(count: int = 5) -> dict[str, Any]:
    cameras = {}
    for i, (r, t) in enumerate(poses_m(count)):
        centre = 1000.0 * -(r.T @ t)
        cameras[str(i)] = {
            "R": r.tolist(), "T": centre[:, None].tolist(), "fx": FOCAL[0], "fy": FOCAL[1], "cx": MIDDLE[0],
            "cy": MIDDLE[1], "k": [[0.0]] * 3, "p": [[0.0]] * 2,
        }  # fmt: skip
    return cameras


def pose_m(person: int) -> np.ndarray:
    return np.random.default_rng(person).uniform([-0.4, -0.4, 0.05], [0.4, 0.4, 1.75], (14, 3))


def actors(frames: int, present: dict[int, tuple[int, ...]], people: int = 4) -> np.ndarray:
    """actor3D as the file nests it: a row of cells, each a column of cells, empty where nobody was annotated."""
    everybody = np.empty((1, people), object)
    for person in range(people):
        poses = np.empty((frames, 1), object)
        for frame in range(frames):
            poses[frame, 0] = pose_m(person) if person in present.get(frame, ()) else np.zeros((1, 0))
        everybody[0, person] = poses
    return everybody


PRESENT = {5: (1,), 299: (0,), 300: (0, 2), 302: (1,), 303: (0, 1, 2, 3)}


@pytest.fixture
def shelf(tmp_path) -> str:
    savemat(tmp_path / "actorsGT.mat", {"actor3D": actors(310, PRESENT), "actor2D": np.zeros(1)})
    (tmp_path / "calibration_shelf.json").write_text(json.dumps(calibration()))
    return str(tmp_path)


def test_poses_in_metres_meet_cameras_in_millimetres(shelf):
    dataset = ShelfCampus(folder=shelf)
    (name,) = dataset.shards()
    samples = list(dataset.read(name))
    assert [(s.frame, s.person) for s in samples] == [
        (5, 1), (299, 0), (300, 0), (300, 2), (302, 1), (303, 0), (303, 1), (303, 2), (303, 3),
    ]  # fmt: skip
    assert [s.split for s in samples] == [NEITHER, NEITHER] + [TEST] * 7
    assert [s.position for s in samples] == [0, 1, 2, 2, 3, 4, 4, 4, 4]
    np.testing.assert_allclose(samples[3].xyz, pose_m(2), atol=1e-12)
    pixels, _ = samples[3].rig.project(torch.from_numpy(samples[3].xyz))
    for camera in range(5):
        np.testing.assert_allclose(pixels[camera].numpy(), project(pose_m(2), camera), atol=1e-6)
    assert samples[3].images[4].uri == f"{shelf}/Camera4/img_000300.png"
    assert samples[3].rig.size.tolist() == [[1032, 776]] * 5


def test_projection_matrices_of_any_scale_and_sign_give_the_same_cameras(shelf, tmp_path):
    expected = next(ShelfCampus(folder=shelf).read("shelf")).rig
    (tmp_path / "calibration_shelf.json").unlink()
    (tmp_path / "Calibration").mkdir()
    for i, (r, t) in enumerate(poses_m(5)):
        k = np.array([[FOCAL[0], 0.0, MIDDLE[0]], [0.0, FOCAL[1], MIDDLE[1]], [0.0, 0.0, 1.0]])
        rows = (-1.0) ** i * 3.7 * k @ np.column_stack([r, t])
        text = "\n".join(",".join(f"{float(v)!r}" for v in row) for row in rows)
        (tmp_path / "Calibration" / f"P{i}.txt").write_text(text)
    found = next(ShelfCampus(folder=shelf).read("shelf")).rig
    np.testing.assert_allclose(found.projections.numpy(), expected.projections.numpy(), atol=1e-6)


def test_campus_has_its_own_images_frames_and_cameras(tmp_path):
    savemat(tmp_path / "actorsGT.mat", {"actor3D": actors(752, {349: (0,), 470: (0,), 471: (0,), 750: (1,)}, people=3)})
    (tmp_path / "calibration_campus.json").write_text(json.dumps(calibration(3)))
    samples = list(ShelfCampus(folder=str(tmp_path), scene="campus").read("campus"))
    assert [(s.frame, s.split) for s in samples] == [(349, NEITHER), (470, TEST), (471, NEITHER), (750, TEST)]
    assert samples[1].images[2].uri == f"{tmp_path}/Camera2/campus4-c2-00470.png"
    assert samples[1].rig.size.tolist() == [[360, 288]] * 3


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("calibration_shelf.json", "{", "expected layout"),
        ("calibration_shelf.json", json.dumps(calibration(4)), "no '4'"),
        ("actorsGT.mat", "not MATLAB", "not a MATLAB file"),
    ],
)
def test_a_bad_file_is_reported_with_path_and_reason(shelf, tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(MvposeError, match=said) as error:
        list(ShelfCampus(folder=shelf).read("shelf"))
    assert f"{shelf}/{file}" in str(error.value)


def test_a_file_without_poses_is_refused(shelf, tmp_path):
    savemat(tmp_path / "actorsGT.mat", {"actor3D": actors(3, {})})
    with pytest.raises(DatasetError, match=r"actorsGT\.mat: its actor3D has no pose"):
        list(ShelfCampus(folder=shelf).read("shelf"))


def test_a_folder_without_a_calibration_says_what_it_could_have_been(shelf, tmp_path):
    (tmp_path / "calibration_shelf.json").unlink()
    with pytest.raises(DatasetError, match=r"neither calibration_shelf\.json nor Calibration/P0\.txt"):
        list(ShelfCampus(folder=shelf).read("shelf"))
