"""Which videos of a folder belong to one trial, by name: `trial1-cam2` is camera 2 of trial 1.

A name is runs of digits and of letters, with separators between them. A camera can be seen in a name where the runs
that tell it from the other cameras of the calibration follow each other, numbers by value (`cam01` of `cam01` to
`cam04` is seen in `view1`). What is left of a name without its camera is its trial, letter by letter.

A camera is often seen in several places: 1 and 2 both in `trial1-cam2`. A reading takes one place in each name:
1. where each name has one place at which the camera is named in full, or after the word `cam`, it is that place;
2. where each name has one place at all, it is that place;
3. otherwise every position, counted from the start or from the end, is a reading of its own.
A reading counts if it makes a capture: a trial with two cameras. If two readings make captures that contradict each
other, the names do not tell, and both readings are named. So they are where a number may be two written together
(`walk11`, of cameras 1 and 11).
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mvpose.archive.camera_names import Matching, match_cameras, matching_of
from mvpose.errors import CalibrationError

_RUN = re.compile(r"[cC][aA][mM](?:[eE][rR][aA])?|[^\W\d_]+|\d+")
_CAM_BEFORE_MARK = re.compile(r"(?<![^\W\d_])cam(?:era)?[-_ ]?\0", re.IGNORECASE)
MARK = "\0"
"""Stands in a trial for the camera that was taken out: no file name has it."""
NAMED = 4
WIDEST = 20
"""Digits or letters of a camera up to which two parts written together are looked for."""


@dataclass(frozen=True)
class Place:
    """Where a camera is seen in a name."""

    camera: str
    first: int
    """Run at which it begins, counted from the start of the name."""
    last: int
    """Run at which it ends, counted from the end."""
    trial: str
    """The rest of the name, with `MARK` for the camera."""
    is_named: bool
    """Whether the camera's full name is there, and it is more than a number, or the word `cam` is before it."""


Reading = dict[str, Place]
"""One place in each name that has any."""
Captures = dict[str, dict[str, str]]
"""Footage by camera, by trial."""


@dataclass(frozen=True)
class Grouping:
    """The trials that a folder's names tell of."""

    trials: dict[str, Matching]
    """By a name to show; that of a folder's only trial is empty."""
    is_named: bool
    """Whether every camera was named in full, or after the word `cam`, or is all that the name says."""

    @property
    def has_captures(self) -> bool:
        """Whether a trial has two cameras."""
        return any(len(matching.footage) > 1 for matching in self.trials.values())


def trials(cameras: Sequence[str], footage: Sequence[str]) -> Grouping:
    """The trials that videos of one folder belong to, each with its cameras; names without suffix.

    CalibrationError, naming the readings, where names can be read in two ways, where two files are the same camera
    of one trial, or where no camera is seen in any name.
    """
    rig = _Rig(cameras)
    places = {f: found for f in footage if (found := rig.places(f))}
    if not places:
        return Grouping({"": _one_trial(cameras, footage)}, False)
    named = {f: [p for p in found if p.is_named] for f, found in places.items()}
    by_name = all(len(found) == 1 for found in named.values())
    single = named if by_name else places
    if all(len(found) == 1 for found in single.values()):
        readings = [{f: found[0] for f, found in single.items()}]
    else:
        readings = list(_by_position(places))
    chosen = _only_reading(readings, list(rig.glued(footage, by_name)))
    is_all = all(place.trial == MARK for place in chosen.values())
    return Grouping(_shown(_captures(chosen), cameras, footage), by_name or is_all)


def without_camera(camera: str, footage: str) -> str:
    """A name without the one place at which this camera is named in full or after `cam`; else the name itself."""
    named = [p for p in _Rig([camera]).places(footage) if p.is_named]
    return named[0].trial if len(named) == 1 else footage


