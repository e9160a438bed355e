"""The three forms of Human3.6M, written as their makers write them, give the same samples."""

import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from cdflib import cdfwrite

from mvpose.datasets import human36m_facts as facts
from mvpose.datasets.files import DatasetError
from mvpose.datasets.human36m import Human36M
from mvpose.datasets.human36m_labels import LABEL_JOINTS
from mvpose.datasets.sample import TEST, TRAIN, Sample
from mvpose.errors import CalibrationError, MvposeError
from mvpose.geometry.lens import LensModel
from mvpose.skeleton import HUMAN36M17
from tests.datasets import human36m_rig as truth
from tests.footage.numbered_video import write_numbered

# Places of the 17 joints in the form with labels, as its own preprocessing picks them from the 32.
LABELS_OF_32 = (3, 2, 1, 6, 7, 8, 0, 12, 13, 15, 27, 26, 25, 17, 18, 19, 14)
TOOLBOX_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 16, 14, 15, 17, 18, 19, 25, 26, 27)


def recorded_mm(frames: int) -> np.ndarray:
    """32 joints; 13 (neck) and 16 (left shoulder's root) stand in one place, as in the recordings."""
    poses = truth.person_mm(frames, 32)
    poses[:, 16] = poses[:, 13]
    return poses


def test_the_cameras_stand_where_they_are_published_to_stand():
    """The fixture holds R and t of one public list, camera centres of another: they are one and the same rig."""
    centres = -np.einsum("vji,vj->vi", truth.ROTATION, truth.TRANSLATION_MM)
    assert np.abs(centres - truth.CENTRE_MM).max() < 0.01


# ---- as delivered


def metadata_xml(numbers: list[float], names: dict[tuple[int, int], str]) -> str:
    subjects = [f"S{i}" for i in range(1, 12)]
    head = "".join(f"<td>{s}</td>" for s in ("", "", *subjects))
    rows = "".join(
        f"<tr><td>{a}</td><td>{t}</td>{''.join(f'<td>{name}</td>' for _ in subjects)}</tr>"
        for (a, t), name in names.items()
    )
    actions = "".join(f"<an>{n}</an>" for n in ("_ALL", *facts.ACTIONS.values()))
    cameras = "".join(f"<id>{c}</id>" for c in truth.NAMES)
    w0 = " ".join(map(repr, numbers))
    return (
        f"<metadata><mapping><tr>{head}</tr>{rows}</mapping><actionnames>{actions}</actionnames>"
        f"<dbcameras><index2id>{cameras}</index2id></dbcameras><w0>[{w0}]</w0></metadata>"
    )


def w0_numbers() -> list[float]:
    """300 numbers in which subjects differ, so that a wrong place is a wrong camera; subject 1's and 9's are true."""
    numbers = np.random.default_rng(1).uniform(1.0, 2.0, 300)
    for camera in range(4):
        for subject in (1, 9):
            start = 6 * (11 * camera + subject - 1)
            numbers[start : start + 6] = [*truth.EULER[camera], *truth.CENTRE_MM[camera]]
        start = 264 + 9 * camera
        k, p = truth.K123[camera], truth.P12[camera]
        numbers[start : start + 9] = [*truth.FOCAL[camera], *truth.CENTRE[camera], *k, *p]
    return [float(n) for n in numbers]


def write_cdf(path: str, pose: np.ndarray) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file: Any = cdfwrite.CDF(path, cdf_spec={"Compressed": 6}, delete=True)
    kind = {"Variable": "Pose", "Data_Type": file.CDF_REAL4, "Num_Elements": 1, "Rec_Vary": True}
    file.write_var(kind | {"Dim_Sizes": list(pose.shape[1:]), "Compress": 6}, var_data=pose.astype(np.float32))
    file.close()


@pytest.fixture
def original(tmp_path) -> str:
    names = {(1, 1): "_ALL 1", (5, 1): "Greeting 1", (5, 2): "Greeting", (15, 1): "WalkDog"}
    (tmp_path / "metadata.xml").write_text(metadata_xml(w0_numbers(), names))
    poses = recorded_mm(12).reshape(1, 12, 96)
    for subject, file in (("S9", "Greeting"), ("S9", "Greeting 1"), ("S1", "WalkDog"), ("S1", "Greeting 1")):
        write_cdf(str(tmp_path / subject / "MyPoseFeatures" / "D3_Positions" / f"{file}.cdf"), poses)
    return str(tmp_path)


def test_the_original_files_give_the_joints_in_metres_at_the_pixels_where_the_dataset_projects_them(original):
    dataset = Human36M(folder=original, layout="original", stride=5)
    samples = list(dataset.read("S9/Greeting-2"))
    assert [s.frame for s in samples] == [0, 5, 10]
    for sample in samples:
        check(sample, recorded_mm(12)[sample.frame])
        assert sample.capture_id == "S9/Greeting-2" and sample.split == TEST and sample.damaged
        assert sample.images[2].frame == sample.frame
        assert sample.images[2].uri == f"{original}/S9/Videos/Greeting.58860488.mp4"


