import os

import pytest
import torch

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import load_calibration, read_calibration
from tests.footage.calibration.rig_files import qualisys_text, ring
from tests.footage.calibration.test_formats import worst_pixel, written


def test_the_centre_is_told_relative_to_the_part_of_the_sensor_that_is_filmed(tmp_path):
    cameras = ring(["a", "b"])
    rig = read_calibration(written(tmp_path, "a.qca.txt", qualisys_text(cameras, left=96, top=40)))
    assert worst_pixel(rig, cameras) < 1e-6
    assert rig.size.tolist() == [[1280, 720], [1280, 722]]


@pytest.mark.footage
def test_it_is_pose2sim_s_reading_of_the_same_file_but_for_the_distortion(footage):
    ours = read_calibration(os.path.join(footage, "Demo_SinglePerson/calibration/Calib.qca.txt"))
    theirs = read_calibration(os.path.join(footage, "StaticTrial/calibration/Calib_qualisys.toml"))
    torch.testing.assert_close(ours.intrinsics, theirs.intrinsics, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.camera_from_world.matrix(), theirs.camera_from_world.matrix(), atol=1e-6, rtol=0)
    assert torch.equal(ours.size, theirs.size)
    torch.testing.assert_close(ours.lens.coefficients, 64 * theirs.lens.coefficients)


@pytest.mark.footage
def test_undivided_distortion_agrees_with_opencv_s_calibrations_of_the_same_cameras(footage):
    folder = os.path.join(footage, "Demo_SinglePerson/calibration")

    def shift_px(uri: str) -> torch.Tensor:
        rig = read_calibration(uri)
        k1, k2, k3 = rig.lens.coefficients[:, [0, 1, 4]].T
        return rig.focal[:, 0] * 0.4 * (k1 * 0.4**2 + k2 * 0.4**4 + k3 * 0.4**6)

    undivided = shift_px(os.path.join(folder, "Calib.qca.txt"))
    divided = shift_px(os.path.join(footage, "StaticTrial/calibration/Calib_qualisys.toml"))
    for other in ("Calib_scene.toml", "Calib_scene_2023_commit37354e2.toml"):
        opencv = shift_px(os.path.join(folder, other))
        assert ((undivided - opencv).abs() < 0.7).all() and ((divided - opencv).abs() > 2.0).all()


def test_a_document_type_is_refused_before_an_entity_is_read(tmp_path):
    secret = written(tmp_path, "secret", "1.0")
    for declaration in (f'<!ENTITY x SYSTEM "file://{secret}">', '<!ENTITY a "1"><!ENTITY x "&a;&a;&a;&a;">'):
        text = qualisys_text(ring(["a", "b"])).replace("<calibration>", f"<!DOCTYPE c [{declaration}]><calibration>")
        with pytest.raises(CalibrationError, match="document type"):
            read_calibration(written(tmp_path, "a.qca.txt", text.replace('skew="0.0"', 'skew="&x;"')))


def test_skew_and_missing_attributes_are_named(tmp_path):
    text = qualisys_text(ring(["a", "b"]))
    with pytest.raises(CalibrationError, match="camera a has a skew"):
        read_calibration(written(tmp_path, "a.qca.txt", text.replace('skew="0.0"', 'skew="64"', 1)))
    with pytest.raises(CalibrationError, match="camera a has no focalLengthU in <intrinsic>"):
        read_calibration(written(tmp_path, "a.qca.txt", text.replace("focalLengthU", "focal", 1)))


def test_a_turned_view_is_noted(tmp_path):
    text = qualisys_text(ring(["a", "b"])).replace('viewrotation="0"', 'viewrotation="90"', 1)
    notes = load_calibration(written(tmp_path, "a.qca.txt", text)).notes
    assert len(notes) == 1 and "camera a has viewrotation 90" in notes[0]


def test_xml_of_another_kind_is_named_by_its_root(tmp_path):
    with pytest.raises(CalibrationError, match="<Profile>"):
        read_calibration(written(tmp_path, "motive.mcal", "<Profile><Lens Serial='1'/></Profile>"))
