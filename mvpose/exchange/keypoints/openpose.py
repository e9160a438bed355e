"""Read folders of OpenPose JSON 1.3 (also from RTMPose and Pose2Sim): one file per frame, numbered at the end."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from mvpose.errors import ConfigError
from mvpose.exchange.keypoints.view_joints import ViewKeypoints, view_of
from mvpose.skeleton import BODY25, COCO17, HALPE26, Skeleton
from mvpose.storage.locations import Entry, inputs, name, read_bytes

BY_COUNT = {len(skeleton.joints): skeleton for skeleton in (BODY25, COCO17, HALPE26)}
"""Joint sets recognised by their number of joints; others must be named by the user."""
MAX_BYTES = 16 << 20
"""Maximum size of a file; a frame with a hundred people takes a hundredth of it."""
READERS = 8
_NUMBERED = re.compile(r"([^.].*?)??(\d{1,18})(?:_keypoints)?\.json")


def holds_frames(listing: Iterable[Entry]) -> bool:
    """Whether a folder contains numbered JSON files."""
    return any(not entry.is_folder and _NUMBERED.fullmatch(name(entry.uri)) for entry in listing)


def numbered_files(uri: str) -> dict[int, str]:
    """The files of a folder by frame number.

    Raises ConfigError if there are none, if a number occurs twice, or if names differ in more than the number.
    """
    matches = [(m, e.uri) for e in inputs(uri) if not e.is_folder and (m := _NUMBERED.fullmatch(name(e.uri)))]
    if not matches:
        raise ConfigError("it has no numbered JSON files.")
    sequences = Counter(match[1] or "" for match, _ in matches)
    if len(sequences) > 1:
        listed = ", ".join(f"{prefix}*.json ({count})" for prefix, count in sequences.most_common(3))
        raise ConfigError(f"it contains several sequences: {listed}. Keep one sequence per folder.")
    numbered = {int(match[2]): file for match, file in matches}
    if len(numbered) < len(matches):
        number, _ = Counter(int(match[2]) for match, _ in matches).most_common(1)[0]
        raise ConfigError(f"it has several files numbered {number}: keep only one.")
    return dict(sorted(numbered.items()))


def joint_count(files: Iterable[str]) -> tuple[str, int] | None:
    """The first file that contains a person, with the number of joints per person; None if no file does.

    A damaged file only fails its clip and is skipped here. Raises ConfigError if none of the other files has a person.
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


def skeleton_of(file: str, joints: int, requested: Skeleton | None) -> Skeleton:
    """The requested joint set, or the one with this number of joints. Raises ConfigError if the file does not match."""
    skeleton = requested or BY_COUNT.get(joints)
    if skeleton is None:
        counted = ", ".join(f"{count} ({each.name})" for count, each in sorted(BY_COUNT.items()))
        raise ConfigError(
            f"{file} has {joints} joints per person, but only {counted} are recognised: pass the skeleton that was "
            "used (--skeleton)."
        )
    if joints != len(skeleton.joints):
        raise ConfigError(
            f"{file} has {joints} joints per person, but {skeleton.name} has {len(skeleton.joints)}: pass the skeleton "
            "that was used (--skeleton)."
        )
    return skeleton


def read_openpose(files: Mapping[int, str], frames: range, skeleton: Skeleton) -> ViewKeypoints:
    """The joints of some frames, in the skeleton's order; a number without a file is a frame without detections.

    0, 0, 0 is a joint that was not found. Raises ConfigError for a file that is not OpenPose's or has other joints.
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
    """x, y and confidence of the joints of each person; one without joints (Pose2Sim's `{}`) is ignored."""
    try:
        people = [person.get("pose_keypoints_2d") for person in json.loads(read_bytes(file, MAX_BYTES))["people"]]
        return [np.array(values, dtype=np.float64).reshape(-1, 3) for values in people if values]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{name(file)} is not OpenPose JSON ({type(error).__name__}: {error}): write it again, or delete it to "
            "leave this camera without detections in the frame."
        ) from error
