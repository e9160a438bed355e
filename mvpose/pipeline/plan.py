"""What a job has to do: every clip of every capture, with the fingerprints of what goes into its results.

A fingerprint covers all that a result depends on and nothing else: footage, settings, model digests, the version of
mvpose, and for poses the calibration too. Results are committed under their fingerprint, so a new calibration makes
new poses from the same keypoints, and nothing that belongs to other settings can be taken for a result.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.metadata import version
from itertools import pairwise

from mvpose.archive.catalogue_table import Listed
from mvpose.archive.store import FINGERPRINT_LENGTH
from mvpose.archive.tables import SCHEMA_VERSION
from mvpose.config import digest
from mvpose.errors import ConfigError
from mvpose.records import CaptureTasks, Clip


def plan_capture(
    capture: Listed, *, clip_frames: int, detection: str, reconstruction: str, filtering: str | None
) -> CaptureTasks:
    """The work on a capture, from digests of the settings of 2D, of 3D and of filtering (None: nothing is filtered)."""
    keypoints = fingerprint("keypoints", capture.footage, detection)
    poses = fingerprint("poses", SCHEMA_VERSION, keypoints, capture.rig_digest, reconstruction, clip_frames)
    return CaptureTasks(
        capture_id=capture.capture_id,
        clips=tuple(split_into_clips(capture.capture_id, capture.num_frames, clip_frames)),
        keypoints=keypoints,
        poses=poses,
        filtered="" if filtering is None else fingerprint("filtered", poses, filtering),
    )


def fingerprint(*parts: object) -> str:
    """Digest of what a result depends on, the version of mvpose included."""
    return digest(_own_version(), *parts)[:FINGERPRINT_LENGTH]


@cache
def _own_version() -> str:
    """Once a process: finding it reads a file, which was half of the planning of 2,000 captures."""
    return version("mvpose")


def split_into_clips(capture_id: str, num_frames: int, clip_frames: int) -> list[Clip]:
    """Clips of at most `clip_frames` frames, equal to one frame, that tile [0, num_frames) without gap or overlap."""
    if clip_frames < 1:
        raise ConfigError(f"clip_frames is {clip_frames}: a clip has at least one frame.")
    count = math.ceil(num_frames / clip_frames)
    edges = [i * num_frames // count for i in range(count + 1)] if count else []
    return [Clip(capture_id, a, b) for a, b in pairwise(edges)]
