"""A folder of numbered JPEG or PNG pictures as a video."""

from __future__ import annotations

import re
import struct
from collections.abc import Generator
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import UInt8

from mvpose.archive.locations import inputs, name, read_bytes
from mvpose.archive.video_container import refuse_large, unreadable
from mvpose.errors import VideoError, VideoTooShortError

_PICTURE = re.compile(r".*?(\d+)\D*\.(jpe?g|png)", re.IGNORECASE)
# JPEG markers: SOF0 to SOF15 without DHT, JPG and DAC; TEM and RST0 to EOI.
_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}


def numbered_pictures(uri: str) -> list[tuple[int, str]]:
    """(number, URI) of the pictures of a folder, by the last number in their names; frame 0 is the least.

    Numbers may have gaps: they say which pictures of several cameras belong together. VideoError for two pictures of
    one number, for one of more than 18 digits, and for a folder without any.
    """
    try:
        matches = [(m, e.uri) for e in inputs(uri) if (m := _PICTURE.fullmatch(name(e.uri)))]
    except OSError as error:
        raise unreadable(uri, error) from error
    if not matches:
        raise VideoError(f"{uri} has no numbered JPEG or PNG pictures.")
    long = [name(file) for match, file in matches if len(match[1].lstrip("0")) > 18]
    if long:
        raise VideoError(f"{uri}: the number of {long[0]} has more than 18 digits: rename the pictures.")
    pictures = sorted((int(match[1]), file) for match, file in matches)
    for (number, one), (following, other) in pairwise(pictures):
        if number == following:
            raise VideoError(
                f"{uri} has two pictures numbered {number}, {name(one)} and {name(other)}: keep one sequence in a "
                "folder."
            )
    return pictures


def read_picture(uri: str) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB, turned as its EXIF orientation says. VideoError if it cannot be read."""
    try:
        data = read_bytes(uri)
        width, height = stated_size(data)
        refuse_large(width, height, uri)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if width else None
    except (OSError, cv2.error) as error:
        raise unreadable(uri, error) from error
    if picture is None:
        raise VideoError(f"{uri} is not a picture that can be decoded.")
    return picture


def stated_size(data: bytes) -> tuple[int, int]:
    """(width, height) in the header of a PNG or JPEG, before anything is decoded; (0, 0) where it states none.

    ISO/IEC 15948, 11.2.2 (IHDR comes first) and ISO/IEC 10918-1, B.1 (segments with their length up to the frame's).
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes before a marker
            at += 1
        elif marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + max(2, *struct.unpack_from(">H", data, at + 2))
    return 0, 0


def folder_pictures(uri: str, start: int, stop: int) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Pictures [start, stop) of a folder. VideoTooShortError if it has fewer by now."""
    files = numbered_pictures(uri)
    if len(files) < stop:
        raise VideoTooShortError(
            f"{uri} has {len(files)} pictures left, and frames {start} to {stop - 1} were asked for."
        )
    for _, file in files[start:stop]:
        yield read_picture(file)
