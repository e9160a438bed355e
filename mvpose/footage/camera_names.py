"""Match videos to calibrated cameras by name.

Three rules are tried in order, each on the names that the previous rules left unmatched:
1. the names are equal;
2. one name contains the other as a word (`cam01` in `int_cam01_img`, `00_00` in `hd_00_00`, `A` in `vid1-camA`);
3. their numbers are equal (`int_cam1_img` and `cam01`). Numbers shared by all names are ignored.
A rule pairs two names only if each is the other's only candidate. Several candidates are an error, never a guess.
`mvpose.footage.trial_names` runs first and decides which videos of a folder belong to one trial.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvpose.errors import CalibrationError

MAX_FOOTAGE = 1024
"""Maximum number of videos in one capture. Each is compared with each camera; calibrations have the same limit."""
MAX_PAIRS = 1 << 21
"""Maximum of cameras times videos in one folder. A folder may hold several trials, and all pairs are compared."""


@dataclass(frozen=True)
class Matching:
    """Cameras with their footage, in calibration order, and the unmatched names on either side."""

    footage: dict[str, str]
    """Footage name by camera name."""
    cameras_alone: tuple[str, ...]
    footage_alone: tuple[str, ...]


def match_cameras(cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Pair calibrated cameras with the names of videos (without suffix).

    Raises CalibrationError, listing both sides, if a name has several candidates or if nothing matches.
    """
    if len(footage) > MAX_FOOTAGE:
        raise CalibrationError(f"one capture has {len(footage)} videos; the limit is {MAX_FOOTAGE}.")
    pairs: dict[str, str] = {}
    by_number = _equal_numbers(cameras, footage)
    for fits in (str.__eq__, _one_in_the_other, by_number):
        left = [c for c in cameras if c not in pairs]
        free = [f for f in footage if f not in pairs.values()]
        pairs |= _only_choices(left, free, fits)
    if not pairs:
        raise CalibrationError(
            f"no video name matches a camera name of the calibration. {_both_lists(cameras, footage)}"
        )
    refuse_shifted(pairs, cameras, footage)
    return matching_of(pairs, cameras, footage)


def refuse_shifted(pairs: dict[str, str], cameras: Sequence[str], footage: Sequence[str]) -> None:
    """CalibrationError if names are left on both sides, and all pair up when counted from another number.

    Calibration cam0 to cam3 with videos cam1 to cam4: three pairs are equal by name, and all four may be wrong.
    """
    of_camera, of_footage = _distinguishing_numbers(cameras), _distinguishing_numbers(footage)
    if len(pairs) == len(cameras) or len(cameras) != len(footage):
        return
    if any(len(numbers) != 1 for numbers in (*of_camera.values(), *of_footage.values())):
        return
    in_order = list(
        zip(sorted(cameras, key=of_camera.__getitem__), sorted(footage, key=of_footage.__getitem__), strict=True)
    )
    if len({of_footage[f][0] - of_camera[c][0] for c, f in in_order}) == 1:
        equal, shifted = (", ".join(f"{c} = {f}" for c, f in some) for some in (pairs.items(), in_order))
        raise CalibrationError(
            f"cameras and videos may be counted from different numbers: either {equal}, and the others are left out, "
            f"or {shifted}. {_both_lists(cameras, footage)}"
        )


def matching_of(pairs: dict[str, str], cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Build a Matching from camera-footage pairs; the remaining names are listed as unmatched."""
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
            raise CalibrationError(f"camera {camera} matches several videos. {_both_lists(cameras, footage)}")
        if fitting and times[fitting[0]] > 1:
            raise CalibrationError(f"video {fitting[0]} matches several cameras. {_both_lists(cameras, footage)}")
    return {camera: fitting[0] for camera, fitting in choices.items() if fitting}


def _both_lists(cameras: Sequence[str], footage: Sequence[str]) -> str:
    return (
        f"Cameras in the calibration: {', '.join(cameras)}. Videos: {', '.join(footage)}. Rename the videos, or pair "
        "them with cameras in a capture.toml."
    )


def _one_in_the_other(camera: str, footage: str) -> bool:
    return bool(_word(camera).search(footage) or _word(footage).search(camera))


@functools.lru_cache(maxsize=4096)
def _word(name: str) -> re.Pattern[str]:
    """Pattern for `name` as a word: no digit may extend its number and no letter its word. A `cam` prefix counts."""
    before = r"(?<!\d)" if name[:1].isdigit() else r"(?<![^\W\d_])" if name[:1].isalpha() else ""
    after = r"(?!\d)" if name[-1:].isdigit() else r"(?![^\W\d_])" if name[-1:].isalpha() else ""
    return re.compile(rf"(?:(?<![^\W\d_])(?:cam|Cam|CAM)(?:era)?[-_ ]?|{before}){re.escape(name)}{after}")


def _equal_numbers(cameras: Sequence[str], footage: Sequence[str]) -> Callable[[str, str], bool]:
    of_camera, of_footage = _distinguishing_numbers(cameras), _distinguishing_numbers(footage)
    return lambda c, f: bool(of_camera[c]) and of_camera[c] == of_footage[f]


def _distinguishing_numbers(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers in each name, without the positions at which all names have the same number."""
    rows = [tuple(int(n) for n in re.findall(r"\d{1,18}", name)) for name in names]
    if len(names) > 1 and len({len(row) for row in rows}) == 1:
        telling = [len(set(column)) > 1 for column in zip(*rows, strict=True)]
        rows = [tuple(n for n, distinguishes in zip(row, telling, strict=True) if distinguishes) for row in rows]
    return dict(zip(names, rows, strict=True))
