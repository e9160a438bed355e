import numpy as np
import pytest
import torch

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import UpAxis, load_calibration, read_calibration
from tests.footage.calibration.rig_files import ring, toml_text
from tests.footage.calibration.test_formats import worst_pixel, written


def test_a_fisheye_is_opencv_s_fisheye(tmp_path):
    cameras = [*ring(["a", "b"], fisheye=True), *ring(["x", "y", "c"])[2:]]
    assert worst_pixel(read_calibration(written(tmp_path, "c.toml", toml_text(cameras))), cameras) < 1e-6


def test_a_fisheye_with_five_coefficients_is_refused(tmp_path):
    text = toml_text(ring(["a", "b"])).replace("fisheye = false", "fisheye = true")
    with pytest.raises(CalibrationError, match="fisheye"):
        read_calibration(written(tmp_path, "c.toml", text))


@pytest.mark.parametrize("lens", [[0.01, 0.02, 0.001, 0.002, 0.0, 0.03, 0.01, 0.02], [0.01] * 12, [0.01] * 12 + [0, 0]])
def test_rational_and_thin_prism_lenses_are_opencv_s(lens, tmp_path):
    cameras = ring(["a", "b"])
    cameras[0].distortion = lens
    assert worst_pixel(read_calibration(written(tmp_path, "c.toml", toml_text(cameras))), cameras) < 1e-6


@pytest.mark.parametrize("lens", [[0.1], [0.1] * 6, [0.01] * 14])
def test_lenses_of_another_number_of_coefficients_are_refused(lens, tmp_path):
    cameras = ring(["a", "b"])
    cameras[0].distortion = lens
    with pytest.raises(CalibrationError, match="coefficients"):
        read_calibration(written(tmp_path, "c.toml", toml_text(cameras)))


def test_the_unit_is_told_from_the_rig_s_size_and_said(tmp_path):
    for scale, unit in ((1.0, "m"), (1000.0, "mm")):
        calibration = load_calibration(written(tmp_path, "c.toml", toml_text(ring(["a", "b", "c"]), scale)))
        assert any(f"unit assumed to be {unit}" in note for note in calibration.notes)
        assert worst_pixel(calibration.rig, ring(["a", "b", "c"])) < 1e-6


def test_a_rig_between_metres_and_millimetres_is_refused_until_its_unit_is_set(tmp_path):
    uri = written(tmp_path, "c.toml", toml_text(ring(["a", "b", "c"]), scale=1 / 0.0254))
    with pytest.raises(CalibrationError, match="Set the unit"):
        read_calibration(uri)
    assert worst_pixel(read_calibration(uri, unit="in"), ring(["a", "b", "c"])) < 1e-6


def test_a_unit_that_is_set_must_be_plausible_too(tmp_path):
    with pytest.raises(CalibrationError, match="as configured"):
        read_calibration(written(tmp_path, "c.toml", toml_text(ring(["a", "b"]))), unit="mm")


@pytest.mark.parametrize("scale", [0.02, 40.0])
def test_a_very_small_or_large_rig_is_read_once_its_unit_is_set(scale, tmp_path):
    uri = written(tmp_path, "c.toml", toml_text(ring(["a", "b", "c"]), scale))
    with pytest.raises(CalibrationError, match="Set the unit"):
        read_calibration(uri)
    rig = read_calibration(uri, unit="m")
    expected = np.stack([camera.translation for camera in ring(["a", "b", "c"])]) * scale
    np.testing.assert_allclose(rig.camera_from_world.translation.numpy(), expected, atol=1e-6)


def test_freemocap_is_in_millimetres_even_where_metres_are_plausible(tmp_path):
    cameras = ring(["a", "b", "c"])
    for camera in cameras:
        camera.extra = {"world_position": [0.0, 0.0, 0.0], "world_orientation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    assert (
        worst_pixel(read_calibration(written(tmp_path, "c.toml", toml_text(cameras, 1000.0))), ring(["a", "b", "c"]))
        < 1e-6
    )
    with pytest.raises(CalibrationError, match="in mm"):
        read_calibration(written(tmp_path, "c.toml", toml_text(cameras)))


def test_caliscope_s_turns_are_told_and_the_rig_is_the_recorded_image_s(tmp_path):
    cameras = ring(["3", "1"])
    cameras[1].extra = {"rotation_count": -1, "error": 0.4}
    calibration = load_calibration(written(tmp_path, "c.toml", toml_text(cameras, nested=True)))
    assert calibration.turns == (0, 3)
    assert worst_pixel(calibration.rig, cameras) < 1e-6


def test_a_camera_without_a_pose_is_left_out_and_named(tmp_path):
    text = toml_text(ring(["a", "b", "c"]))
    at = text.index("translation", text.index('"b"'))
    calibration = load_calibration(written(tmp_path, "c.toml", text[:at] + "# " + text[at:]))
    assert calibration.rig.names == ("a", "c")
    assert any("camera b has no pose" in note for note in calibration.notes)


def test_skew_is_refused(tmp_path):
    cameras = ring(["a", "b"])
    cameras[1].matrix[0, 1] = 0.5
    with pytest.raises(CalibrationError, match="camera b has a skew"):
        read_calibration(written(tmp_path, "c.toml", toml_text(cameras)))


def test_a_image_without_a_size_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="size"):
        read_calibration(written(tmp_path, "c.toml", toml_text(ring(["a", "b"])).replace("size =", "sise =")))


def test_a_toml_file_of_something_else_is_said_to_have_no_camera(tmp_path):
    with pytest.raises(CalibrationError, match="no fully calibrated camera"):
        read_calibration(written(tmp_path, "Config.toml", "[project]\nfps = 60\n"))


def test_an_up_axis_that_does_not_fit_is_noticed_and_can_be_set(tmp_path):
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # Y-up file world: x_file = (x, z, -y)
    cameras = ring(["a", "b", "c"])
    for camera in cameras:
        camera.rotation = camera.rotation @ turn
    uri = written(tmp_path, "c.toml", toml_text(cameras))
    assert any("set `up` (perhaps to 'y')" in note for note in load_calibration(uri).notes)
    assert not any("`up`" in note for note in load_calibration(uri, up="y").notes)
    assert worst_pixel(read_calibration(uri, up="y"), ring(["a", "b", "c"])) < 1e-6


def test_every_up_axis_turns_that_axis_of_the_file_to_z(tmp_path):
    uri = written(tmp_path, "c.toml", toml_text(ring(["a", "b", "c"])))
    before = read_calibration(uri, up="z").centres_world
    axes: list[tuple[UpAxis, int, int]] = [("x", 0, 1), ("-x", 0, -1), ("y", 1, 1), ("-y", 1, -1), ("-z", 2, -1)]
    for up, axis, sign in axes:
        after = read_calibration(uri, up=up).centres_world
        torch.testing.assert_close(after[:, 2], sign * before[:, axis])
        turned = torch.linalg.lstsq(before, after).solution
        assert torch.linalg.det(turned) == pytest.approx(1.0)
