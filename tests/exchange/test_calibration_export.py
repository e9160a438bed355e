"""Calibrations written and read back: nothing is dropped, and what a format cannot hold is refused."""

import json
import os
import tomllib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mvpose.errors import CalibrationError
from mvpose.exchange.calibration_export import (
    anipose_toml,
    easymocap_yaml,
    opencv_yaml,
    panoptic_json,
    pose2sim_toml,
)
from mvpose.footage.calibration import load_calibration, read_calibration
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.scenes import ring4, ring31

FIVE = [-0.11, 0.06, 0.001, -0.002, 0.013]


def rig_with(coefficients: list[float], model: LensModel = LensModel.BROWN_CONRADY) -> CameraRig:
    rig = ring4(num_frames=2).rig
    return replace(rig, lens=Lens.of(model, [coefficients] * 4))


def read_back(folder: str, file: str, text: str) -> CameraRig:
    path = os.path.join(folder, file)
    with open(path, "w") as out:
        out.write(text)
    return read_calibration(path)


def assert_same(read: CameraRig, rig: CameraRig) -> None:
    assert read.names == rig.names and read.lens.models == rig.lens.models
    assert torch.equal(read.size, rig.size)
    torch.testing.assert_close(read.intrinsics, rig.intrinsics, rtol=1e-12, atol=0)
    torch.testing.assert_close(read.lens.coefficients, rig.lens.coefficients, rtol=1e-12, atol=0)
    torch.testing.assert_close(read.camera_from_world.matrix(), rig.camera_from_world.matrix(), rtol=0, atol=1e-12)
    points = torch.tensor([[0.0, 0.0, 0.9], [0.4, -0.3, 1.7], [-0.5, 0.2, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(read.project(points)[0], rig.project(points)[0], rtol=0, atol=1e-8)


ONE_FILE = {
    "Calib.toml": pose2sim_toml,
    "calibration.toml": anipose_toml,
    "all.yml": opencv_yaml,
    "calibration_a.json": panoptic_json,
}


@pytest.mark.parametrize("file", ONE_FILE)
def test_a_rig_comes_back_with_its_third_radial_coefficient(tmp_path, file):
    rig = rig_with(FIVE)
    assert_same(read_back(tmp_path, file, ONE_FILE[file](rig)), rig)


def test_easymocaps_pair_comes_back(tmp_path):
    rig = rig_with(FIVE)
    intri, extri = easymocap_yaml(rig)
    with open(os.path.join(tmp_path, "extri.yml"), "w") as file:
        file.write(extri)
    assert_same(read_back(tmp_path, "intri.yml", intri), rig)


@pytest.mark.parametrize("file", ["Calib.toml", "calibration.toml"])
def test_the_fisheye_flag_is_kept(tmp_path, file):
    rig = rig_with([0.02, -0.01, 0.003, -0.001], LensModel.KANNALA_BRANDT)
    text = ONE_FILE[file](rig)
    assert all(t["fisheye"] and len(t["distortions"]) == 4 for k, t in tomllib.loads(text).items() if k != "metadata")
    assert_same(read_back(tmp_path, file, text), rig)


def test_rigs_of_mixed_lenses_keep_each(tmp_path):
    rig = ring4(num_frames=2).rig
    rows = torch.zeros(4, 12, dtype=torch.float64)
    rows[:, :4] = torch.tensor([0.02, -0.01, 0.003, -0.001], dtype=torch.float64)
    models = (LensModel.KANNALA_BRANDT, LensModel.BROWN_CONRADY) * 2
    mixed = replace(rig, lens=Lens(models, rows))
    assert_same(read_back(tmp_path, "Calib.toml", pose2sim_toml(mixed)), mixed)


@pytest.mark.parametrize("file", ["Calib.toml", "all.yml"])
@pytest.mark.parametrize("count", [8, 12])
def test_rational_and_thin_prism_lenses_come_back_where_the_format_holds_them(tmp_path, file, count):
    rig = rig_with([*FIVE, 0.01, 0.02, 0.003, 1e-3, 2e-3, -1e-3, 5e-4][:count])
    assert_same(read_back(tmp_path, file, ONE_FILE[file](rig)), rig)


@pytest.mark.parametrize("export", [anipose_toml, easymocap_yaml, panoptic_json])
def test_more_coefficients_than_a_format_holds_are_refused(export):
    with pytest.raises(CalibrationError, match="8 distortion coefficients"):
        export(rig_with([*FIVE, 0.01]))


@pytest.mark.parametrize("export", [easymocap_yaml, opencv_yaml, panoptic_json])
def test_a_fisheye_is_refused_where_there_is_no_flag_for_it(export):
    with pytest.raises(CalibrationError, match="fisheye"):
        export(rig_with([0.02], LensModel.KANNALA_BRANDT))


@pytest.mark.parametrize("export", [pose2sim_toml, anipose_toml, easymocap_yaml, opencv_yaml, panoptic_json])
def test_human36ms_own_tangential_lens_is_refused_everywhere(export):
    with pytest.raises(CalibrationError, match=r"Human3\.6M"):
        export(rig_with([0.02], LensModel.HUMAN36M))


def test_names_that_need_quotes_are_quoted_or_refused(tmp_path):
    rig = replace(rig_with(FIVE), names=("cam.1", 'the "left" one', "3", "vorne_ä"))
    assert_same(read_back(tmp_path, "Calib.toml", pose2sim_toml(rig)), rig)
    assert_same(read_back(tmp_path, "a.json", panoptic_json(rig)), rig)
    with pytest.raises(CalibrationError, match=r"cam\.1"):
        opencv_yaml(rig)


def test_anipose_keys_sorted_as_strings_keep_the_order_of_31_cameras():
    keys = [key for key in tomllib.loads(anipose_toml(ring31(num_frames=2).rig)) if key != "metadata"]
    assert len(keys) == 31 and sorted(keys) == keys


def test_aniposelib_itself_projects_the_same_where_it_is_installed(tmp_path):
    cameras = pytest.importorskip("aniposelib.cameras")
    rig = rig_with(FIVE)
    path = os.path.join(tmp_path, "calibration.toml")
    with open(path, "w") as file:
        file.write(anipose_toml(rig))
    group = cameras.CameraGroup.load(path)
    points = np.random.default_rng(0).uniform([-0.5, -0.5, 0.1], [0.5, 0.5, 1.8], (20, 3))
    assert tuple(group.get_names()) == rig.names
    assert np.allclose(group.project(points).reshape(4, 20, 2), rig.project(torch.from_numpy(points))[0], atol=1e-6)


def test_panoptic_is_centimetres_and_y_down(tmp_path):
    rig = rig_with(FIVE)
    camera = json.loads(panoptic_json(rig))["cameras"][1]
    rotation, translation = np.array(camera["R"]), np.array(camera["t"])[:, 0]
    centre = -rotation.T @ translation / 100
    x, y, z = rig.centres_world[1].tolist()
    assert centre == pytest.approx([x, -z, y])
    assert load_calibration(_written(tmp_path, panoptic_json(rig))).notes == ()


def test_easymocaps_files_open_in_opencv_with_its_own_keys(tmp_path):
    intri, extri = easymocap_yaml(rig_with(FIVE))
    for text, key, shape in [(intri, "K_cam02", (3, 3)), (intri, "dist_cam02", (1, 5)), (extri, "Rot_cam02", (3, 3)),
                             (extri, "R_cam02", (3, 1)), (extri, "T_cam02", (3, 1))]:  # fmt: skip
        file = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        assert file.getNode(key).mat().shape == shape


def _written(folder: str, text: str) -> str:
    path = os.path.join(folder, "calibration_x.json")
    with open(path, "w") as file:
        file.write(text)
    return path