def _one_trial(cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Names in which no camera is seen, by the rules of `camera_names`, as long as they differ in numbers alone."""
    matching = match_cameras(cameras, footage)
    paired = [f for f in matching.footage.values() if not any(f in camera for camera in cameras)]
    numbered = [f for f in matching.footage_alone if paired and re.search(r"\d", f)]
    if len({re.sub(r"\d+", "0", f) for f in (*paired, *numbered)}) > 1:
        raise one_or_several([*paired, *numbered])
    return matching


def two_files(one: str, other: str) -> CalibrationError:
    """The error for two files that are one, or may be."""
    return CalibrationError(
        f"{one} and {other} may be two files of one camera or of one trial. Keep the one that is meant in this folder, "
        "or name it in a capture.toml."
    )


def one_or_several(names: Sequence[str]) -> CalibrationError:
    """The error for files of which no two are cameras of one trial, by their names."""
    return CalibrationError(
        f"the videos {_some(names)} may be one trial, or one of each of {len(names)} trials: their names differ in "
        "more than the camera. Name them alike, or pair them in a capture.toml."
    )


def _by_position(places: Mapping[str, list[Place]]) -> Iterator[Reading]:
    """For each position from the start or the end, the camera that is seen there; the longest and the shortest."""
    for order in (1, -1):
        for side in ("last", "first"):
            found: dict[int, Reading] = defaultdict(dict)
            for name, own in places.items():
                for place in sorted(own, key=lambda p: order * len(p.trial)):
                    found[getattr(place, side)].setdefault(name, place)
            yield from found.values()


def _captures(reading: Reading) -> Captures:
    """CalibrationError where two files are one camera of one trial, or trials differ in upper and lower case alone."""
    captures: Captures = defaultdict(dict)
    spelled: dict[str, str] = {}
    for name, place in reading.items():
        before = captures[place.trial].setdefault(place.camera, name)
        alike = before if before != name else spelled.setdefault(place.trial.casefold(), name)
        if before != name or reading[alike].trial != place.trial:
            raise two_files(alike, name)
    return captures


def _only_reading(readings: Sequence[Reading], glued: Sequence[Reading]) -> Reading:
    """The reading with whose captures those of all others agree."""
    best = max(readings, key=lambda reading: (_pairs(reading), len(reading)))
    if not _pairs(best):
        names = {place.camera: name for name, place in best.items()}
        if len(names) > 1:
            raise one_or_several(list(names.values()))
        return best
    for other in (*readings, *glued):
        if not _agrees(other, best):
            raise _two_ways(best, other)
    return best


def _members(reading: Reading) -> Mapping[str, list[str]]:
    """The files of each trial that has two cameras."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, place in reading.items():
        members[place.trial].append(name)
    return {t: names for t, names in members.items() if len({reading[n].camera for n in names}) > 1}


def _pairs(reading: Reading) -> int:
    """How many files share a trial with another camera's."""
    return sum(map(len, _members(reading).values()))


def _agrees(other: Reading, best: Reading) -> bool:
    """Whether each capture of one reading is one, or a part of one, of the other."""
    return all(
        all(n in best and best[n].camera == other[n].camera for n in names) and len({best[n].trial for n in names}) == 1
        for names in _members(other).values()
    )


def _two_ways(one: Reading, other: Reading) -> CalibrationError:
    differ = [n for n in one if n in other and (one[n].camera, one[n].trial) != (other[n].camera, other[n].trial)]
    name = differ[0] if differ else next(iter(one))
    told = [f"camera {r[name].camera} of trial {_plain(r[name].trial) or '(none)'}" for r in (one, other) if name in r]
    return CalibrationError(
        f"the names of the videos can be read in two ways: {name} is {', or '.join(told)}. Put `cam` before the camera "
        "in the names (trial1-cam2), or the videos of each trial in a folder of its own."
    )


def shown_trials(trials: Sequence[str]) -> list[str]:
    """Names to show, which tell the trials apart."""
    plain = [_plain(trial) for trial in trials]
    return [p if plain.count(p) == 1 else t.replace(MARK, "*") for p, t in zip(plain, trials, strict=True)]


def _plain(trial: str) -> str:
    text = _CAM_BEFORE_MARK.sub(" ", trial).replace(MARK, " ")
    return "-".join(re.findall(r"[^\W_]+", text))


def _shown(captures: Captures, cameras: Sequence[str], footage: Sequence[str]) -> dict[str, Matching]:
    if len(captures) == 1:
        (pairs,) = captures.values()
        return {"": matching_of(pairs, cameras, footage)}
    rows = zip(shown_trials(list(captures)), captures.values(), strict=True)
    return {shown: matching_of(pairs, cameras, list(pairs.values())) for shown, pairs in rows}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


class _Rig:
    """The names of a calibration, as they are looked for in names of footage."""

    def __init__(self, cameras: Sequence[str]) -> None:
        rows = [tuple(text for text, _, _ in _runs(camera)) for camera in cameras]
        before, after = _all_share(rows), _all_share([row[::-1] for row in rows])
        shortest = min(map(len, rows), default=0)
        if len(rows) < 2 or before + after >= shortest:  # nothing that all share may be left of a name
            before = after = 0
        self._before = before
        self._full = dict(zip(cameras, rows, strict=True))
        keys = [row[before : len(row) - after] for row in rows]
        times = Counter(keys)
        self._keys = {key: camera for key, camera in zip(keys, cameras, strict=True) if key and times[key] == 1}
        self._lengths = {len(key) for key in self._keys}

    def places(self, name: str) -> list[Place]:
        """Everywhere that a camera is seen in a name."""
        runs = _runs(name)
        found: list[Place] = []
        for first in range(len(runs)):
            for length in self._lengths:
                own = runs[first : first + length]
                camera = self._keys.get(tuple(text for text, _, _ in own)) if len(own) == length else None
                if camera is not None:
                    is_named = self._is_named(camera, [text for text, _, _ in runs], first)
                    trial = name[: runs[first][1]] + MARK + name[runs[first + length - 1][2] :]
                    found.append(Place(camera, first, len(runs) - first - length, trial, is_named))
        return found

    def _is_named(self, camera: str, runs: Sequence[str], first: int) -> bool:
        full = self._full[camera]
        start = first - self._before
        is_full = start >= 0 and tuple(runs[start : start + len(full)]) == full
        is_more_than_a_number = any(not text.isdecimal() for text in full) or len(full) > 1
        return (is_full and is_more_than_a_number) or (first > 0 and runs[first - 1].lower() in ("cam", "camera"))

    def glued(self, footage: Sequence[str], by_name: bool) -> Iterator[Reading]:
        """Readings in which trial and camera touch within a run, the camera at its end or its start, of one width.

        They speak against another reading only if they explain all names. A camera that is named is not cut at its
        start.
        """
        longest = max(stop - start for name in footage for _, start, stop in _runs(name))
        most = max(len(_runs(name)) for name in footage)
        for width in range(1, min(longest, WIDEST)):
            for position in range(most):
                for is_first in (True,) if by_name else (True, False):
                    reading = {}
                    for name in footage:
                        place = self._cut(name, position, width, is_first)
                        if place is None:
                            break
                        reading[name] = place
                    else:
                        yield reading

    def _cut(self, name: str, position: int, width: int, is_first: bool) -> Place | None:
        runs = _runs(name)
        if position >= len(runs):
            return None
        _, start, stop = runs[position if is_first else -1 - position]
        cut = (start, start + width) if is_first else (stop - width, stop)
        camera = self._keys.get((_value(name[slice(*cut)]),)) if start <= cut[0] and cut[1] <= stop else None
        if camera is None or not (name[cut[1] :] if is_first else name[: cut[0]]):
            return None  # a trial has a name
        return Place(camera, position, position, name[: cut[0]] + MARK + name[cut[1] :], False)


@functools.lru_cache(maxsize=8192)
def _runs(name: str) -> tuple[tuple[str, int, int], ...]:
    """Runs of letters and of digits, with start and end; numbers without leading zeros. `camA` is `cam` and `A`."""
    return tuple((_value(match[0]), match.start(), match.end()) for match in _RUN.finditer(name))


def _value(run: str) -> str:
    return run.lstrip("0") or "0" if run.isdecimal() else run


def _all_share(rows: Sequence[tuple[str, ...]]) -> int:
    """How many first runs are the same in all."""
    return next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), 0)
