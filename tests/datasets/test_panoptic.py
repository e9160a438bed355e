import json
from typing import Any

import numpy as np
import pytest
import torch

from mvpose.datasets.files import DatasetError
from mvpose.datasets.panoptic import CAMERA_SUBSETS, Panoptic, camera_names, split_of
from mvpose.datasets.sample import NEITHER, TRAIN, VALIDATION
from mvpose.errors import MvposeError
from mvpose.scenes import ring4
from mvpose.skeleton import PANOPTIC19

SEQUENCE = "160906_pizza1"
# VoxelPose's own matrix: rows of points times M are Z up.
M = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
DISTORTION = [-0.25, 0.12, 0.0004, -0.0003, 0.02]
MATRIX = np.array([[1400.0, 0.0, 960.0], [0.0, 1395.0, 545.0], [0.0, 0.0, 1.0]])


def poses_cm() -> list[tuple[np.ndarray, np.ndarray]]:
    """R and t (cm) of four cameras, in a world with Y down."""
    pose = ring4().rig.camera_from_world.to(torch.float64)
    return [(r @ M.T, 100.0 * t) for r, t in zip(pose.rotation.numpy(), pose.translation.numpy(), strict=True)]


def calibration(numbers: tuple[int, ...] = (3, 6, 12, 13)) -> dict[str, Any]:
    cameras = [
        {
            "name": f"00_{n:02d}", "type": "hd", "resolution": [1920, 1080], "panel": 0, "node": n,
            "K": MATRIX.tolist(), "distCoef": DISTORTION, "R": r.tolist(), "t": t[:, None].tolist(),
        }
        for n, (r, t) in zip(numbers, poses_cm(), strict=True)
    ]  # fmt: skip
    vga = {**cameras[0], "name": "01_01", "type": "vga", "resolution": [640, 480], "panel": 1, "node": 1}
    return {"calibDataSource": "test", "cameras": [vga, *cameras[::-1]]}


def joints_cm(person: int) -> np.ndarray:
    """Y down: heads are at about -170."""
    rng = np.random.default_rng(person)
    return rng.uniform([-40.0, -170.0, -40.0], [40.0, -5.0, 40.0], (19, 3)) + np.array([30.0 * person, 0.0, 0.0])


def scene_file(bodies: int, lost: int | None = None) -> dict[str, Any]:
    found = []
    for i in range(bodies):
        rows = np.concatenate([joints_cm(i), np.full((19, 1), 0.6)], axis=1)
        if lost is not None:
            rows[lost] = [0.0, 0.0, 0.0, -1.0]
            rows[lost - 1, 3] = 0.1
        found.append({"id": 7 - i, "joints19": rows.ravel().tolist()})
    return {"version": 0.7, "univTime": 1.0, "fpsType": "hd_29_97", "bodies": found}


@pytest.fixture
def folder(tmp_path) -> str:
    place = tmp_path / SEQUENCE
    (place / "hdPose3d_stage1_coco19").mkdir(parents=True)
    (place / f"calibration_{SEQUENCE}.json").write_text(json.dumps(calibration()))
    for i, bodies in enumerate((2, 0, 1, 2, 1, 1, 2)):
        uri = place / "hdPose3d_stage1_coco19" / f"body3DScene_{100 + i:08d}.json"
        uri.write_text(json.dumps(scene_file(bodies, lost=4 if i == 2 else None)))
    (tmp_path / "other").mkdir()
    return str(tmp_path)


def project(points_cm: np.ndarray, camera: int) -> np.ndarray:
    """The toolbox's projection: cm, Y down, OpenCV's distortion."""
    r, t = poses_cm()[camera]
    seen = points_cm @ r.T + t
    x, y = (seen[:, :2] / seen[:, 2:]).T
    k1, k2, p1, p2, k3 = DISTORTION
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    dx = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return np.stack([dx, dy], axis=-1) * np.diag(MATRIX)[:2] + MATRIX[:2, 2]


def test_centimetres_y_down_become_metres_z_up_at_the_pixels_where_the_toolbox_projects_them(folder):
    dataset = Panoptic(folder=folder, cameras="3,6,12,13", interval=1)
    assert dataset.shards() == [SEQUENCE]
    samples = list(dataset.read(SEQUENCE))
    assert [(s.frame, s.position, s.person) for s in samples][:3] == [(100, 0, 7), (100, 0, 6), (102, 2, 7)]
    assert len(samples) == 9
    second = samples[1]
    np.testing.assert_allclose(second.xyz, joints_cm(1) @ M / 100.0, atol=1e-12)
    assert 1.0 < second.xyz[:, 2].max() < 1.8 and second.xyz[:, 2].min() > 0
    pixels, _ = second.rig.project(torch.from_numpy(second.xyz))
    for camera in range(4):
        np.testing.assert_allclose(pixels[camera].numpy(), project(joints_cm(1), camera), atol=1e-6)


