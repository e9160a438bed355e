"""Calibration files to camera rigs: metres, Z up, OpenCV's camera axes, cameras in the order of the file.

Formats: Pose2Sim, Anipose, FreeMoCap and caliscope TOML, Qualisys .qca.txt, Vicon .xcp, CMU Panoptic JSON,
OpenCV/EasyMocap YAML, OpenCap's pickles (read as data: loading one would run whatever code it holds).
"""

from __future__ import annotations

from mvpose.archive.calibration.file_cameras import Calibration, FileCameras, Unit, UpAxis, calibrated, check_names
from mvpose.archive.calibration.opencap_pickle import read_opencap
from mvpose.archive.calibration.opencv_yaml import PAIR, read_opencv_yaml
from mvpose.archive.calibration.panoptic_json import read_panoptic
from mvpose.archive.calibration.qualisys_qca import read_qualisys
from mvpose.archive.calibration.toml_tables import read_toml
from mvpose.archive.calibration.vicon_xcp import read_vicon
from mvpose.archive.locations import exists, inputs, join, name, parent, read_bytes
from mvpose.errors import CalibrationError
from mvpose.geometry.camera import CameraRig

__all__ = ["Calibration", "Unit", "UpAxis", "load_calibration", "read_calibration"]

MAX_BYTES = 8 << 20


def read_calibration(uri: str, unit: Unit | None = None, up: UpAxis | None = None) -> CameraRig:
    """The rig of a calibration file, float64; `unit` and `up` overrule what the file states.

    CalibrationError, naming the file, if it cannot be read, is implausible, or does not state the pictures' sizes.
    """
    rig = load_calibration(uri, unit, up).rig
    unsized = [n for n, size in zip(rig.names, rig.size.tolist(), strict=True) if 0 in size]
    if unsized:
        raise CalibrationError(f"{uri} does not state the picture size of {', '.join(unsized)}: add W_ and H_ to it.")
    return rig


def load_calibration(uri: str, unit: Unit | None = None, up: UpAxis | None = None) -> Calibration:
    """The rig of a calibration file with what is to be said of it; sizes that it does not state are (0, 0)."""
    try:
        return calibrated(_read(uri), unit, up)
    except CalibrationError as error:
        raise CalibrationError(f"calibration {uri}: {error}") from error


def _read(uri: str) -> FileCameras:
    """The format is told from the content, since names like .txt say nothing."""
    data = _bytes(uri)
    if uri.lower().endswith((".pickle", ".pkl")) or data[:1] == b"\x80":
        return read_opencap(_of_all_cameras(uri))
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:32]
    if start[:1] == b"<":
        return read_vicon(data) if b"<Camera " in data else read_qualisys(data)
    text = _text(data)
    if start[:5] == b"%YAML":
        return read_opencv_yaml([text, *_other_of_pair(uri)])
    return read_panoptic(text) if start[:1] == b"{" else read_toml(text)


def _bytes(uri: str) -> bytes:
    try:
        return read_bytes(uri, MAX_BYTES)
    except OSError as error:
        raise CalibrationError(f"it cannot be read: {error.strerror or error}.") from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError("it is neither UTF-8 text nor a format that is known.") from error


def _of_all_cameras(uri: str) -> dict[str, bytes]:
    """OpenCap's file of each camera by its folder's name: those of the same name in the folders beside its own."""
    own, file = parent(uri), name(uri)
    try:
        folders = [e.uri for e in inputs(parent(own)) if e.is_folder] if parent(own) else [own]
    except OSError as error:
        raise CalibrationError(f"the folders beside it cannot be listed: {error.strerror or error}.") from error
    own_files = {name(folder): join(folder, file) for folder in folders if exists(join(folder, file))}
    check_names(list(own_files))
    return {camera: _bytes(one) for camera, one in own_files.items()}


def _other_of_pair(uri: str) -> list[str]:
    """EasyMocap's extri.yml for an intri.yml, and the reverse, where it stands beside it."""
    stem, dot, suffix = name(uri).rpartition(".")
    if stem not in PAIR:
        return []
    other = join(parent(uri), f"{PAIR[1 - PAIR.index(stem)]}{dot}{suffix}")
    return [_text(_bytes(other))] if exists(other) else []