def check(sample: Sample, joints_mm: np.ndarray, tolerance_px: float = 1e-3) -> None:
    """17 joints of the 32 in order, and pixels by the dataset's own formula."""
    expected = joints_mm[list(facts.JOINTS_OF_32)]
    assert np.abs(sample.xyz - expected / 1000.0).max() < 1e-6
    pixels, seen = sample.rig.project(torch.from_numpy(sample.xyz))
    assert seen.all() and set(sample.rig.lens.models) == {LensModel.HUMAN36M}
    for view, name in enumerate(sample.rig.names):
        off = np.abs(pixels[view].numpy() - truth.project(expected, truth.NAMES.index(name)))
        assert off.max() < tolerance_px
    assert sample.rig.size[0].tolist() == [1000, 1002 if sample.rig.names[0] == "54138969" else 1000]


def test_the_lens_is_human36ms_own_and_not_opencvs(original):
    """Opposite test of the one above: with OpenCV's factor 2 the same coefficients are off by a fifth of a pixel."""
    sample = next(Human36M(folder=original, layout="original").read("S1/Greeting-1"))
    points = sample.xyz * 1000.0
    camera = sample.rig.camera_from_world.apply(torch.from_numpy(sample.xyz)).numpy()[0]
    x, y = camera[:, 0] / camera[:, 2], camera[:, 1] / camera[:, 2]
    factor_two = truth.P12[0, 0] * y + truth.P12[0, 1] * x
    assert np.abs(factor_two * np.array([x, y]) * truth.FOCAL[0, 0]).max() > 0.02
    assert (
        np.abs(sample.rig.project(torch.from_numpy(sample.xyz))[0][0].numpy() - truth.project(points, 0)).max() < 1e-3
    )


def test_the_captures_of_the_original_are_named_by_the_numbers_of_metadata(original):
    assert Human36M(folder=original, layout="original").shards() == [
        "S1/Greeting-1", "S1/Greeting-2", "S1/WalkingDog-1", "S9/Greeting-1", "S9/Greeting-2", "S9/WalkingDog-1",
    ]  # fmt: skip


def test_a_capture_of_training_is_neither_test_nor_damaged(original):
    sample = next(Human36M(folder=original, layout="original").read("S1/WalkingDog-1"))
    assert (sample.split, sample.damaged, sample.action, sample.subject) == (TRAIN, False, "WalkingDog", "S1")


def test_frames_that_a_video_does_not_have_are_left_out(original):
    os.makedirs(f"{original}/S9/Videos")
    write_numbered(f"{original}/S9/Videos/Greeting.54138969.mp4", 8)
    dataset = Human36M(folder=original, layout="original", stride=1)
    assert [s.frame for s in dataset.read("S9/Greeting-2")] == list(range(8))


def test_the_universal_skeleton_is_never_read(original):
    folder = os.path.join(original, "S9", "MyPoseFeatures")
    os.rename(f"{folder}/D3_Positions", f"{folder}/D3_Positions_mono_universal")
    with pytest.raises(DatasetError, match=r"no MyPoseFeatures/D3_Positions/Greeting\.cdf.*mono_universal cannot"):
        list(Human36M(folder=original, layout="original").read("S9/Greeting-2"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metadata.xml", b"<metadata>", "not XML"),
        ("metadata.xml", b"<metadata><mapping/></metadata>", "no <w0>"),
        ("metadata.xml", b"<metadata><mapping><tr/></mapping><w0>[1 2 3]</w0></metadata>", "3 numbers, not 300"),
        ("S9/MyPoseFeatures/D3_Positions/Greeting.cdf", b"", "empty"),
        ("S9/MyPoseFeatures/D3_Positions/Greeting.cdf", b"not a CDF file at all", "cannot be read"),
    ],
)
def test_a_bad_original_file_is_reported_with_path_and_reason(original, file, content, said):
    with open(f"{original}/{file}", "wb") as damaged:
        damaged.write(content)
    with pytest.raises(MvposeError, match=said) as error:
        list(Human36M(folder=original, layout="original").read("S9/Greeting-2"))
    assert f"{original}/{file}" in str(error.value)


def test_poses_of_another_shape_are_refused(original):
    write_cdf(f"{original}/S9/MyPoseFeatures/D3_Positions/Greeting.cdf", np.zeros((1, 4, 64)))
    with pytest.raises(DatasetError, match="1 x 4 x 64, not frames x 96"):
        list(Human36M(folder=original, layout="original").read("S9/Greeting-2"))


# ---- images and labels


