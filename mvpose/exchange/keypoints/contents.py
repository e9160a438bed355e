"""Read the joints in the files of all cameras of a capture: frame numbers, joint names, and the joints of some frames.

A joint file is identified by its location and stamp, so cached content is never older than the plan.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from multiprocessing.connection import Connection
from typing import TypeVar

import h5py
import numpy as np
from jaxtyping import Int

from mvpose.errors import ConfigError, MvposeError
from mvpose.exchange.keypoints.deeplabcut import read_deeplabcut, read_deeplabcut_csv
from mvpose.exchange.keypoints.import_config import KeypointImport
from mvpose.exchange.keypoints.openpose import joint_count, numbered_files, read_openpose, skeleton_of
from mvpose.exchange.keypoints.sleap import read_sleap
from mvpose.exchange.keypoints.view_joints import ViewKeypoints, stacked
from mvpose.records import Keypoints2D
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.storage.locations import read_bytes

T = TypeVar("T")

SECONDS = 10.0
SECONDS_PER_MEGABYTE = 1.0
"""Timeout, far above the time that a disk or a decompressor needs."""


def guarded(read: Callable[[bytes], T], data: bytes) -> T:
    """`read(data)` in a forked process. Raises ConfigError if it takes too long or its process dies."""
    patience = SECONDS + SECONDS_PER_MEGABYTE * len(data) / 1e6
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(read, data, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            raise ConfigError(f"it is damaged: reading it did not finish within {patience:.0f} s.")
        answer, error = ours.recv()
    except EOFError as error:
        raise ConfigError("it is damaged: the process that read it died.") from error
    finally:
        child.kill()
        child.join()
    if error is not None:
        raise error
    return answer


def _answer(read: Callable[[bytes], T], data: bytes, answers: Connection) -> None:
    try:
        answers.send((read(data), None))
    except (MvposeError, OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        # An error of h5py may not survive pickling; its message does.
        answers.send((None, error if isinstance(error, MvposeError) else ConfigError(f"it cannot be read: {error}")))


T = TypeVar("T")

Sources = tuple[tuple[str, str], ...]
"""(location, stamp) of each camera's joints: a folder of JSON files, or a table."""
MIN_JOINTS = 3
"""Minimum number of joints to match detections of two cameras to the same body."""


def keypoints_of(sources: Sources, config: KeypointImport, frames: range) -> Keypoints2D:
    """2D joints of all cameras for some frame numbers of the files. ConfigError names a damaged file."""
    skeleton = joint_set(sources, config)
    if _is_folders(config):
        numbered = zip(sources, _numbered(sources), strict=True)
        views = [_named(uri, lambda f=files: read_openpose(f, frames, skeleton)) for (uri, _), files in numbered]
    else:
        views = list(_tables(sources))
    return replace(stacked(views, skeleton, config.joint_names, frames), scale=config.scale(skeleton))


def frames_of(sources: Sources, config: KeypointImport) -> list[Int[np.ndarray, " _"]]:
    """The frames that each camera's files contain. ConfigError names a file that cannot be read."""
    if _is_folders(config):
        return [np.array(list(files), np.int64) for files in _numbered(sources)]
    return [view.frame for view in _tables(sources)]


@lru_cache(maxsize=4)
def joint_set(sources: Sources, config: KeypointImport) -> Skeleton:
    """The skeleton of a capture's joints: the requested one, or the one detected in the files.

    Named joints that belong to no known skeleton form a skeleton without bones. Raises ConfigError if no file shows the
    joints, or if there are too few joints to match bodies between cameras.
    """
    if _is_folders(config):
        numbered = zip(sources, _numbered(sources), strict=True)
        counted = (_named(uri, lambda f=files: joint_count(f.values())) for (uri, _), files in numbered)
        first = next((each for each in counted if each), None)
        if first is None:
            raise ConfigError("no file contains a person, so there is nothing to reconstruct.")
        return skeleton_of(*first, config.named_skeleton)
    named = [tuple(config.joint_names.get(j, j) for j in view.joints) for view in _tables(sources)]
    for (uri, _), joints in zip(sources, named, strict=True):
        if len(set(joints)) < len(joints):
            raise ConfigError(f"{uri}: several joints have the same name: {', '.join(joints)}.")
    joints = tuple(dict.fromkeys(chain.from_iterable(named)))
    skeleton = config.named_skeleton or _skeleton_of(joints, config.format)
    known = [joint for joint in joints if joint in skeleton.joints]
    if len(known) < MIN_JOINTS:
        raise ConfigError(
            f"the files have the joints {', '.join(joints)}, of which {len(known)} belong to the skeleton "
            f"{skeleton.name} ({', '.join(skeleton.joints)}). At least {MIN_JOINTS} are required to match bodies "
            "between cameras: rename them with --joints FROM=TO, or import more."
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


@lru_cache(maxsize=1)  # one capture: an hour of 20 joints from 4 cameras takes 400 MB
def _tables(sources: Sources) -> tuple[ViewKeypoints, ...]:
    return tuple(_named(uri, lambda u=uri: read_table(u)) for uri, _ in sources)


def read_table(uri: str) -> ViewKeypoints:
    """One camera's joints from a table of DeepLabCut (h5 or csv) or an analysis file of SLEAP, detected by content."""
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
