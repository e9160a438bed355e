"""XML calibrations with one element per camera: Qualisys and Vicon."""

from __future__ import annotations

from typing import NoReturn
from xml.parsers import expat

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import MAX_CAMERAS

Element = tuple[str, dict[str, str]]
"""Tag and attributes."""


def camera_elements(data: bytes, tag: str) -> list[list[Element]]:
    """Each element named `tag` with all elements inside it, in order; a DTD is rejected before it is parsed.

    Raises CalibrationError if the data is not XML or contains no such element.
    """
    cameras: list[list[Element]] = []
    tags: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        tags.append(name)
        if name == tag:
            cameras.append([])
        if cameras:
            cameras[-1].append((name, attributes))
        if len(cameras) > MAX_CAMERAS:
            raise CalibrationError(f"it has more than {MAX_CAMERAS} cameras.")

    def refuse(*_: object) -> NoReturn:
        raise CalibrationError("it has a document type or entity declaration, which is not allowed: remove it.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise CalibrationError(f"it is not valid XML: {error}.") from error
    if not cameras:
        raise CalibrationError(f"it is XML (<{tags[0]}>) but not a known calibration format: it has no <{tag}>.")
    return cameras