def labels(frames: np.ndarray) -> dict[str, Any]:
    subjects, actions = ["S1", "S9", "S11"], ["Directions-2", "Greeting-2", "WalkTogether-1"]
    kinds = [("R", np.float32, (3, 3)), ("t", np.float32, (3, 1)), ("K", np.float32, (3, 3)), ("dist", np.float32, 5)]
    cameras = np.zeros((3, 4), kinds)
    for c in range(4):
        cameras["R"][:, c], cameras["t"][:, c] = truth.ROTATION[c], truth.TRANSLATION_MM[c][:, None]
        cameras["K"][:, c] = np.diag([*truth.FOCAL[c], 1.0])
        cameras["K"][:, c, :2, 2] = truth.CENTRE[c]
        (k1, k2, k3), (p1, p2) = truth.K123[c], truth.P12[c]
        cameras["dist"][:, c] = [k1, k2, p1, p2, k3]
    rows = np.zeros(
        3 * len(frames),
        [
            ("subject_idx", np.int8), ("action_idx", np.int8), ("frame_idx", np.int16),
            ("keypoints", np.float32, (17, 3)), ("bbox_by_camera_tlbr", np.int16, (4, 4)),
        ],
    )  # fmt: skip
    rows["subject_idx"], rows["frame_idx"] = np.repeat([0, 1, 2], len(frames)), np.tile(frames, 3)
    rows["action_idx"] = np.repeat([2, 1, 0], len(frames))
    rows["keypoints"] = recorded_mm(100)[rows["frame_idx"]][:, LABELS_OF_32]
    rows["bbox_by_camera_tlbr"] = [100, 200, 700, 800]
    rows["bbox_by_camera_tlbr"][rows["subject_idx"] == 2, 0] = 0
    return {
        "subject_names": subjects, "camera_names": list(truth.NAMES), "action_names": actions, "cameras": cameras,
        "table": rows,
    }  # fmt: skip


@pytest.fixture
def labelled(tmp_path) -> str:
    (tmp_path / "extra").mkdir()
    content: Any = labels(np.array([0, 5, 10]))
    np.save(tmp_path / "extra" / "human36m-multiview-labels-GTbboxes.npy", content, allow_pickle=True)
    return str(tmp_path)


def test_the_order_of_the_labels_is_that_of_their_own_preprocessing():
    order, _ = LABEL_JOINTS.remap(HUMAN36M17)
    assert [LABELS_OF_32[i] for i in order] == list(facts.JOINTS_OF_32)


def test_labels_give_the_same_joints_cameras_and_pixels(labelled):
    dataset = Human36M(folder=labelled, layout="labels")
    assert dataset.shards() == ["S1/WalkTogether-1", "S9/Greeting-2", "S11/Directions-2"]
    samples = list(dataset.read("S9/Greeting-2"))
    assert [(s.frame, s.position) for s in samples] == [(0, 0), (5, 1), (10, 2)]
    # float32 matrices in the file: 1e-7 of 5 m and of 1000 px
    check(samples[1], recorded_mm(6)[5], tolerance_px=1e-2)
    assert samples[1].box[0].tolist() == [200.0, 100.0, 800.0, 700.0]
    folder = f"{labelled}/processed/S9/Greeting-2/imageSequence"
    assert samples[1].images[1].uri == f"{folder}/55011271/img_000006.jpg"
    assert samples[1].damaged and samples[1].split == TEST


def test_an_empty_box_is_a_view_that_is_not_there(labelled):
    sample = next(Human36M(folder=labelled, layout="labels").read("S11/Directions-2"))
    assert sample.rig.names == truth.NAMES[1:] and len(sample.images) == 3 and len(sample.visible) == 3


def test_names_of_actions_that_vary_from_file_to_file_become_one(labelled):
    sample = next(Human36M(folder=labelled, layout="labels").read("S1/WalkTogether-1"))
    assert (sample.action, sample.capture_id) == ("WalkingTogether", "S1/WalkingTogether-1")
    assert "/processed/S1/WalkTogether-1/" in sample.images[0].uri


def test_undistorted_images_come_with_cameras_without_a_lens(labelled):
    sample = next(Human36M(folder=labelled, layout="labels", undistorted=True).read("S9/Greeting-2"))
    assert "/imageSequence-undistorted/" in sample.images[0].uri
    assert not sample.rig.lens.coefficients.any()


def test_a_folder_without_a_labels_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DatasetError, match=r"extra must contain exactly one human36m-multiview-labels-\*\.npy"):
        Human36M(folder=str(tmp_path), layout="labels").shards()


def test_labels_without_their_table_are_refused(tmp_path):
    (tmp_path / "extra").mkdir()
    content: Any = {"subject_names": []}
    np.save(tmp_path / "extra" / "human36m-multiview-labels-x.npy", content, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"labels-x\.npy: it has no 'table'"):
        Human36M(folder=str(tmp_path), layout="labels").shards()


