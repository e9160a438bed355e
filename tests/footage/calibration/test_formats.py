"""Every format, held to the same laws: a known point lands on the same pixel, cameras keep the order of the file."""

import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import MAX_BYTES, load_calibration, read_calibration
from mvpose.geometry.camera import CameraRig
from tests.footage.calibration.rig_files import (
    POINTS,
    Camera,
    easymocap_texts,
    panoptic_text,
    qualisys_text,
    ring,
    toml_text,
    xcp_text,
)

NAMES = ["cam10", "cam2", "cam1"]


def easymocap_single(cameras: list[Camera]) -> str:
    intri, extri = easymocap_texts(cameras)
    return intri + extri[extri.index("R_") :]


WRITERS = {
    "pose2sim.toml": toml_text,
    "anipose.toml": lambda cameras: toml_text(cameras, scale=1000.0),
    "caliscope.toml": lambda cameras: toml_text(cameras, nested=True),
    "panoptic.json": panoptic_text,
    "qualisys.qca.txt": qualisys_text,
    "easymocap.yml": easymocap_single,
    "vicon.xcp": xcp_text,
}


def written(folder, name: str, text: str) -> str:
    uri = os.path.join(folder, name)
    with open(uri, "w") as file:
        file.write(text)
    return uri


def worst_pixel(rig: CameraRig, cameras: list[Camera]) -> float:
    pixels, seen = rig.project(torch.from_numpy(POINTS))
    assert seen.all()
    return max(float(np.abs(p - c.pixel(POINTS)).max()) for p, c in zip(pixels.numpy(), cameras, strict=True))


@pytest.mark.parametrize("name", WRITERS)
def test_a_known_point_lands_on_opencv_s_pixel(name, tmp_path):
    cameras = ring(NAMES)
    if name == "vicon.xcp":  # its lens is another one, with tests of its own
        for camera in cameras:
            camera.distortion = [0.0] * 5
    rig = read_calibration(written(tmp_path, name, WRITERS[name](cameras)))
    assert worst_pixel(rig, cameras) < 1e-6
    assert rig.size.tolist() == [list(c.size) for c in cameras]
    assert rig.focal.dtype == torch.float64


@pytest.mark.parametrize("name", WRITERS)
def test_cameras_keep_the_order_of_the_file(name, tmp_path):
    assert read_calibration(written(tmp_path, name, WRITERS[name](ring(NAMES)))).names == tuple(NAMES)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_numbers_that_no_camera_has_are_refused_with_the_file_s_name(name, bad, tmp_path):
    cameras = ring(NAMES)
    cameras[1].translation = np.array([bad, 0.0, 1.0])
    text = WRITERS[name](cameras).replace(".Nan", ".NaN")
    with pytest.raises(CalibrationError, match=name):
        read_calibration(written(tmp_path, name, text))


@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"vicon.xcp"}))  # a quaternion tells rotations alone
def test_a_matrix_that_is_no_rotation_is_refused(name, tmp_path):
    for factor, message in (([1, 1, -1], "mirrored"), ([1.1, 1.1, 1.1], "not a rotation matrix")):
        cameras = ring(NAMES)
        cameras[1].rotation = cameras[1].rotation * factor
        with pytest.raises(CalibrationError, match=message):
            read_calibration(written(tmp_path, name, WRITERS[name](cameras)))


@pytest.mark.parametrize("name", WRITERS)
def test_rigs_out_of_all_proportion_are_refused(name, tmp_path):
    for scale in (0.05, 30.0):
        cameras = ring(NAMES)
        for camera in cameras:
            camera.translation = camera.translation * scale
        with pytest.raises(CalibrationError, match="unit"):
            read_calibration(written(tmp_path, name, WRITERS[name](cameras)))


@pytest.mark.parametrize("name", WRITERS)
def test_two_cameras_of_one_name_are_refused(name, tmp_path):
    text = WRITERS[name](ring(["a1", "a2", "a3"])).replace("a2", "a1")
    with pytest.raises(CalibrationError):
        read_calibration(written(tmp_path, name, text))


@pytest.mark.parametrize("name", WRITERS)
def test_a_cut_off_file_never_ends_in_another_error(name, tmp_path):
    text = WRITERS[name](ring(NAMES))
    for stop in range(0, len(text), max(1, len(text) // 60)):
        uri = written(tmp_path, name, text[:stop])
        try:
            assert 1 <= len(load_calibration(uri).rig) <= 3
        except CalibrationError as error:
            assert name in str(error)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_ends_in_a_calibration_error_and_nothing_else(name, tmp_path, data):
    content = bytearray(WRITERS[name](ring(NAMES)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.sampled_from([b"", b"\x00", b"[[[", b"]", b"{", b"}", b'"', b":", b"-", b"1e999", b"nan"]))
        content[at : at + data.draw(st.integers(0, 6))] = piece or data.draw(st.binary(max_size=4))
    uri = os.path.join(tmp_path, name)
    with open(uri, "wb") as file:
        file.write(content)
    try:
        rig = load_calibration(uri).rig
        assert torch.isfinite(rig.projections).all()
    except CalibrationError as error:
        assert name in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([b"", b"%YAML:1.0\n---\n", b"<", b"{", b"\x80", b"[a]\n"]), rest=st.binary(max_size=200))
def test_random_bytes_end_in_a_calibration_error(tmp_path, start, rest):
    uri = os.path.join(tmp_path, "random")
    with open(uri, "wb") as file:
        file.write(start + rest)
    with pytest.raises(CalibrationError):
        read_calibration(uri)


@pytest.mark.parametrize("deep", [b"a = " + b"[" * 100_000, b'{"cameras":' + b"[" * 100_000, b"<a>" * 100_000])
def test_endless_nesting_ends_in_a_calibration_error(deep, tmp_path):
    uri = os.path.join(tmp_path, "deep")
    with open(uri, "wb") as file:
        file.write(deep)
    with pytest.raises(CalibrationError):
        read_calibration(uri)


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (os.path.join(tmp_path, "exploded"),))

    for protocol, name in ((2, "a.toml"), (0, "a.pickle")):
        uri = os.path.join(tmp_path, name)
        with open(uri, "wb") as file:
            pickle.dump(Bomb(), file, protocol=protocol)
        with pytest.raises(CalibrationError, match="pickle"):
            read_calibration(uri)
    assert not os.path.exists(os.path.join(tmp_path, "exploded"))


def test_a_huge_file_is_refused_unread(tmp_path):
    uri = os.path.join(tmp_path, "huge.toml")
    with open(uri, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(CalibrationError, match="8 MiB"):
        read_calibration(uri)


@pytest.mark.parametrize("name", WRITERS)
def test_more_than_1024_cameras_are_refused(name, tmp_path):
    text = WRITERS[name](ring([f"c{i}" for i in range(1030)])[:1030])
    with pytest.raises(CalibrationError, match=r"1030 cameras|more than 1024"):
        read_calibration(written(tmp_path, name, text))


def test_a_file_that_is_not_there_or_is_a_folder_is_said_so(tmp_path):
    for uri in (os.path.join(tmp_path, "missing.toml"), str(tmp_path)):
        with pytest.raises(CalibrationError, match="cannot be read"):
            read_calibration(uri)
