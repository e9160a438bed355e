import os
import pickle

import numpy as np
import pytest

from mvpose.errors import CalibrationError
from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.footage.calibration import load_calibration, read_calibration
from tests.footage.calibration.rig_files import Camera, ring
from tests.footage.calibration.test_formats import worst_pixel, written

FILE = "cameraIntrinsicsExtrinsics.pickle"


def write_session(folder, cameras: list[Camera], protocol: int = 3) -> str:
    """Videos/Cam0/..., as OpenCap lays a session out; the first camera's file. The board stands upright: Y is down."""
    z_up_from_board = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    for camera in cameras:
        content = {
            "distortion": np.array([camera.distortion]),
            "intrinsicMat": camera.matrix,
            "imageSize": np.array([[camera.size[1]], [camera.size[0]]], dtype=float),
            "rotation": camera.rotation @ z_up_from_board,
            "translation": 1000 * camera.translation[:, None],
            "rotation_EulerAngles": np.zeros((3, 1)),
        }
        os.makedirs(os.path.join(folder, "Videos", camera.name))
        with open(os.path.join(folder, "Videos", camera.name, FILE), "wb") as file:
            pickle.dump(content, file, protocol=protocol)
    return os.path.join(folder, "Videos", cameras[0].name, FILE)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_known_point_lands_on_opencv_s_pixel_in_every_camera(protocol, tmp_path):
    cameras = ring(["Cam0", "Cam1", "Cam2"])
    rig = read_calibration(write_session(tmp_path, cameras, protocol))
    assert rig.names == ("Cam0", "Cam1", "Cam2")
    assert worst_pixel(rig, cameras) < 1e-6
    assert rig.size.tolist() == [list(c.size) for c in cameras]


def test_the_up_axis_is_told_and_may_be_overruled(tmp_path):
    uri = write_session(tmp_path, ring(["Cam0", "Cam1"]))
    assert any("upright" in note for note in load_calibration(uri).notes)
    assert not np.allclose(read_calibration(uri, up="z").projections, read_calibration(uri).projections)


def test_a_rig_written_as_toml_and_read_again_is_the_same_rig(tmp_path):
    cameras = ring(["Cam0", "Cam1", "Cam2"])
    rig = read_calibration(write_session(tmp_path, cameras))
    again = read_calibration(written(tmp_path, "Calib.toml", pose2sim_toml(rig)))
    assert worst_pixel(again, cameras) < 1e-6


def test_a_pickle_among_the_others_that_asks_for_code_is_refused_and_nothing_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (os.path.join(tmp_path, "exploded"),))

    uri = write_session(tmp_path, ring(["Cam0", "Cam1"]))
    with open(os.path.join(tmp_path, "Videos", "Cam1", FILE), "wb") as file:
        pickle.dump({"rotation": Bomb()}, file)
    with pytest.raises(CalibrationError, match=r"Cam1 cannot be read.*mkdir"):
        read_calibration(uri)
    assert not os.path.exists(os.path.join(tmp_path, "exploded"))


def test_what_is_missing_or_no_number_is_named(tmp_path):
    uri = write_session(tmp_path, ring(["Cam0", "Cam1"]))
    for content, message in (({"rotation": 1}, "lacks intrinsicMat"), ([1], "lacks everything")):
        with open(uri, "wb") as file:
            pickle.dump(content, file)
        with pytest.raises(CalibrationError, match=message):
            read_calibration(uri)
    with open(uri, "wb") as file:
        pickle.dump(dict.fromkeys(("intrinsicMat", "distortion", "imageSize", "rotation", "translation"), "x"), file)
    with pytest.raises(CalibrationError, match="imageSize of Cam0"):
        read_calibration(uri)


def test_every_cut_of_a_pickle_is_a_calibration_error(tmp_path):
    uri = write_session(tmp_path, ring(["Cam0", "Cam1"]))
    with open(uri, "rb") as file:
        data = file.read()
    for stop in range(0, len(data) - 1, 7):
        with open(uri, "wb") as file:
            file.write(data[:stop])
        with pytest.raises(CalibrationError, match=r"pickle"):
            read_calibration(uri)
