"""Group the videos of a folder into trials by name: `trial1-cam2` is camera 2 of trial 1.

A name consists of runs of digits and runs of letters, with separators between them. A camera is seen in a name where
the distinctive part of its calibration name occurs, with numbers compared by value (`cam01` of `cam01` to `cam04` is
seen in `view1`): at whole runs, or cut out of a run (`A` in `walkA`). The rest of the name, letter by letter, is its
trial.

A camera is often seen in several places: 1 and 2 both in `trial1-cam2`. A reading is one rule for all names:
- where: the camera starts or ends a fixed number of characters or runs from the start or the end of the name, or is
  marked by the name itself, or is the only one at whole runs;
- how far: as long as whole runs allow, or a fixed number of characters in all names.
A reading counts if it yields a capture (a trial with two cameras) and places every name in which a camera is seen at
whole runs. A reading of whole runs alone counts even without that. The reading that places the most names wins if all
other readings that count agree with it, and if it adds no cut places to a reading of whole runs alone. Otherwise the
names are ambiguous, and the error names two readings. Names in which no camera is seen are ignored.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from mvpose.errors import CalibrationError
from mvpose.footage.camera_names import Matching, match_cameras, matching_of, refuse_shifted

_RUN = re.compile(r"[cC][aA][mM](?:[eE][rR][aA])?|[^\W\d_]+|\d+")
_CAM_BEFORE_MARK = re.compile(r"(?<![^\W\d_])cam(?:era)?[-_ ]?\0", re.IGNORECASE)
_NUMBER, _SEPARATORS = re.compile(r"\d+"), re.compile(r"[\W_]+")
CAM = ("cam", "camera")
MARK = "\0"
"""Replaces the camera in a trial's text. It occurs in no file name."""
NAMED = 4
WIDEST = 20
"""Maximum number of digits of a camera that is cut out of a longer number."""


@dataclass(frozen=True)
class Place:
    """Where a camera is seen in a name."""

    camera: str
    start: int
    stop: int
    trial: str
    """The rest of the name, with `MARK` in place of the camera."""
    first: int | None
    """The run at whose start the camera starts; None inside a run."""
    last: int | None
    """The run at whose end the camera ends; None inside a run."""
    is_marked: bool
    """Whether the word `cam` precedes it, or it is the calibration's full name with several runs."""

    @property
    def edges(self) -> int:
        """How many of its two ends coincide with ends of runs."""
        return (self.first is not None) + (self.last is not None)

    @property
    def is_whole(self) -> bool:
        """Whether it starts and ends with runs."""
        return self.edges == 2


Rule = tuple[str, int, int]
"""The kind of place, the position counted from there, and the camera's length: 0 for as many characters as whole runs
allow."""
Reading = dict[str, Place]
"""The place of the camera in each name in which a rule sees one."""
Captures = dict[str, dict[str, str]]
"""Footage by camera, by trial."""


@dataclass(frozen=True)
class Grouping:
    """The trials found in a folder's names."""

    trials: dict[str, Matching]
    """By display name; empty for a folder's only trial."""
    is_named: bool
    """Whether the camera is marked in every name, or every name consists of the camera alone."""

    @property
    def has_captures(self) -> bool:
        """Whether a trial has two cameras."""
        return any(len(matching.footage) > 1 for matching in self.trials.values())


def trials(cameras: Sequence[str], footage: Sequence[str]) -> Grouping:
    """The trials that videos of one folder belong to, each with its cameras; names without suffix.

    Raises CalibrationError, naming the readings, if names can be read in two ways, if two files are the same camera
    of one trial, or if no camera is seen in any name.
    """
    rig = _Rig(cameras)
    places = {f: found for f in footage if (found := rig.places(f))}
    marks = {f: {p.start for p in found if p.is_marked} for f, found in places.items()}
    whole = {f for f, found in places.items() if any(p.is_whole for p in found)}
    # In `trial1-cam4` of a calibration without camera 4, the 1 is not a camera if the others are marked by `cam`.
    foreign = {f for f in places if not marks[f] and _has_cam(f)}
    if whole - foreign and all(len(marks[f]) == 1 for f in whole - foreign):
        whole -= foreign
        places = {
            f: [p for p in found if p.start in marks[f] or not marks[f]]
            for f, found in places.items()
            if f not in foreign
        }
    chosen = _only_reading(_readings(places), whole)
    if chosen is None:
        return Grouping({"": _one_trial(cameras, footage)}, False)
    is_all = all(place.trial == MARK for place in chosen.values())
    is_marked = all(place.is_marked for place in chosen.values())
    return Grouping(_shown(_captures(chosen), cameras, footage), is_marked or is_all)


