"""Read a folder of numbered JPEG or PNG images as a video."""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterator
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import UInt8

from mvpose.errors import VideoError, VideoTooShortError
from mvpose.footage.video.video_container import refuse_large, unreadable
from mvpose.storage.locations import inputs, name, read_bytes

_IMAGE = re.compile(r".*?(\d+)\D*\.(jpe?g|png)", re.IGNORECASE)
_PNG = b"\x89PNG\r\n\x1a\n"
# JPEG markers: SOF0 to SOF15 without DHT, JPG and DAC; TEM and RST0 to EOI; APP1, which holds EXIF; start of scan.
_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}
_APP1, _SCAN = 0xE1, 0xDA
_ORIENTATION, _SHORT = 0x0112, 3
_TURNS = {1: 0, 3: 2, 6: 1, 8: 3}
"""Clockwise quarter turns by EXIF orientation; the other orientations are mirrored."""


def numbered_images(uri: str) -> list[tuple[int, str]]:
    """(number, URI) of the images of a folder, by the last number in their names; frame 0 has the lowest number.

    Numbers may have gaps; they determine which images of several cameras belong together. Raises VideoError for two
    images with one number, for a number of more than 18 digits, and for a folder without numbered images.
    """
    try:
        matches = [(m, e.uri) for e in inputs(uri) if (m := _IMAGE.fullmatch(name(e.uri)))]
    except OSError as error:
        raise unreadable(uri, error) from error
    if not matches:
        raise VideoError(f"{uri} has no numbered JPEG or PNG images.")
    long = [name(file) for match, file in matches if len(match[1].lstrip("0")) > 18]
    if long:
        raise VideoError(f"{uri}: the number of {long[0]} has more than 18 digits: rename the images.")
    images = sorted((int(match[1]), file) for match, file in matches)
    for (number, one), (following, other) in pairwise(images):
        if number == following:
            raise VideoError(
                f"{uri} has two images numbered {number}, {name(one)} and {name(other)}: keep one sequence per folder."
            )
    return images


def read_image(uri: str) -> UInt8[np.ndarray, "H W 3"]:
    """An image as RGB, turned by its EXIF orientation. Raises VideoError if it cannot be read, or is to be mirrored."""
    return upright_image(uri)[0]


def upright_image(uri: str) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """Like `read_image`, with the clockwise quarter turns that its EXIF orientation requests."""
    try:
        data = read_bytes(uri)
        width, height = stated_size(data)
        refuse_large(width, height, uri)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if width else None
    except (OSError, cv2.error) as error:
        raise unreadable(uri, error) from error
    if image is None:
        raise VideoError(f"{uri} is not an image that can be decoded.")
    orientation = stated_orientation(data)
    if orientation not in _TURNS:
        raise VideoError(f"{uri} is marked to be shown mirrored (EXIF orientation {orientation}): save it as shown.")
    return np.ascontiguousarray(np.rot90(image, -_TURNS[orientation])), _TURNS[orientation]


def stated_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header of a PNG or JPEG, before anything is decoded; (0, 0) if it states none.

    ISO/IEC 15948, 11.2.2 (IHDR comes first) and ISO/IEC 10918-1, B.2.2 (the frame header).
    """
    if data[:8] == _PNG and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    for marker, at in _segments(data):
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, at + 1)
            return width, height
    return 0, 0


def stated_orientation(data: bytes) -> int:
    """The EXIF orientation (CIPA DC-008, 4.6.5.1) of a PNG or JPEG, 1 to 8; 1 if it states none."""
    if data[:8] == _PNG:
        blocks = [data[at : at + length] for kind, at, length in _chunks(data) if kind == b"eXIf"]
    else:
        found = [data[at:] for marker, at in _segments(data) if marker == _APP1]
        blocks = [block.removeprefix(b"Exif\0\0") for block in found if block.startswith(b"Exif\0\0")]
    return _orientation(blocks[0]) if blocks else 1


def _orientation(exif: bytes) -> int:
    """The orientation in the first directory of a TIFF structure (TIFF 6.0, section 2); 1 if there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    entries = exif[directory + 2 :]
    for at in range(0, len(entries) - 11, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", entries, at)
        if (tag, kind) == (_ORIENTATION, _SHORT):
            return value if 1 <= value <= 8 else 1
    return 1


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, position of its content) of the segments of a JPEG before its image data (ISO/IEC 10918-1, B.1)."""
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data) and data[at + 1] != _SCAN:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes before a marker
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            yield marker, at + 4
            at += 2 + max(2, *struct.unpack_from(">H", data, at + 2))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, position, length) of the contents of a PNG's chunks (ISO/IEC 15948, 5.3)."""
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, length
        at += 12 + length


def folder_images(uri: str, start: int, stop: int, turns: int = 0) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Images [start, stop) of a folder whose first image is shown turned by `turns` clockwise quarter turns.

    Raises VideoTooShortError if it now has fewer images, VideoError if one is marked to be turned otherwise: a camera
    that looks up or down marks its images by chance, and one calibration cannot serve both.
    """
    files = numbered_images(uri)
    if len(files) < stop:
        raise VideoTooShortError(
            f"{uri} has {len(files)} images left, but frames {start} to {stop - 1} were requested."
        )
    for _, file in files[start:stop]:
        image, own = upright_image(file)
        if own != turns:
            raise VideoError(
                f"{file} is marked to be shown turned by {90 * own} degrees, but the first image of its folder by "
                f"{90 * turns}: remove the marks, or save all images as they are to be shown."
            )
        yield image
