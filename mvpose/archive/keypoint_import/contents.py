"""The joints in the files of all cameras of a capture: which frames, which joints, and the joints of some frames.

A file of joints is named by its location and its stamp, so that what is kept in memory is never older than the plan.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import TypeVar

import h5py
import numpy as np
from jaxtyping import Int

from mvpose.archive.keypoint_import.config import KeypointImport
from mvpose.archive.keypoint_import.deeplabcut import read_deeplabcut, read_deeplabcut_csv
from mvpose.archive.keypoint_import.guarded import guarded
from mvpose.archive.keypoint_import.openpose import joint_count, numbered_files, read_openpose, skeleton_of
from mvpose.archive.keypoint_import.sleap import read_sleap
from mvpose.archive.keypoint_import.view import ViewKeypoints, stacked
from mvpose.archive.locations import read_bytes
from mvpose.errors import ConfigError
from mvpose.records import Keypoints2D
from mvpose.skeleton import SKELETONS, Skeleton

T = TypeVar("T")

Sources = tuple[tuple[str, str], ...]
"""(location, stamp) of the joints of each camera: a folder of JSON files, or a table."""
LEAST_JOINTS = 3
"""Fewer do not tell which detections of two cameras are the same body."""


def keypoints_of(sources: Sources, config: KeypointImport, frames: range) -> Keypoints2D:
    """2D joints of some frames, numbered as in the files, of all cameras; ConfigError names a file that is damaged."""
    skeleton = joint_set(sources, config)
    if _is_folders(config):
        numbered = zip(sources, _numbered(sources), strict=True)
        views = [_named(uri, lambda f=files: read_openpose(f, frames, skeleton)) for (uri, _), files in numbered]
    else:
        views = list(_tables(sources))
    return stacked(views, skeleton, config.joint_names, frames)


def frames_of(sources: Sources, config: KeypointImport) -> list[Int[np.ndarray, " _"]]:
    """The frames that each camera's files say something of; ConfigError names a file that cannot be read."""
    if _is_folders(config):
        return [np.array(list(files), np.int64) for files in _numbered(sources)]
    return [view.frame for view in _tables(sources)]


@lru_cache(maxsize=4)
def joint_set(sources: Sources, config: KeypointImport) -> Skeleton:
    """The skeleton of a capture's joints: the one asked for, or the one that the files show.

    Joints that are named, and are not those of a skeleton that mvpose knows, are a skeleton without bones. ConfigError
    where nothing shows it, and where there are too few joints for bodies to be matched between cameras.
    """
    if _is_folders(config):
        numbered = zip(sources, _numbered(sources), strict=True)
        counted = (_named(uri, lambda f=files: joint_count(f.values())) for (uri, _), files in numbered)
        first = next((each for each in counted if each), None)
        if first is None:
            raise ConfigError("no file has a person: there is nothing to reconstruct.")
        return skeleton_of(*first, config.named_skeleton)
    named = [tuple(config.joint_names.get(j, j) for j in view.joints) for view in _tables(sources)]
    for (uri, _), joints in zip(sources, named, strict=True):
        if len(set(joints)) < len(joints):
            raise ConfigError(f"{uri}: two of its joints have one name: {', '.join(joints)}.")
    joints = tuple(dict.fromkeys(chain.from_iterable(named)))
    skeleton = config.named_skeleton or _skeleton_of(joints, config.format)
    known = [joint for joint in joints if joint in skeleton.joints]
    if len(known) < LEAST_JOINTS:
        raise ConfigError(
            f"the files have the joints {', '.join(joints)}, of which {len(known)} are of the skeleton "
            f"{skeleton.name} ({', '.join(skeleton.joints)}), and {LEAST_JOINTS} are needed to match bodies between "
            "cameras: name them with --joints FROM=TO, or import more."
        )
    return skeleton


def _skeleton_of(joints: tuple[str, ...], name: str) -> Skeleton:
    same = (skeleton for skeleton in SKELETONS.values() if set(skeleton.joints) == set(joints))
    return next(same, Skeleton(name, joints, ()))


def _is_folders(config: KeypointImport) -> bool:
    return config.format in ("openpose", "pose2sim")


@lru_cache(maxsize=4)
def _numbered(sources: Sources) -> tuple[dict[int, str], ...]:
    return tuple(_named(uri, lambda u=uri: numbered_files(u)) for uri, _ in sources)


@lru_cache(maxsize=1)  # of one capture: an hour of 20 joints before 4 cameras takes 400 MB
def _tables(sources: Sources) -> tuple[ViewKeypoints, ...]:
    return tuple(_named(uri, lambda u=uri: read_table(u)) for uri, _ in sources)


def read_table(uri: str) -> ViewKeypoints:
    """One camera's joints from a table of DeepLabCut (h5 or csv) or an analysis file of SLEAP, told by its content."""
    data = read_bytes(uri)
    return guarded(_read_hdf5, data) if data[:8] == b"\x89HDF\r\n\x1a\n" else read_deeplabcut_csv(data)


def _read_hdf5(data: bytes) -> ViewKeypoints:
    with h5py.File(io.BytesIO(data), "r") as file:
        return read_sleap(file) if "node_names" in file else read_deeplabcut(file)


def _named(uri: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        raise ConfigError(f"2D joints {uri} cannot be read: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(f"2D joints {uri}: {error}") from error