def without_camera(camera: str, footage: str) -> str:
    """A name without the only place that names this camera by more than a number; otherwise the name unchanged."""
    places = _Rig([camera]).places(footage)
    named = [p for p in places if p.is_marked or (p.is_whole and not camera.isdecimal())]
    return named[0].trial if len(named) == 1 else footage


def _one_trial(cameras: Sequence[str], footage: Sequence[str]) -> Matching:
    """Match names in which no camera is seen by the rules of `camera_names`, if they differ only in numbers."""
    matching = match_cameras(cameras, footage)
    paired = [f for f in matching.footage.values() if not any(f in camera for camera in cameras)]
    numbered = [f for f in matching.footage_alone if paired and re.search(r"\d", f)]
    if len({re.sub(r"\d+", "0", f) for f in (*paired, *numbered)}) > 1:
        raise one_or_several([*paired, *numbered])
    return matching


def _readings(places: Mapping[str, Sequence[Place]]) -> Mapping[Rule, Reading]:
    """The reading of each rule. Of several cameras that start or end at one place, the longest is taken."""
    readings: dict[Rule, Reading] = defaultdict(dict)
    for name, found in places.items():
        for place in sorted(found, key=lambda p: p.start - p.stop):
            for rule in _rules(place, name):
                readings[rule].setdefault(name, place)
        whole = [place for place in found if place.is_whole]
        if len(whole) == 1:
            readings["only", 0, 0][name] = whole[0]
    return readings


def _rules(place: Place, name: str) -> Iterator[Rule]:
    """The rules under which the camera is seen at this place."""
    width, after, runs = place.stop - place.start, len(name) - place.stop, len(_runs(name))
    if name[place.stop :][:1].isalnum():  # the trial follows without a separator
        yield "begins", place.start, width
    if name[: place.start][-1:].isalnum():
        yield "ends", after, width
    if place.last is not None:
        yield "begins", place.start, 0
    if place.first is not None:
        yield "ends", after, 0
    if place.first is not None and place.last is not None:
        yield "first run", place.first, 0
        yield "last run", place.last, 0
        yield "first run from the end", runs - place.first, 0
        yield "last run from the end", runs - place.last, 0
        if place.is_marked:
            yield "marked", 0, 0


def _only_reading(readings: Mapping[Rule, Reading], whole: Set[str]) -> Reading | None:
    """The reading on which all that count agree; None if no camera is seen at whole runs and no reading counts.

    `whole`: the names in which a camera is seen at whole runs.
    """
    counts = [
        reading
        for (_, _, width), reading in readings.items()
        if _makes_captures(reading) and (whole <= reading.keys() or (width == 0 and _is_whole(reading)))
    ]
    single = [reading for reading in counts if _twice(reading) is None]
    if not single:
        return _without_captures(counts or list(readings.values()), whole)
    best = max(single, key=lambda r: (whole <= r.keys(), len(r), sum(place.edges for place in r.values())))
    # `1_11` next to `1_01` and `1_02` may be camera 11, or of trial 1_1: cut places add nothing to whole ones.
    contrary = [r for r in single if not _is_part(r, best) or (_is_whole(r) and not _is_whole(best))]
    if contrary:
        raise _two_ways(best, max(contrary, key=len))
    for name in whole - best.keys():
        raise _two_ways(best, next(r for r in readings.values() if name in r))
    _require_one_place(readings, best)
    return best


def _require_one_place(readings: Mapping[Rule, Reading], best: Reading) -> None:
    """CalibrationError if a camera that is a plain number has another place in some names than in the others.

    Next to `11_1` and `11_2` of cameras 1 and 2, `1_11` may be camera 1 of trial 11, or trial 1 of a camera 11.
    """
    fixed = [{n: p for n, p in r.items() if best.get(n) == p} for rule, r in readings.items() if rule[0] != "only"]
    most = max(fixed, key=len)
    if any(n[p.start : p.stop].isdecimal() and not p.is_marked for n, p in best.items() if n not in most):
        raise _two_ways(best, most)


def _without_captures(readings: Sequence[Reading], whole: Set[str]) -> Reading | None:
    if not whole:
        return None
    best = max(readings, key=len)
    if (two := _twice(best)) is not None:
        raise two_files(*two)
    names = {place.camera: name for name, place in best.items()}
    if len(names) > 1:
        raise one_or_several(list(names.values()))
    return best


