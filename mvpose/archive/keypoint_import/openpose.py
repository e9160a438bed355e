"""A folder of OpenPose JSON 1.3 (also RTMPose's and Pose2Sim's): a file a frame, numbered at the end of its name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from mvpose.archive.keypoint_import.view import ViewKeypoints, view_of
from mvpose.archive.locations import Entry, inputs, name, read_bytes
from mvpose.errors import ConfigError
from mvpose.skeleton import BODY25, COCO17, HALPE26, Skeleton

BY_COUNT = {len(skeleton.joints): skeleton for skeleton in (BODY25, COCO17, HALPE26)}
"""The joint sets that files are taken to be of; others of as many joints have to be named."""
MAX_BYTES = 16 << 20
"""One frame with a hundred people is a hundredth of it."""
READERS = 8
_NUMBERED = re.compile(r"([^.].*?)??(\d{1,18})(?:_keypoints)?\.json")


def holds_frames(listing: Iterable[Entry]) -> bool:
    """Whether a folder has numbered JSON files."""
    return any(not entry.is_folder and _NUMBERED.fullmatch(name(entry.uri)) for entry in listing)


def numbered_files(uri: str) -> dict[int, str]:
    """The files of a folder by the number of their frame.

    ConfigError where there are none, where two have one number, and where names differ in more than the number.
    """
    matches = [(m, e.uri) for e in inputs(uri) if not e.is_folder and (m := _NUMBERED.fullmatch(name(e.uri)))]
    if not matches:
        raise ConfigError("it has no numbered JSON files.")
    sequences = Counter(match[1] or "" for match, _ in matches)
    if len(sequences) > 1:
        listed = ", ".join(f"{prefix}*.json ({count})" for prefix, count in sequences.most_common(3))
        raise ConfigError(f"it holds files of several sequences: {listed}. Keep one sequence in a folder.")
    numbered = {int(match[2]): file for match, file in matches}
    if len(numbered) < len(matches):
        number, _ = Counter(int(match[2]) for match, _ in matches).most_common(1)[0]
        raise ConfigError(f"it has several files numbered {number}: keep one of them.")
    return dict(sorted(numbered.items()))


def joint_count(files: Iterable[str]) -> tuple[str, int] | None:
    """The first file that has a person, with the joints of a person in it; None if none has.

    A file that is damaged costs its clip and is passed over here; ConfigError if all that are left show nobody.
    """
    damaged = None
    for file in files:
        try:
            people = _people(file)
        except ConfigError as error:
            damaged = damaged or error
        else:
            if people:
                return name(file), len(people[0])
    if damaged:
        raise damaged
    return None


def skeleton_of(file: str, joints: int, asked: Skeleton | None) -> Skeleton:
    """The joint set that was asked for, or the one of so many joints; ConfigError where the file does not fit it."""
    skeleton = asked or BY_COUNT.get(joints)
    if skeleton is None:
        counted = ", ".join(f"{count} ({each.name})" for count, each in sorted(BY_COUNT.items()))
        raise ConfigError(
            f"{file} has {joints} joints a person, and only {counted} are recognised: name the skeleton that it was "
            "made with (--skeleton)."
        )
    if joints != len(skeleton.joints):
        raise ConfigError(
            f"{file} has {joints} joints a person, {skeleton.name} has {len(skeleton.joints)}: name the skeleton that "
            "it was made with (--skeleton)."
        )
    return skeleton


def read_openpose(files: Mapping[int, str], frames: range, skeleton: Skeleton) -> ViewKeypoints:
    """The joints of some frames, in the skeleton's order; a number without a file is a frame that says nothing.

    0, 0, 0 is a joint that was not found. ConfigError for a file that is not OpenPose's or of another joint set.
    """
    numbers = [number for number in frames if number in files]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda number: _of_skeleton(files[number], skeleton), numbers))
    values = np.zeros((len(numbers), max(map(len, found), default=0), len(skeleton.joints), 3))
    for row, people in zip(values, found, strict=True):
        row[: len(people)] = people
    return view_of(skeleton.joints, np.array(numbers, np.int64), values[..., :2], values[..., 2])


def _of_skeleton(file: str, skeleton: Skeleton) -> Float[np.ndarray, "P J 3"]:
    people = _people(file)
    for person in people:
        skeleton_of(name(file), len(person), skeleton)
    return np.reshape(people, (len(people), len(skeleton.joints), 3))


def _people(file: str) -> list[Float[np.ndarray, "J 3"]]:
    """x, y and confidence of the joints of each person; one without joints (Pose2Sim's `{}`) is nobody."""
    try:
        people = [person.get("pose_keypoints_2d") for person in json.loads(read_bytes(file, MAX_BYTES))["people"]]
        return [np.array(values, dtype=np.float64).reshape(-1, 3) for values in people if values]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{name(file)} is not OpenPose JSON ({type(error).__name__}: {error}): write it again, or remove it to "
            "have a frame in which this camera says nothing."
        ) from error
