"""Which video belongs to which calibrated camera, by name.

Three rules, in this order, each for what the ones before it left over:
1. the names are equal;
2. one name stands in the other as a word (`cam01` in `int_cam01_img`, `00_00` in `hd_00_00`, `A` in `vid1-camA`);
3. their numbers are equal (`int_cam1_img` and `cam01`); of several numbers, those that all names share are put aside.
A rule pairs two names only if each is the other's only choice; a name with several choices is an error, not a guess.
Which of the videos in a folder belong to one trial is told by `mvpose.archive.trial_names`, before these rules.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvpose.errors import CalibrationError

MAX_FOOTAGE = 1024
"""Videos of one capture. Each is tried with each camera, of which no calibration has more either."""
MAX_PAIRS = 1 << 21
"""Cameras times videos of one folder, which may hold several trials: as many names are searched for each other."""


@dataclass(frozen=True)
class Matching:
    """Cameras with their footage, in the order of the calibration, and what is left over on either side."""

    footage: dict[str, str]
    """Name of the footage by name of the camera."""
    cameras_alone: tuple[str, ...]
    footage_alone: tuple[str, ...]


def match_cameras(cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Pair calibrated cameras with the names of videos (without suffix).

    CalibrationError, with both lists, if a name has several possible partners or nothing fits at all.
    """
    if len(footage) > MAX_FOOTAGE:
        raise CalibrationError(f"{len(footage)} videos are in one capture, above the limit of {MAX_FOOTAGE}.")
    pairs: dict[str, str] = {}
    by_number = _equal_numbers(cameras, footage)
    for fits in (str.__eq__, _one_in_the_other, by_number):
        left = [c for c in cameras if c not in pairs]
        free = [f for f in footage if f not in pairs.values()]
        pairs |= _only_choices(left, free, fits)
    if not pairs:
        raise CalibrationError(f"no name of a video fits a name of the calibration. {_both(cameras, footage)}")
    return matching_of(pairs, cameras, footage)


def matching_of(pairs: dict[str, str], cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Pairs of camera and footage with what is left over of both."""
    used = set(pairs.values())
    return Matching(
        footage={c: pairs[c] for c in cameras if c in pairs},
        cameras_alone=tuple(c for c in cameras if c not in pairs),
        footage_alone=tuple(f for f in footage if f not in used),
    )


def _only_choices(cameras: list[str], footage: list[str], fits: Callable[[str, str], bool]) -> dict[str, str]:
    choices = {c: [f for f in footage if fits(c, f)] for c in cameras}
    times = Counter(f for fitting in choices.values() for f in fitting)
    for camera, fitting in choices.items():
        if len(fitting) > 1:
            raise CalibrationError(f"camera {camera} fits several videos. {_both(cameras, footage)}")
        if fitting and times[fitting[0]] > 1:
            raise CalibrationError(f"video {fitting[0]} fits several cameras. {_both(cameras, footage)}")
    return {camera: fitting[0] for camera, fitting in choices.items() if fitting}


def _both(cameras: Sequence[str], footage: Sequence[str]) -> str:
    return (
        f"Cameras of the calibration: {', '.join(cameras)}. Videos: {', '.join(footage)}. Rename the videos, or pair "
        "them in a capture.toml."
    )


def _one_in_the_other(camera: str, footage: str) -> bool:
    return bool(_word(camera).search(footage) or _word(footage).search(camera))


@functools.lru_cache(maxsize=4096)
def _word(name: str) -> re.Pattern[str]:
    """`name` where neither a digit goes on its number nor a letter its word; a `cam` before it belongs to it."""
    before = r"(?<!\d)" if name[:1].isdigit() else r"(?<![^\W\d_])" if name[:1].isalpha() else ""
    after = r"(?!\d)" if name[-1:].isdigit() else r"(?![^\W\d_])" if name[-1:].isalpha() else ""
    return re.compile(rf"(?:(?<![^\W\d_])(?:cam|Cam|CAM)(?:era)?[-_ ]?|{before}){re.escape(name)}{after}")


def _equal_numbers(cameras: Sequence[str], footage: Sequence[str]) -> Callable[[str, str], bool]:
    of_camera, of_footage = _telling_numbers(cameras), _telling_numbers(footage)
    return lambda c, f: bool(of_camera[c]) and of_camera[c] == of_footage[f]


def _telling_numbers(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers in each name, without the positions at which all names have the same one."""
    rows = [tuple(int(n) for n in re.findall(r"\d{1,18}", name)) for name in names]
    if len(names) > 1 and len({len(row) for row in rows}) == 1:
        telling = [len(set(column)) > 1 for column in zip(*rows, strict=True)]
        rows = [tuple(n for n, tells in zip(row, telling, strict=True) if tells) for row in rows]
    return dict(zip(names, rows, strict=True))