def test_cameras_come_in_the_order_asked_for(folder):
    sample = next(Panoptic(folder=folder, cameras="13,3").read(SEQUENCE))
    assert sample.rig.names == ("00_13", "00_03")
    r, t = poses_cm()[3]
    np.testing.assert_allclose(sample.rig.centres_world[0].numpy(), -(r.T @ t) @ M / 100.0, atol=1e-9)


def test_joints_of_low_score_are_not_there(folder):
    sample = list(Panoptic(folder=folder, cameras="3,6", interval=2).read(SEQUENCE))[2]
    assert sample.frame == 102
    assert np.flatnonzero(~sample.valid).tolist() == [3, 4] and not sample.visible[:, [3, 4]].any()


def test_every_third_counts_annotated_frames_even_those_without_anybody(folder):
    samples = Panoptic(folder=folder, cameras="3,6", interval=3).read(SEQUENCE)
    assert [s.position for s in samples] == [0, 0, 3, 3, 6, 6]


def test_images_are_files_where_they_were_unpacked_and_frames_of_videos_elsewhere(folder, tmp_path):
    dataset = Panoptic(folder=folder, cameras="3,6")
    image = next(dataset.read(SEQUENCE)).images[1]
    assert (image.uri, image.frame) == (f"{folder}/{SEQUENCE}/hdVideos/hd_00_06.mp4", 100)
    (tmp_path / SEQUENCE / "hdImgs").mkdir()
    image = next(dataset.read(SEQUENCE)).images[1]
    assert (image.uri, image.frame) == (f"{folder}/{SEQUENCE}/hdImgs/00_06/00_06_00000100.jpg", -1)


def test_camera_subsets_are_the_published_ones():
    assert camera_names("CMU0") == ("00_03", "00_06", "00_12", "00_13", "00_23")
    assert [len(CAMERA_SUBSETS[f"CMU{i}"]) for i in range(5)] == [5, 7, 7, 4, 10]
    assert set(CAMERA_SUBSETS["CMU3"]) <= set(CAMERA_SUBSETS["CMU4"])
    with pytest.raises(DatasetError, match=r"CMU9.*name one of CMU0"):
        camera_names("CMU9")


def test_splits_are_voxelposes_and_that_of_the_single_people():
    sequences = ("160906_pizza1", "160906_ian3", "171204_pose5", "171026_pose2", "170407_office2")
    assert [split_of(s) for s in sequences] == [
        VALIDATION, TRAIN, VALIDATION, TRAIN, NEITHER,
    ]  # fmt: skip


def test_joints_are_those_of_coco19():
    assert PANOPTIC19.joints[:4] == ("neck", "nose", "hip", "left_shoulder") and PANOPTIC19.joints[14] == "right_ankle"


BODIES = "hdPose3d_stage1_coco19/body3DScene_00000100.json"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (f"calibration_{SEQUENCE}.json", "{", "not valid JSON"),
        (f"calibration_{SEQUENCE}.json", json.dumps({"cameras": []}), "no HD camera 00_03"),
        (f"calibration_{SEQUENCE}.json", json.dumps(calibration((3, 4, 5, 7))), "no HD camera 00_06"),
        (BODIES, "{", "expected layout"),
        (BODIES, "{}", "no 'bodies'"),
        (BODIES, json.dumps({"bodies": [{"id": 1, "joints15": []}]}), "no 'joints19'"),
        (BODIES, json.dumps({"bodies": [{"id": 1, "joints19": [1.0] * 60}]}), "joints19 of body 1 is not 19 x 4"),
    ],
)
def test_a_bad_file_is_reported_with_path_and_reason(folder, tmp_path, file, content, said):
    (tmp_path / SEQUENCE / file).write_text(content)
    with pytest.raises(MvposeError, match=said) as error:
        list(Panoptic(folder=folder, cameras="3,6").read(SEQUENCE))
    assert f"{folder}/{SEQUENCE}/{file}" in str(error.value)


def test_a_sequence_without_annotations_says_what_is_missing(folder, tmp_path):
    for file in (tmp_path / SEQUENCE / "hdPose3d_stage1_coco19").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=r"hdPose3d_stage1_coco19 has no body3DScene"):
        list(Panoptic(folder=folder, cameras="3,6").read(SEQUENCE))