def _makes_captures(reading: Reading) -> bool:
    return len({(p.trial, p.camera) for p in reading.values()}) > len({p.trial for p in reading.values()})


def _is_whole(reading: Reading) -> bool:
    return all(place.is_whole for place in reading.values())


def _twice(reading: Reading) -> tuple[str, str] | None:
    """Two files that are one camera of one trial, or of trials that differ only in letter case."""
    of_cell: dict[tuple[str, str], str] = {}
    spelled: dict[str, str] = {}
    for name, place in reading.items():
        before = of_cell.setdefault((place.trial, place.camera), name)
        alike = spelled.setdefault(place.trial.casefold(), name)
        if before != name:
            return before, name
        if reading[alike].trial != place.trial:
            return alike, name
    return None


def _is_part(other: Reading, best: Reading) -> bool:
    """Whether the best reading contains everything that the other one states."""
    if not all(name in best and best[name].camera == place.camera for name, place in other.items()):
        return False
    both = {(place.trial, best[name].trial) for name, place in other.items()}
    return len(both) == len({mine for mine, _ in both}) == len({theirs for _, theirs in both})


def _captures(reading: Reading) -> Captures:
    captures: Captures = defaultdict(dict)
    for name, place in reading.items():
        captures[place.trial][place.camera] = name
    return captures


def two_files(one: str, other: str) -> CalibrationError:
    """The error for two files that are, or may be, the same video."""
    return CalibrationError(
        f"{one} and {other} may be two files of one camera or of one trial. Keep only one of them in this folder, "
        "or name the right one in a capture.toml."
    )


def one_or_several(names: Sequence[str]) -> CalibrationError:
    """The error for files of which no two are, by their names, cameras of one trial."""
    return CalibrationError(
        f"the videos {_some(names)} may be one trial, or one video each of {len(names)} trials: their names differ in "
        "more than the camera. Use consistent names, or list the videos in a capture.toml."
    )


def _two_ways(one: Reading, other: Reading) -> CalibrationError:
    """The error for two readings, with the first name on which they differ."""
    said = [{n: (place.camera, place.trial) for n, place in reading.items()} for reading in (one, other)]
    name = next(n for n in {**one, **other} if said[0].get(n) != said[1].get(n))
    readings_text = [
        f"camera {r[name].camera} of trial {_plain(r[name].trial) or '(none)'}" if name in r else "not a camera"
        for r in (one, other)
    ]
    return CalibrationError(
        f"the names of the videos can be read in two ways: {name} is {readings_text[0]}, or {readings_text[1]}. "
        "Put `cam` before the camera in the names (trial1-cam2), or put the videos of each trial in a separate folder."
    )


def shown_trials(trials: Sequence[str]) -> list[str]:
    """Unique display names for trials."""
    plain = [_plain(trial) for trial in trials]
    return [p if plain.count(p) == 1 else t.replace(MARK, "*") for p, t in zip(plain, trials, strict=True)]


def _plain(trial: str) -> str:
    text = _CAM_BEFORE_MARK.sub(" ", trial).replace(MARK, " ")
    return "-".join(re.findall(r"[^\W_]+", text))


def _shown(captures: Captures, cameras: Sequence[str], footage: Sequence[str]) -> dict[str, Matching]:
    placed = {name for pairs in captures.values() for name in pairs.values()}
    for trial, pairs in captures.items():
        numbered = re.compile(re.escape(trial).replace(re.escape(MARK), r"\d+"))
        others = [name for name in footage if name not in placed and numbered.fullmatch(name)]
        refuse_shifted(pairs, cameras, [*pairs.values(), *others])
    if len(captures) == 1:
        return {"": matching_of(next(iter(captures.values())), cameras, footage)}
    rows = zip(shown_trials(list(captures)), captures.values(), strict=True)
    return {shown: matching_of(pairs, cameras, list(pairs.values())) for shown, pairs in rows}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


