"""Which videos belong to one trial where a folder of footage has folders of its own: one a trial, or one a camera.

    t1/cam01 t1/cam02 t2/cam01 ...                  a folder a trial; several trials in it by their names
    cam01/walk cam01/run cam02/walk ...             a folder a camera

Both are tried by `trial_names`: the names of the folders, and those of the files in each. If both can be cameras, the
one that names them (`cam01`, not a plain number) holds; if both or neither do, the archive does not tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from mvpose.archive.camera_names import MAX_PAIRS, Matching, matching_of
from mvpose.archive.trial_names import (
    Grouping,
    one_or_several,
    shown_trials,
    trials,
    two_files,
    without_camera,
)
from mvpose.errors import CalibrationError

Trials = dict[str, Matching | CalibrationError]
"""The trials of some footage by a name to show, each with its cameras or with what is wrong with it."""


def all_trials(cameras: Sequence[str], footage: Sequence[str]) -> Trials:
    """The trials that videos belong to, by their paths below one folder, without suffix.

    CalibrationError where the paths can be read in two ways or in none.
    """
    if len(cameras) * len(footage) > MAX_PAIRS:
        raise CalibrationError(
            f"{len(footage)} videos in one folder and {len(cameras)} cameras are too many to be told apart by their "
            "names: give each trial a folder of its own."
        )
    if not any("/" in path for path in footage):
        return {**trials(cameras, footage).trials}
    inside: dict[str, list[str]] = defaultdict(list)
    for path in footage:
        folder, _, file = path.partition("/")
        inside[folder].append(file)
    by_folder = _tried(cameras, list(inside))
    by_file = {folder: _tried(cameras, files) for folder, files in inside.items()}
    of_files = [g for g in by_file.values() if isinstance(g, Grouping) and g.has_captures]
    if not isinstance(by_folder, Grouping) or not by_folder.has_captures:
        return _folder_a_trial(by_file)
    if of_files and not by_folder.is_named and all(grouping.is_named for grouping in of_files):
        return _folder_a_trial(by_file)
    if of_files and (not by_folder.is_named or any(grouping.is_named for grouping in of_files)):
        raise CalibrationError(
            f"the folders {', '.join(list(inside)[:2])} may be cameras, with a file for each trial, or trials, with a "
            "file for each camera. Put `cam` before the camera in the names (cam01), or pair them in a capture.toml."
        )
    return _folder_a_camera(cameras, by_folder, inside)


def _tried(cameras: Sequence[str], names: Sequence[str]) -> Grouping | CalibrationError:
    try:
        return trials(cameras, names)
    except CalibrationError as error:
        return error


def _folder_a_trial(by_file: Mapping[str, Grouping | CalibrationError]) -> Trials:
    found: Trials = {}
    for folder, grouping in by_file.items():
        if isinstance(grouping, CalibrationError):
            found[folder] = grouping
            continue
        for trial, matching in grouping.trials.items():
            found[f"{folder}/{trial}" if trial else folder] = Matching(
                {camera: f"{folder}/{file}" for camera, file in matching.footage.items()},
                matching.cameras_alone,
                tuple(f"{folder}/{file}" for file in matching.footage_alone),
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
    return {
        trial: matching_of(own, cameras, list(own.values())) for trial, own in zip(shown, pairs.values(), strict=True)
    }
