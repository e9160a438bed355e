import numpy as np
import pytest
import torch

from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import NEITHER, TEST, TRAIN
from mvpose.datasets.total_capture import FILE_NAMES, TOTAL_CAPTURE16, TotalCapture, split_of
from mvpose.errors import MvposeError
from mvpose.scenes import ring4
from tests.footage.numbered_video import write_numbered

# The order in which the files list the joints.
VICON = (
    "Hips", "Spine", "Spine1", "Spine2", "Spine3", "Neck", "Head", "RightShoulder", "RightArm", "RightForeArm",
    "RightHand", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand", "RightUpLeg", "RightLeg", "RightFoot",
    "LeftUpLeg", "LeftLeg", "LeftFoot",
)  # fmt: skip
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""World (Z up) from a world whose y axis points up."""
FOCAL, MIDDLE, K1 = np.array([1500.0, 1510.0]), np.array([955.5, 540.25]), -0.2


def cameras_y_up() -> list[tuple[np.ndarray, np.ndarray]]:
    """R and t in metres of four cameras about the middle of a room told with y up."""
    pose = ring4().rig.camera_from_world.to(torch.float64)
    return [(r @ Y_UP, t) for r, t in zip(pose.rotation.numpy(), pose.translation.numpy(), strict=True)]


def joints_inches(frames: int) -> np.ndarray:
    """Somebody of ordinary size, y up."""
    rng = np.random.default_rng(3)
    body = rng.uniform([-15.0, 2.0, -12.0], [15.0, 70.0, 12.0], (len(VICON), 3))
    return body + 0.2 * np.arange(frames)[:, None, None]


def calibration(order: int = 1) -> str:
    lines = [f"4 {order}"]
    for rotation, translation in cameras_y_up():
        lines += ["0 1079 0 1919", f"{FOCAL[0]} {FOCAL[1]} {MIDDLE[0]} {MIDDLE[1]}", str(K1)]
        lines += [" ".join(map(repr, map(float, row))) for row in (*rotation, translation)]
    return "\n".join(lines) + "\n"


def ground_truth(frames: int) -> str:
    head = "\t".join(VICON) + "\t"
    rows = ["\t".join(" ".join(f"{v:.6f}" for v in joint) for joint in frame) + "\t" for frame in joints_inches(frames)]
    return "\n".join([head, *rows, ""])


@pytest.fixture
def folder(tmp_path) -> str:
    (tmp_path / "calibration.cal").write_text(calibration())
    place = tmp_path / "s1" / "walking2"
    place.mkdir(parents=True)
    (place / "gt_skel_gbl_pos.txt").write_text(ground_truth(9))
    for camera, frames in zip((1, 2, 3, 4), (8, 7, 8, 8), strict=True):
        write_numbered(str(place / f"TC_S1_walking2_cam{camera}.mp4"), frames)
    return str(tmp_path)


def project(points_inches: np.ndarray, camera: int) -> np.ndarray:
    """As the toolbox has it: inches to metres, R x + t, one radial coefficient."""
    rotation, translation = cameras_y_up()[camera]
    seen = points_inches * 0.0254 @ rotation.T + translation
    plane = seen[:, :2] / seen[:, 2:]
    return plane * (1 + K1 * (plane**2).sum(axis=1, keepdims=True)) * FOCAL + MIDDLE


def test_inches_become_metres_z_up_at_the_pixels_where_the_toolbox_projects_them(folder):
    dataset = TotalCapture(folder=folder, stride=2)
    assert dataset.shards() == ["s1/walking2"]
    samples = list(dataset.read("s1/walking2"))
    # The shortest video has 7 frames, the ground truth 9.
    assert [s.frame for s in samples] == [0, 2, 4, 6]
    chosen = joints_inches(9)[6, [VICON.index(n) for n in FILE_NAMES]]
    np.testing.assert_allclose(samples[3].xyz, chosen * 0.0254 @ Y_UP.T, atol=1e-6)
    pixels, _ = samples[3].rig.project(torch.from_numpy(samples[3].xyz))
    for camera in range(4):
        np.testing.assert_allclose(pixels[camera].numpy(), project(chosen, camera), atol=1e-2)
    assert samples[3].rig.size.tolist() == [[1920, 1080]] * 4
    assert samples[3].images[3].uri.endswith("s1/walking2/TC_S1_walking2_cam4.mp4")
    assert samples[3].images[3].frame == 6 and samples[3].split == TEST and samples[3].action == "walking"


def test_people_stand_upright_and_have_the_size_of_people(folder):
    sample = next(TotalCapture(folder=folder).read("s1/walking2"))
    assert sample.xyz[:, 2].min() > 0.0 and 1.2 < np.ptp(sample.xyz[:, 2]) < 2.0


def test_a_world_that_is_z_up_is_left_as_it_is(folder, tmp_path):
    """The axis is told from the cameras, not assumed."""
    turned = []
    for rotation, translation in cameras_y_up():
        turned += ["0 1079 0 1919", "1500 1510 955.5 540.25", "-0.2"]
        turned += [" ".join(map(repr, map(float, row))) for row in (*(rotation @ Y_UP.T), translation)]
    (tmp_path / "calibration.cal").write_text("\n".join(["4 1", *turned]))
    sample = next(TotalCapture(folder=folder).read("s1/walking2"))
    chosen = joints_inches(1)[0, [VICON.index(n) for n in FILE_NAMES]]
    np.testing.assert_allclose(sample.xyz, chosen * 0.0254, atol=1e-6)


def test_a_camera_without_its_video_is_a_view_less(folder, tmp_path):
    (tmp_path / "s1" / "walking2" / "TC_S1_walking2_cam2.mp4").unlink()
    assert next(TotalCapture(folder=folder).read("s1/walking2")).rig.names == ("cam1", "cam3", "cam4")


@pytest.mark.parametrize(
    ("subject", "take", "split"),
    [
        ("s1", "walking2", TEST), ("s5", "freestyle3", TEST), ("s3", "rom1", TRAIN), ("s2", "acting2", TRAIN),
        ("s4", "rom1", NEITHER), ("s1", "running1", NEITHER),
    ],
)  # fmt: skip
def test_splits_are_the_toolboxs(subject, take, split):
    assert split_of(subject, take) == split


def test_left_and_right_of_the_files_are_left_and_right():
    for name, joint in zip(FILE_NAMES, TOTAL_CAPTURE16.joints, strict=True):
        assert name.startswith("Left") == joint.startswith("left_")
        assert name.startswith("Right") == joint.startswith("right_")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("calibration.cal", calibration(order=3), "order 3"),
        ("calibration.cal", calibration().rsplit("\n", 3)[0], "4 cameras, which need 29 lines"),
        ("calibration.cal", "four one", "expected layout"),
        ("calibration.cal", calibration().replace("1500.0", "-1500.0"), "focal lengths"),
        ("s1/walking2/gt_skel_gbl_pos.txt", "Hips Spine\n0 0 0 0 0 0", "does not name RightUpLeg"),
        (
            "s1/walking2/gt_skel_gbl_pos.txt",
            ground_truth(3).replace("\t\n", " 1\n").replace(" 1\n", "\n", 1),
            "line 2 has 64 numbers, not 63",
        ),
        ("s1/walking2/gt_skel_gbl_pos.txt", "\t".join(VICON) + "\n" + "x " * 63, "expected layout"),
    ],
)
def test_a_bad_file_is_reported_with_path_and_reason(folder, tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(MvposeError, match=said) as error:
        list(TotalCapture(folder=folder).read("s1/walking2"))
    assert f"{folder}/{file}" in str(error.value)


def test_cameras_that_lie_on_their_sides_in_every_direction_have_no_up(folder, tmp_path):
    turned = ["4 1"]
    for i, (rotation, translation) in enumerate(cameras_y_up()):
        c, s = np.cos(i * np.pi / 2), np.sin(i * np.pi / 2)
        turned += ["0 1079 0 1919", "1500 1510 955.5 540.25", "-0.2"]
        roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        turned += [" ".join(map(repr, map(float, row))) for row in (*(roll @ rotation), roll @ translation)]
    (tmp_path / "calibration.cal").write_text("\n".join(turned))
    with pytest.raises(DatasetError, match="do not agree on an up axis"):
        list(TotalCapture(folder=folder).read("s1/walking2"))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no folders s1 to s5"):
        TotalCapture(folder=str(tmp_path)).shards()
    with pytest.raises(DatasetError, match="cannot be read"):
        TotalCapture(folder=str(tmp_path / "nowhere")).shards()
