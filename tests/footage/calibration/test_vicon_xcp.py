import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from mvpose.errors import CalibrationError
from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.footage.calibration import load_calibration, read_calibration
from tests.footage.calibration.rig_files import POINTS, Camera, ring, xcp_text
from tests.footage.calibration.test_formats import written

# The camera of a Nexus 2.16 as a user posted it in pose2sim's issue 195; the rest of the file is made up.
REAL_CAMERA = """<Cameras SOURCE="Nexus 2.16.0.150876h" VERSION="2.0">
<Camera DEVICEID="51433950" PIXEL_ASPECT_RATIO="1" SENSOR_SIZE="1920 1200" USERID="2"><KeyFrames>
<KeyFrame FOCAL_LENGTH="2020.2893760912" FRAME="0" PRINCIPAL_POINT="960 600" VICON_RADIAL="0 0"
ORIENTATION="0.0212356595799633 0.774555124454236 -0.632128503215528 0.00519243357047355"
POSITION="-28.8969712138325 6497.81893431526 1828.97203757617"/></KeyFrames></Camera></Cameras>"""


def vicon_pixels(camera: Camera, aspect: float, around: np.ndarray, k: tuple[float, float, float]) -> np.ndarray:
    """Where Vicon's formula puts the points: the pixel that it corrects to the ideal one, found by search."""
    square = np.array([1.0, aspect])
    local = POINTS @ camera.rotation.T + camera.translation
    ideal = camera.matrix[0, 0] * local[:, :2] / local[:, 2:] + camera.matrix[:2, 2] * square

    def corrected(pixel: np.ndarray) -> np.ndarray:
        d = (pixel - around) * square
        r2 = (d**2).sum()
        return around * square + d * (1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3)

    return np.array(
        [least_squares(lambda p, i=i: corrected(p) - i, i / square, xtol=1e-14, ftol=1e-14).x for i in ideal]
    )


@pytest.mark.parametrize("aspect", [1.0, 1.02])
@pytest.mark.parametrize("k", [(9e-8, 0.0, 0.0), (-8e-8, 2e-14, 0.0), (9e-8, -4e-14, 1e-20)])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (3.0, -2.0)])
def test_a_known_point_lands_where_vicon_s_formula_puts_it(aspect, k, offset, tmp_path):
    cameras = ring(["2107", "2108", "2109"])
    around = cameras[0].matrix[:2, 2] + np.array(offset)
    for camera in cameras:
        camera.matrix[:2, 2] = cameras[0].matrix[:2, 2]
    terms = " ".join(str(v) for v in (*around, *k))
    text = xcp_text(cameras, f'VICON_RADIAL2="ViconRadial2 {terms}"', aspect)
    rig = read_calibration(written(tmp_path, "a.xcp", text))
    pixels, _ = rig.project(torch.from_numpy(POINTS))
    for found, camera in zip(pixels.numpy(), cameras, strict=True):
        wanted = vicon_pixels(camera, aspect, around, k)
        ideal = vicon_pixels(camera, aspect, around, (0.0, 0.0, 0.0))
        assert np.abs(found - wanted).max() < 0.1
        assert np.abs(ideal - wanted).max() > 1.0  # the lens does matter here


def test_the_older_radial_terms_turn_about_the_principal_point(tmp_path):
    cameras = ring(["1", "2"])
    rig = read_calibration(written(tmp_path, "a.xcp", xcp_text(cameras, 'VICON_RADIAL="4e-08 -1e-15"')))
    pixels, _ = rig.project(torch.from_numpy(POINTS))
    for found, camera in zip(pixels.numpy(), cameras, strict=True):
        assert np.abs(found - vicon_pixels(camera, 1.0, camera.matrix[:2, 2], (4e-8, -1e-15, 0.0))).max() < 0.1


def test_the_real_part_of_the_quaternion_is_the_last(tmp_path):
    rig = read_calibration(written(tmp_path, "a.xcp", REAL_CAMERA))
    down, forward = rig.camera_from_world.rotation[0, 1], rig.camera_from_world.rotation[0, 2]
    assert forward[1] < -0.9 and abs(forward[0]) < 0.1  # from y = 6.5 m into the room
    assert down[2] < -0.9
    camera_centre = -rig.camera_from_world.rotation[0].T @ rig.camera_from_world.translation[0]
    assert torch.allclose(camera_centre, torch.tensor([-0.0288970, 6.4978189, 1.8289720], dtype=torch.float64))


def test_a_rig_written_as_toml_and_read_again_is_the_same_rig(tmp_path):
    text = xcp_text(ring(["1", "2", "3"]), 'VICON_RADIAL="4e-08 -1e-15"')
    rig = read_calibration(written(tmp_path, "a.xcp", text))
    again = read_calibration(written(tmp_path, "Calib.toml", pose2sim_toml(rig)))
    points = torch.from_numpy(POINTS)
    assert torch.allclose(rig.project(points)[0], again.project(points)[0], atol=1e-6)


def test_terms_of_another_lens_model_are_refused(tmp_path):
    """OpenCV's -0.1 taken for Vicon's, whose unit is 1 / px^2, would send every pixel out of the image."""
    with pytest.raises(CalibrationError, match="fold the image"):
        read_calibration(written(tmp_path, "a.xcp", xcp_text(ring(["1", "2"]), 'VICON_RADIAL="-0.1 0.05"')))


def test_moving_cameras_are_refused_and_uncalibrated_ones_are_told(tmp_path):
    text = xcp_text(ring(["1", "2"]))
    key = text[text.index("<KeyFrame ") : text.index("/>") + 2]
    moved = text.replace(key, key + key.replace('FRAME="0"', 'FRAME="9"').replace('POSITION="', 'POSITION="1'), 1)
    with pytest.raises(CalibrationError, match="camera 1 moves"):
        read_calibration(written(tmp_path, "moving.xcp", moved))
    same = text.replace(key, key + key.replace('FRAME="0"', 'FRAME="9"'), 1)
    assert len(read_calibration(written(tmp_path, "still.xcp", same))) == 2
    bare = text.replace("</Cameras>", '<Camera DEVICEID="9" SENSOR_SIZE="100 100"/></Cameras>')
    notes = load_calibration(written(tmp_path, "bare.xcp", bare)).notes
    assert any("camera 9 has no KeyFrame" in note for note in notes)


@pytest.mark.parametrize("attribute", ["FOCAL_LENGTH", "ORIENTATION", "POSITION", "PRINCIPAL_POINT", "SENSOR_SIZE"])
def test_what_is_missing_is_named(attribute, tmp_path):
    text = xcp_text(ring(["1", "2"])).replace(f"{attribute}=", "OTHER=", 1)
    with pytest.raises(CalibrationError, match=f"camera 1 has no {attribute}"):
        read_calibration(written(tmp_path, "a.xcp", text))
