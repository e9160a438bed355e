"""A folder of numbered JPEG or PNG pictures as a video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator

import cv2
import numpy as np
from jaxtyping import UInt8

from mvpose.archive.locations import inputs, name, read_bytes
from mvpose.archive.video_container import refuse_large, unreadable
from mvpose.errors import VideoError, VideoTooShortError

_PICTURE = re.compile(r".*?(\d+)\D*\.(jpe?g|png)", re.IGNORECASE)


def numbered_pictures(uri: str) -> list[str]:
    """URIs of the pictures of a folder in the order of the last number in their names; frame 0 is the least.

    Numbers may step by more than one (every fifth frame kept), but evenly: a gap would shift all later frames against
    the other cameras, so that it is a VideoError, as are two pictures of one number and a folder without any.
    """
    try:
        matches = [(m, e.uri) for e in inputs(uri) if (m := _PICTURE.fullmatch(name(e.uri)))]
    except OSError as error:
        raise unreadable(uri, error) from error
    if not matches:
        raise VideoError(f"{uri} has no numbered JPEG or PNG pictures.")
    by_number = {int(match[1]): file for match, file in matches}
    numbers = sorted(by_number)
    if len(numbers) < len(matches):
        twice, _ = Counter(int(match[1]) for match, _ in matches).most_common(1)[0]
        raise VideoError(f"{uri} has several pictures numbered {twice}: keep one sequence in a folder.")
    missing = _missing(numbers)
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise VideoError(f"{uri}: {len(missing)} pictures are missing from the sequence, numbered {listed}.")
    return [by_number[number] for number in numbers]


def _missing(numbers: list[int]) -> list[int]:
    steps = np.diff(numbers)
    if not len(steps):
        return []
    return sorted(set(range(numbers[0], numbers[-1], int(steps.min()))) - set(numbers))


def read_picture(uri: str) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB, turned as its EXIF orientation says. VideoError if it cannot be read."""
    try:
        data = np.frombuffer(read_bytes(uri), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    except (OSError, cv2.error) as error:
        raise unreadable(uri, error) from error
    if picture is None:
        raise VideoError(f"{uri} is not a picture that can be decoded.")
    refuse_large(picture.shape[1], picture.shape[0], uri)
    return picture


def folder_pictures(uri: str, start: int, stop: int) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Pictures [start, stop) of a folder. VideoTooShortError if it has fewer by now."""
    files = numbered_pictures(uri)
    if len(files) < stop:
        raise VideoTooShortError(
            f"{uri} has {len(files)} pictures left, and frames {start} to {stop - 1} were asked for."
        )
    for file in files[start:stop]:
        yield read_picture(file)