# ---- images and annotations


def annotations(frames: list[int], joints: str = "joints_3d_camera", **changes: Any) -> list[dict[str, Any]]:
    found = []
    for camera in range(4):
        for frame in frames:
            world = recorded_mm(100)[frame, list(TOOLBOX_OF_32)]
            seen = (world - truth.CENTRE_MM[camera]) @ truth.ROTATION[camera].T
            name = f"s_09_act_05_subact_02_ca_{camera + 1:02d}"
            found.append(
                {
                    "image": f"{name}/{name}_{frame + 1:06d}.jpg", "joints_2d": np.zeros((17, 2)),
                    "joints_3d": seen * 1.1, joints: seen, "joints_vis": np.ones((17, 3)), "video_id": camera,
                    "image_id": frame + 1, "subject": 9, "action": 5,
                    "subaction": 2, "camera_id": camera, "source": "h36m",
                    "camera": {
                        "R": truth.ROTATION[camera], "T": truth.CENTRE_MM[camera][:, None],
                        "fx": truth.FOCAL[camera, :1], "fy": truth.FOCAL[camera, 1:], "cx": truth.CENTRE[camera, :1],
                        "cy": truth.CENTRE[camera, 1:], "k": truth.K123[camera][:, None],
                        "p": truth.P12[camera][:, None],
                    },
                    "center": (500.0, 500.0), "scale": (4.0, 4.0), "box": np.array([100.0, 50.0, 900.0, 850.0]),
                }
                | changes
            )  # fmt: skip
    return found


def annotated(folder, images: Any, name: str = "h36m_validation") -> Human36M:
    os.makedirs(folder / "annot", exist_ok=True)
    (folder / "annot" / f"{name}.pkl").write_bytes(pickle.dumps(images))
    return Human36M(folder=str(folder), layout="annotations")


def test_annotations_give_the_same_joints_cameras_and_pixels(tmp_path):
    dataset = annotated(tmp_path, annotations([0, 1, 7]))
    assert dataset.shards() == ["h36m_validation"]
    samples = list(dataset.read("h36m_validation"))
    assert [(s.capture_id, s.frame, s.position) for s in samples] == [
        ("S9/Greeting-2", 0, 0), ("S9/Greeting-2", 1, 1), ("S9/Greeting-2", 7, 2),
    ]  # fmt: skip
    check(samples[2], recorded_mm(8)[7])
    assert samples[2].damaged and samples[2].box[3].tolist() == [100.0, 50.0, 900.0, 850.0]
    name = "s_09_act_05_subact_02_ca_02"
    assert samples[2].images[1].uri == f"{tmp_path}/images/{name}/{name}_000008.jpg"


def test_a_image_that_is_missing_is_a_view_less(tmp_path):
    images = [p for p in annotations([0, 1]) if not (p["camera_id"] == 2 and p["image_id"] == 2)]
    first, second = annotated(tmp_path, images).read("h36m_validation")
    assert len(first.rig) == 4 and second.rig.names == (truth.NAMES[0], truth.NAMES[1], truth.NAMES[3])


def test_joints_of_the_universal_skeleton_are_refused(tmp_path):
    """Under `joints_3d` the toolbox stores them; told in the world, cameras disagree by decimetres."""
    images = annotations([0])
    for image in images:
        del image["joints_3d_camera"]
    with pytest.raises(DatasetError, match=r"h36m_validation\.pkl: .* mm about a joint: .* universal"):
        list(annotated(tmp_path, images).read("h36m_validation"))


def test_joints_3d_are_taken_where_they_are_the_cameras_own(tmp_path):
    (sample,) = annotated(tmp_path, annotations([3], joints="joints_3d")).read("h36m_validation")
    check(sample, recorded_mm(4)[3])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"a": 1}, "does not contain a list of images"),
        ([{"subject": 1}], "no 'action'"),
        (annotations([0], action=17), "action 17"),
        (annotations([0], camera_id=4), "camera_id 4"),
        (annotations([0], box=np.zeros(3)), "box is not 4 numbers"),
    ],
)
def test_bad_annotations_are_reported_with_path_and_reason(images, said, tmp_path):
    with pytest.raises(DatasetError, match=said) as error:
        list(annotated(tmp_path, images).read("h36m_validation"))
    assert "annot/h36m_validation.pkl" in str(error.value)


def test_a_camera_that_is_none_is_a_calibration_error_with_its_path(tmp_path):
    images = annotations([0])
    for image in images:
        image["camera"] |= {"R": np.ones((3, 3))}
    with pytest.raises((CalibrationError, DatasetError), match=r"h36m_validation\.pkl"):
        list(annotated(tmp_path, images).read("h36m_validation"))