class _Rig:
    """The camera names of a calibration, prepared for searching in footage names."""

    def __init__(self, cameras: Sequence[str]) -> None:
        rows = [_runs(camera) for camera in cameras]
        texts = [tuple(text for text, _, _ in row) for row in rows]
        before, after = _all_share(texts), _all_share([row[::-1] for row in texts])
        shortest = min(map(len, rows), default=0)
        if len(rows) < 2 or before + after >= shortest:  # the common parts may cover a whole name
            before = after = 0
        self._before, self._after = before, after
        self._full = {camera: _value(camera) for camera, row in zip(cameras, rows, strict=True) if len(row) > 1}
        own = [row[before : len(row) - after] for row in rows]
        cores = [c[row[0][1] : row[-1][2]] if row else "" for c, row in zip(cameras, own, strict=True)]
        times = Counter(map(_value, cores))
        telling = [(c, core, len(row)) for c, core, row in zip(cameras, cores, own, strict=True) if core]
        telling = [(c, core, runs) for c, core, runs in telling if times[_value(core)] == 1]
        self._core = {c: core for c, core, _ in telling}
        self._of_value = {_value(core): c for c, core, _ in telling}
        self._of_text = {core: c for c, core, _ in telling if not core.isdecimal()}
        self._runs = {runs for _, _, runs in telling}
        self._lengths = set(map(len, self._of_text))
        self._has_numbers = len(self._of_text) < len(telling)

    def places(self, name: str) -> list[Place]:
        """All places in a name at which a camera is seen."""
        runs = _runs(name)
        starts = {start: i for i, (_, start, _) in enumerate(runs)}
        stops = {stop: i for i, (_, _, stop) in enumerate(runs)}
        found = []
        for start, stop, camera in dict.fromkeys((*self._whole(name), *self._cut(name))):
            first, last = starts.get(start), stops.get(stop)
            is_marked = first is not None and self._is_marked(camera, name, first, last)
            found.append(Place(camera, start, stop, name[:start] + MARK + name[stop:], first, last, is_marked))
        written = [p for p in found if p.is_whole and p.is_marked and p.camera in name]
        return [p for p in found if not any(self._is_inside(p, other, name) for other in written)]

    def _is_inside(self, place: Place, other: Place, name: str) -> bool:
        """Whether a camera is only part of another's name: `left` of `left_top`, or 00 (not 0) as the 0 of 10."""
        if place == other or place.start < other.start or place.stop > other.stop:
            return False
        return place.is_whole or name[place.start : place.stop] != self._core[place.camera]

    def _whole(self, name: str) -> Iterator[tuple[int, int, str]]:
        runs = _runs(name)
        for count in self._runs:
            for (_, start, _), (_, _, stop) in zip(runs, runs[count - 1 :], strict=False):
                if (camera := self._of_value.get(_value(name[start:stop]))) is not None:
                    yield start, stop, camera

    def _cut(self, name: str) -> Iterator[tuple[int, int, str]]:
        """Numbers inside longer numbers, by value; all other cameras letter by letter."""
        for length in self._lengths:
            for start in range(len(name) - length + 1):
                if (camera := self._of_text.get(name[start : start + length])) is not None:
                    yield start, start + length, camera
        for text, begin, end in _runs(name) if self._has_numbers else ():
            for start in range(begin, end if text.isdecimal() else begin):
                for stop in range(start + 1, min(end, start + WIDEST) + 1):
                    if (camera := self._of_value.get(_value(name[start:stop]))) is not None:
                        yield start, stop, camera

    def _is_marked(self, camera: str, name: str, first: int, last: int | None) -> bool:
        runs = _runs(name)
        if first > 0 and runs[first - 1][0].lower() in CAM:
            return True
        if last is None or first < self._before or last + self._after >= len(runs):
            return False
        full = name[runs[first - self._before][1] : runs[last + self._after][2]]
        return _value(full) == self._full.get(camera)


def _has_cam(name: str) -> bool:
    """Whether the word `cam` is in a name, followed by something else."""
    return any(text.lower() in CAM for text, _, _ in _runs(name)[:-1])


@functools.lru_cache(maxsize=8192)
def _runs(name: str) -> tuple[tuple[str, int, int], ...]:
    """Runs of letters and of digits, with start and end; numbers without leading zeros. `camA` is `cam` and `A`."""
    return tuple((_value(match[0]), match.start(), match.end()) for match in _RUN.finditer(name))


@functools.lru_cache(maxsize=8192)
def _value(text: str) -> str:
    """Normalised text for comparing names: numbers without leading zeros, all separators alike."""
    return _SEPARATORS.sub("_", _NUMBER.sub(lambda match: match[0].lstrip("0") or "0", text))


def _all_share(rows: Sequence[tuple[str, ...]]) -> int:
    """Number of leading runs that are the same in all rows."""
    return next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), 0)
