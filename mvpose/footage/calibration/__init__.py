"""Read calibration files as camera rigs: metres, Z up, OpenCV camera axes, cameras in file order.

Formats: Pose2Sim, Anipose, FreeMoCap and caliscope TOML, Qualisys .qca.txt, Vicon .xcp, CMU Panoptic JSON,
OpenCV/EasyMocap YAML, and OpenCap pickles (parsed as data: loading a pickle would run any code in it).
"""

from __future__ import annotations

from collections.abc import Callable

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import Calibration, FileCameras, Unit, UpAxis, calibrated, check_names
from mvpose.footage.calibration.opencap_pickle import read_opencap
from mvpose.footage.calibration.opencv_yaml import PAIR, read_opencv_yaml
from mvpose.footage.calibration.panoptic_json import read_panoptic
from mvpose.footage.calibration.qualisys_qca import read_qualisys
from mvpose.footage.calibration.toml_tables import read_toml
from mvpose.footage.calibration.vicon_xcp import read_vicon
from mvpose.geometry.camera import CameraRig
from mvpose.storage.locations import exists, inputs, join, name, parent, read_bytes

__all__ = ["Calibration", "Reader", "Unit", "UpAxis", "load_calibration", "read_calibration"]

MAX_BYTES = 8 << 20

Reader = Callable[[bytes], FileCameras]


def read_calibration(uri: str, unit: Unit | None = None, up: UpAxis | None = None) -> CameraRig:
    """The rig of a calibration file, float64; `unit` and `up` override what the file states.

    Raises CalibrationError, naming the file, if it cannot be read, is implausible, or states no image sizes.
    """
    rig = load_calibration(uri, unit, up).rig
    unsized = [n for n, size in zip(rig.names, rig.size.tolist(), strict=True) if 0 in size]
    if unsized:
        raise CalibrationError(f"{uri} does not state the image size of {', '.join(unsized)}: add W_ and H_ to it.")
    return rig


def load_calibration(
    uri: str, unit: Unit | None = None, up: UpAxis | None = None, reader: Reader | None = None
) -> Calibration:
    """The rig of a calibration file with notes; image sizes that the file does not state are (0, 0).

    `reader` reads a format that mvpose does not know: the content of a file to its cameras. It raises CalibrationError
    for content that it cannot read.
    """
    try:
        return calibrated(reader(_bytes(uri)) if reader else _read(uri), unit, up)
    except CalibrationError as error:
        raise CalibrationError(f"calibration {uri}: {error}") from error


def _read(uri: str) -> FileCameras:
    """Detect the format from the content, since suffixes like .txt are ambiguous."""
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
        raise CalibrationError("it is neither UTF-8 text nor a known format.") from error


def _of_all_cameras(uri: str) -> dict[str, bytes]:
    """OpenCap's calibration file of each camera by folder name: files of the same name in the sibling folders."""
    own, file = parent(uri), name(uri)
    try:
        folders = [e.uri for e in inputs(parent(own)) if e.is_folder] if parent(own) else [own]
    except OSError as error:
        raise CalibrationError(f"the folders next to it cannot be listed: {error.strerror or error}.") from error
    own_files = {name(folder): join(folder, file) for folder in folders if exists(join(folder, file))}
    check_names(list(own_files))
    return {camera: _bytes(one) for camera, one in own_files.items()}


def _other_of_pair(uri: str) -> list[str]:
    """EasyMocap's extri.yml for an intri.yml, and vice versa, if it is in the same folder."""
    stem, dot, suffix = name(uri).rpartition(".")
    if stem not in PAIR:
        return []
    other = join(parent(uri), f"{PAIR[1 - PAIR.index(stem)]}{dot}{suffix}")
    return [_text(_bytes(other))] if exists(other) else []
