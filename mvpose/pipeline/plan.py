"""What a job has to do: every clip of every capture, with the fingerprints of what goes into its results.

A fingerprint is the digest of a record of everything that the stages of one kind read: footage, calibration, clock,
settings, model digests, and the version of mvpose. `plan_source.py` hands those stages the same and nothing else.
Results are committed under their fingerprint, so a new calibration or frame rate makes new poses from the same
keypoints, and nothing that belongs to other settings can be taken for a result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise

from mvpose.archive.catalogue_table import Listed
from mvpose.archive.store import FINGERPRINT_LENGTH
from mvpose.archive.tables import SCHEMA_VERSION
from mvpose.config import digest
from mvpose.errors import ConfigError
from mvpose.reconstruction.adjust import AdjustmentConfig
from mvpose.reconstruction.filters import FilterConfig
from mvpose.reconstruction.reconstruct import ReconstructionConfig
from mvpose.records import CaptureTasks, Clip, Unit


@dataclass(frozen=True, kw_only=True)
class NetworkInputs:
    """What a multi-view network reads beside the footage: it looks through the calibrated cameras."""

    weights_sha256: str
    rig_digest: str
    reconstruction: ReconstructionConfig
    """By which it finds the views of one person."""


@dataclass(frozen=True, kw_only=True)
class KeypointsInputs:
    """What 2D joints depend on."""

    footage: tuple[tuple[object, ...], ...]
    """See `Listed.footage`."""
    detector: str
    """Digest of the detector's networks and settings."""
    network: NetworkInputs | None


@dataclass(frozen=True, kw_only=True)
class PosesInputs:
    """What everything depends on that is made of 2D joints: adjusted rigs, tracks, identities, poses, quality."""

    keypoints: str
    """Fingerprint of the 2D joints."""
    schema_version: int
    rig_digest: str
    fps: float
    num_frames: int
    breaks: tuple[int, ...]
    """Where the frames do not follow each other in time."""
    assumed_unit: Unit | None
    clip_frames: int
    reconstruction: ReconstructionConfig
    adjustment: AdjustmentConfig | None
    """None where the rig is used as calibrated."""


@dataclass(frozen=True, kw_only=True)
class FilteredInputs:
    """What filtered poses depend on."""

    poses: str
    """Fingerprint of the raw poses, clock and cameras included."""
    filtering: FilterConfig


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The settings of a job that its results depend on."""

    clip_frames: int
    detector: str
    """Digest of the detector's networks and settings."""
    network: str
    """SHA-256 of the weights of the multi-view network that looks again; empty for none."""
    reconstruction: ReconstructionConfig
    adjustment: AdjustmentConfig | None
    filtering: FilterConfig | None


def plan_capture(capture: Listed, settings: PlanSettings) -> CaptureTasks:
    """The work on a capture."""
    network = NetworkInputs(
        weights_sha256=settings.network, rig_digest=capture.rig_digest, reconstruction=settings.reconstruction
    )
    keypoints = _fingerprint(
        KeypointsInputs(
            footage=capture.footage, detector=settings.detector, network=network if settings.network else None
        )
    )
    poses = _fingerprint(
        PosesInputs(
            keypoints=keypoints,
            schema_version=SCHEMA_VERSION,
            rig_digest=capture.rig_digest,
            fps=capture.fps,
            num_frames=capture.num_frames,
            breaks=capture.breaks,
            assumed_unit=capture.assumed_unit,
            clip_frames=settings.clip_frames,
            reconstruction=settings.reconstruction,
            adjustment=settings.adjustment,
        )
    )
    filtering = settings.filtering
    return CaptureTasks(
        capture_id=capture.capture_id,
        clips=tuple(split_into_clips(capture.capture_id, capture.num_frames, settings.clip_frames)),
        keypoints=keypoints,
        poses=poses,
        filtered=_fingerprint(FilteredInputs(poses=poses, filtering=filtering)) if filtering else "",
    )


def _fingerprint(inputs: KeypointsInputs | PosesInputs | FilteredInputs) -> str:
    """Digest of what a result depends on, the version of mvpose included."""
    return digest(_own_version(), type(inputs).__name__, inputs)[:FINGERPRINT_LENGTH]


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
