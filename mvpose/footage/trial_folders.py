"""Group videos into trials when a footage folder has subfolders: one per trial, or one per camera.

    t1/cam01 t1/cam02 t2/cam01 ...                  one folder per trial; it may hold several trials, by file name
    cam01/walk cam01/run cam02/walk ...             one folder per camera

`trial_names` tries both: the folder names, and the names of the files in each folder. If both can be cameras, the one
that is labelled as such (`cam01`, not a plain number) wins. If both or neither are labelled, the layout is ambiguous.

Recorders put a time or a counter into names, and the files of one recording may differ by one in it. Neighbouring
trials that differ in numbers alone and share no camera may therefore be halves of one recording, and are refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from mvpose.errors import CalibrationError
from mvpose.footage.camera_names import MAX_PAIRS, Matching, matching_of
from mvpose.footage.trial_names import (
    Grouping,
    one_or_several,
    shown_trials,
    trials,
    two_files,
    without_camera,
)

_NUMBER = re.compile(r"\d+")


class TrialError(CalibrationError):
    """Why trials cannot be distinguished, with the footage that this concerns."""

    def __init__(self, message: str, footage: Sequence[str]) -> None:
        super().__init__(message)
        self.footage = tuple(footage)


Trials = dict[str, Matching | TrialError]
"""The trials of some footage by display name, each with its cameras or with the error that makes it unusable."""


def all_trials(cameras: Sequence[str], footage: Sequence[str]) -> Trials:
    """The trials that videos belong to, from their paths below one folder, without suffix.

    Raises CalibrationError if the paths have two readings or none.
    """
    if len(cameras) * len(footage) > MAX_PAIRS:
        raise CalibrationError(
            f"{len(footage)} videos in one folder and {len(cameras)} cameras are too many to match by name. Put each "
            "trial in a separate folder."
        )
    if not any("/" in path for path in footage):
        return _whole(trials(cameras, footage).trials)
    inside: dict[str, list[str]] = defaultdict(list)
    for path in footage:
        folder, _, file = path.partition("/")
        inside[folder].append(file)
    by_folder = _tried(cameras, list(inside))
    by_file = {folder: _tried(cameras, files) for folder, files in inside.items()}
    of_files = [g for g in by_file.values() if isinstance(g, Grouping) and g.has_captures]
    if not isinstance(by_folder, Grouping) or not by_folder.has_captures:
        return _folder_a_trial(by_file, inside)
    if of_files and not by_folder.is_named and all(grouping.is_named for grouping in of_files):
        return _folder_a_trial(by_file, inside)
    if of_files and (not by_folder.is_named or any(grouping.is_named for grouping in of_files)):
        raise CalibrationError(
            f"the folders {', '.join(list(inside)[:2])} may be cameras, with one file per trial, or trials, with one "
            "file per camera. Put `cam` before the camera in the names (cam01), or list the videos in a capture.toml."
        )
    return _folder_a_camera(cameras, by_folder, inside)


def _tried(cameras: Sequence[str], names: Sequence[str]) -> Grouping | CalibrationError:
    try:
        return trials(cameras, names)
    except CalibrationError as error:
        return error


def _folder_a_trial(by_file: Mapping[str, Grouping | CalibrationError], inside: Mapping[str, Sequence[str]]) -> Trials:
    found: Trials = {}
    for folder, grouping in by_file.items():
        if isinstance(grouping, CalibrationError):
            found[folder] = TrialError(str(grouping), [f"{folder}/{file}" for file in inside[folder]])
            continue
        for trial, matching in _whole(grouping.trials).items():
            found[f"{folder}/{trial}" if trial else folder] = (
                TrialError(str(matching), [f"{folder}/{file}" for file in matching.footage])
                if isinstance(matching, TrialError)
                else Matching(
                    {camera: f"{folder}/{file}" for camera, file in matching.footage.items()},
                    matching.cameras_alone,
                    tuple(f"{folder}/{file}" for file in matching.footage_alone),
                )
            )
    return found


def _folder_a_camera(cameras: Sequence[str], by_folder: Grouping, inside: Mapping[str, Sequence[str]]) -> Trials:
    pairs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for outer, matching in by_folder.trials.items():
        for camera, folder in matching.footage.items():
            for file in inside[folder]:
                path = f"{folder}/{file}".rstrip("/")
                before = pairs[outer, without_camera(camera, file)].setdefault(camera, path)
                if before != path:
                    raise two_files(before, path)
    if all(len(own) < 2 for own in pairs.values()):
        raise one_or_several([path for own in pairs.values() for path in own.values()])
    shown = shown_trials([f"{outer} {inner}" for outer, inner in pairs])
    return _whole(
        {trial: matching_of(own, cameras, list(own.values())) for trial, own in zip(shown, pairs.values(), strict=True)}
    )


def _whole(found: Mapping[str, Matching]) -> Trials:
    """The trials, with an error in place of those that may be halves of one recording."""
    alike: dict[str, list[str]] = defaultdict(list)
    for trial in sorted(found, key=lambda trial: [int(number) for number in _NUMBER.findall(trial)]):
        alike[_NUMBER.sub("0", trial)].append(trial)
    whole: Trials = {**found}
    for names in alike.values():
        for one, other in pairwise(names):
            if not found[one].footage.keys() & found[other].footage.keys():
                whole[one] = whole[other] = _halves(found[one], found[other])
    return whole


def _halves(one: Matching, other: Matching) -> TrialError:
    first, second = (", ".join(list(matching.footage.values())[:2]) for matching in (one, other))
    return TrialError(
        f"{first} and {second} may be one recording, whose names differ by a time or a counter, or two trials of "
        "different cameras. Give the videos of a recording one name but for the camera, list them in a capture.toml, "
        "or put those of each trial in a separate folder.",
        [footage for each in (one, other) for footage in (*each.footage.values(), *each.footage_alone)],
    )
