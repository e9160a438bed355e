"""The plan of a job: every clip of every capture, with fingerprints of the inputs of its results.

A fingerprint is the digest of a record of everything that the stages of one kind read: footage, calibration, clock,
settings, model digests, and the version of mvpose. `plan_source.py` gives those stages exactly these inputs.
Results are committed under their fingerprint, so a new calibration or frame rate gives new poses from the same
keypoints, and results of other settings are never reused by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise

from mvpose.config import digest
from mvpose.errors import ConfigError
from mvpose.footage.catalogue_table import Listed
from mvpose.geometry import Unit
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import CaptureTasks, Clip
from mvpose.rigs.adjust import AdjustmentConfig
from mvpose.run.pose_tables import SCHEMA_VERSION
from mvpose.run.store import FINGERPRINT_LENGTH
from mvpose.temporal.filter_settings import Filtering


@dataclass(frozen=True, kw_only=True)
class NetworkInputs:
    """Inputs of a multi-view network in addition to the footage; it uses the calibrated cameras."""

    weights_sha256: str
    rig_digest: str
    reconstruction: ReconstructionConfig
    """Settings of the association that matches a person's views."""


@dataclass(frozen=True, kw_only=True)
class MonocularInputs:
    """The same of a network of one image, of a capture of one camera."""

    monocular_sha256: str
    rig_digest: str


@dataclass(frozen=True, kw_only=True)
class KeypointsInputs:
    """Inputs of the 2D joints."""

    footage: tuple[tuple[object, ...], ...]
    """See `Listed.footage`."""
    detector: str
    """Digest of the detector's networks and settings."""
    look: tuple[int, int] | None
    """Frames between looks for people, and between boxes that are interpolated; of the default detector alone."""
    network: NetworkInputs | MonocularInputs | None


@dataclass(frozen=True, kw_only=True)
class PosesInputs:
    """Inputs of all results derived from 2D joints: adjusted rigs, tracks, identities, poses, quality."""

    keypoints: str
    """Fingerprint of the 2D joints."""
    schema_version: int
    rig_digest: str
    fps: float
    num_frames: int
    breaks: tuple[int, ...]
    """Breaks in time between consecutive frames."""
    assumed_unit: Unit | None
    clip_frames: int
    reconstruction: ReconstructionConfig
    people: int | None
    """Maximum people; None for all."""
    adjustment: AdjustmentConfig | None
    """None if the rig is used as calibrated."""


@dataclass(frozen=True, kw_only=True)
class LiftedInputs:
    """The same of a capture of one camera, whose people a lifter lifts."""

    poses: str
    """Fingerprint of `PosesInputs`."""
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class FilteredInputs:
    """Inputs of the filtered poses."""

    poses: str
    """Fingerprint of the raw poses, including clock and cameras."""
    filtering: Filtering


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The settings of a job that affect its results."""

    clip_frames: int
    detector: str
    """Digest of the detector's networks and settings."""
    look: Callable[[float], tuple[int, int]] | None
    """See `KeypointsInputs.look`, by frames per second."""
    network: str
    """SHA-256 of the weights of the refining multi-view network; empty for none."""
    reconstruction: ReconstructionConfig
    people: int | None
    """Maximum people; None for all."""
    adjustment: AdjustmentConfig | None
    monocular: str
    """SHA-256 of the weights of the network of captures of one camera; empty for none."""
    monocular_images: bool
    """Whether that network takes images, and not 2D joints."""
    filtering: Filtering | None


def plan_capture(capture: Listed, settings: PlanSettings) -> CaptureTasks:
    """Plan the tasks of a capture."""
    alone = len(capture.footage) == 1
    lifter = settings.monocular if alone and not settings.monocular_images else ""
    keypoints = _fingerprint(
        KeypointsInputs(
            footage=capture.footage,
            detector=settings.detector,
            look=settings.look(capture.fps) if settings.look else None,
            network=_network_inputs(capture, settings),
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
            people=settings.people,
            adjustment=None if alone else settings.adjustment,
        )
    )
    if lifter:
        poses = _fingerprint(LiftedInputs(poses=poses, weights_sha256=lifter))
    filtering = settings.filtering
    return CaptureTasks(
        capture_id=capture.capture_id,
        clips=tuple(split_into_clips(capture.capture_id, capture.num_frames, settings.clip_frames)),
        keypoints=keypoints,
        poses=poses,
        filtered=_fingerprint(FilteredInputs(poses=poses, filtering=filtering)) if filtering else "",
    )


def _network_inputs(capture: Listed, settings: PlanSettings) -> NetworkInputs | MonocularInputs | None:
    """Inputs of the network that takes a capture's images after the detector, if there is one."""
    if len(capture.footage) == 1:
        if not settings.monocular_images:
            return None
        return MonocularInputs(monocular_sha256=settings.monocular, rig_digest=capture.rig_digest)
    if not settings.network:
        return None
    return NetworkInputs(
        weights_sha256=settings.network, rig_digest=capture.rig_digest, reconstruction=settings.reconstruction
    )


def _fingerprint(inputs: KeypointsInputs | PosesInputs | LiftedInputs | FilteredInputs) -> str:
    """Digest of the inputs of a result, including the version of mvpose."""
    return digest(_own_version(), type(inputs).__name__, inputs)[:FINGERPRINT_LENGTH]


@cache
def _own_version() -> str:
    """Cached per process: the lookup reads a file, which took half the time to plan 2,000 captures."""
    return version("mvpose")


def split_into_clips(capture_id: str, num_frames: int, clip_frames: int) -> list[Clip]:
    """Clips of at most `clip_frames` frames, equal in length to within one frame, that tile [0, num_frames)."""
    if clip_frames < 1:
        raise ConfigError(f"clip_frames is {clip_frames}; it must be 1 or more.")
    count = math.ceil(num_frames / clip_frames)
    edges = [i * num_frames // count for i in range(count + 1)] if count else []
    return [Clip(capture_id, a, b) for a, b in pairwise(edges)]
