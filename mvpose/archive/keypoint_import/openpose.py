"""A folder of OpenPose JSON 1.3 (also RTMPose's and Pose2Sim's): a file a frame, numbered at the end of its name."""

from __future__ import annotations

import json
import re

import numpy as np
from jaxtyping import Float

from mvpose.archive.keypoint_import.view import ViewKeypoints, view_of
from mvpose.archive.locations import inputs, name, read_bytes
from mvpose.errors import ConfigError
from mvpose.skeleton import Skeleton

MAX_BYTES = 64 << 20
"""Of the file of one frame."""
_NUMBERED = re.compile(r"(?<!\d)(\d++)(?:_keypoints)?\.json$")


def read_openpose(uri: str, skeleton: Skeleton, first_number: int) -> ViewKeypoints:
    """Frame k is the file numbered k + `first_number`; a number that is missing is a frame without people.

    0, 0, 0 is a joint that was not found. ConfigError for a file that is not OpenPose's or of another joint set.
    """
    numbered = {int(match[1]): e.uri for e in inputs(uri) if (match := _NUMBERED.search(name(e.uri)))}
    if not numbered:
        raise ConfigError("it has no numbered JSON files.")
    first, last = min(numbered), max(numbered)
    if first < first_number or last - first_number >= 50 * len(numbered) + 10_000:
        raise ConfigError(
            f"its {len(numbered)} files are numbered {first} to {last}, with {first_number} for the first frame: "
            "set first_number to the number of the first frame."
        )
    people = {number - first_number: _people(file, skeleton) for number, file in numbered.items()}
    most = max(1, max(map(len, people.values())))
    values = np.zeros((last - first_number + 1, most, len(skeleton.joints), 3))
    for frame, found in people.items():
        values[frame, : len(found)] = found
    return view_of(skeleton.joints, values[..., :2], values[..., 2])


def _people(file: str, skeleton: Skeleton) -> Float[np.ndarray, "P J 3"]:
    try:
        people = [person["pose_keypoints_2d"] for person in json.loads(read_bytes(file, MAX_BYTES))["people"]]
        rows = np.array(people, dtype=np.float64).reshape(len(people), -1, 3) if people else np.empty((0, 0, 3))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{name(file)} is not OpenPose JSON: {error!r}") from error
    if len(rows) and rows.shape[1] != len(skeleton.joints):
        raise ConfigError(
            f"{name(file)} has {rows.shape[1]} joints a person, {skeleton.name} has {len(skeleton.joints)}: "
            "name the skeleton that it was made with."
        )
    return rows.reshape(len(people), len(skeleton.joints), 3)
