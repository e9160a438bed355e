"""What flows between the stages of a job: values that are frozen and complete."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mvpose.errors import FailureReason
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import Skeleton

Unit = Literal["m", "cm", "mm", "in"]
"""Length units that calibrations come in."""


class ClockKind(StrEnum):
    """What identifies a frame."""

    NUMBER = "picture number"
    TIME = "presentation time"
    VARYING = "presentation time at a varying rate"
    WALL = "wall time"


@dataclass(frozen=True)
class FrameClock:
    """When the frames of a video were taken, in whole ticks: picture numbers, or frame periods."""

    kind: ClockKind
    runs: tuple[tuple[int, int, int], ...]
    """(frame, tick, ticks a frame): from this frame on ticks rise so, up to the next run."""


@dataclass(frozen=True)
class Video:
    """One camera's footage: a video file, or a folder of images; or its 2D joints, with footage or without."""

    camera: str
    uri: str
    """Empty where there are 2D joints alone."""
    fps: float
    num_frames: int
    size: tuple[int, int]
    """(width, height) of decoded frames, rotation applied."""
    first_frame: int = 0
    """Frame `k` of the capture is frame `k + first_frame` of this video."""
    stamp: str = ""
    """What the storage said of the content when the video was found (see `footage_identity`); empty: nobody asked."""
    stated_fps: float | None = None
    """The rate in the file's header, which `fps` may overrule; None for pictures, and where it cannot be trusted."""
    clock: FrameClock | None = None
    """What its frames are identified by; None: nobody asked."""
    shown: tuple[tuple[int, int, int], ...] = ()
    """(frame of the capture, frame of this video, count) of each stretch of frames that the capture has of this video,
    where they are not all from `first_frame` on. Frames of the capture that are in none are missing in this view."""
    shown_turns: int = 0
    """Clockwise quarter turns by which the file says that it is to be shown, and by which decoded frames are turned."""
    keypoints: str = ""
    """Where its 2D joints are imported from, whose content `stamp` is about; empty: they are found in the footage."""

    @property
    def stop(self) -> int:
        """The capture's frame after the last one that this video has."""
        return self.shown[-1][0] + self.shown[-1][2] if self.shown else self.num_frames - self.first_frame

    def frames_of(self, frames: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The frames of this video that show `frames` of the capture, -1 where it has none."""
        if not self.shown:
            return frames + self.first_frame
        starts, own, counts = np.array(self.shown).T
        run = np.maximum(np.searchsorted(starts, frames, side="right") - 1, 0)
        place = frames - starts[run]
        return np.where((place >= 0) & (place < counts[run]), own[run] + place, -1)

    def place_of(self, frame: float) -> float:
        """Where a frame of this video, or a moment between two, is among the frames of the capture."""
        if not self.shown:
            return frame - self.first_frame
        run = max(bisect_right([own for _, own, _ in self.shown], frame) - 1, 0)
        start, own, _ = self.shown[run]
        return start + frame - own


Breaks = tuple[tuple[int, int], ...]
"""(frame, position on the clock in frame periods) of each frame that does not follow the one before it in time: the
cameras were stopped between, or the pictures are single instants. What is between two breaks is one segment."""


@dataclass(frozen=True, eq=False)
class Capture:
    """One recording by one rig. The rig is told in the pixels of the videos, one camera a video, in their order."""

    capture_id: str
    rig: CameraRig
    videos: tuple[Video, ...]
    breaks: Breaks = ()
    assumed_unit: Unit | None = None
    """Unit that the calibration was read in, by its format or the size of the rig; None where the user named it."""

    @property
    def fps(self) -> float:
        """Frames per second of the capture's clock."""
        return self.videos[0].fps

    @property
    def num_frames(self) -> int:
        """Frames up to the end of the camera that stops first."""
        return max(0, min(v.stop for v in self.videos))

    def positions(self, frames: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Where frames are on the capture's clock, in frame periods since its frame 0."""
        return positions(frames, self.breaks)

    def times_s(self, frames: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """When frames were taken, in seconds since the capture's frame 0."""
        return self.positions(frames) / self.fps


def positions(frames: Int[np.ndarray, " n"], breaks: Breaks) -> Int[np.ndarray, " n"]:
    """Frames of a capture in frame periods since its frame 0."""
    if not breaks:
        return frames
    starts, at = np.array(((0, 0), *breaks)).T
    run = np.searchsorted(starts, frames, side="right") - 1
    return at[run] + frames - starts[run]


def segments(start: int, stop: int, breaks: Breaks) -> list[tuple[int, int]]:
    """The stretches [a, b) of successive frames that frames [start, stop) of a capture are made of."""
    edges = [start, *(first for first, _ in breaks if start < first < stop), stop]
    return list(pairwise(edges))


@dataclass(frozen=True, order=True)
class Clip:
    """The unit of work, of retry and of output: frames [start, stop) of a capture."""

    capture_id: str
    start: int
    stop: int

    @property
    def clip_id(self) -> str:
        """Identity by content: capture and frame range."""
        return f"{self.capture_id}/{self.start:07d}-{self.stop:07d}"


@dataclass(frozen=True)
class Task:
    """One clip to be done by one stage; the fingerprint of all that the result depends on names the result."""

    clip: Clip
    fingerprint: str

    @property
    def name(self) -> str:
        """`<start>-<stop>.<fingerprint>`, unique within a capture and a stage."""
        return f"{self.clip.clip_id.rsplit('/', 1)[1]}.{self.fingerprint}"


class Kind(StrEnum):
    """What a job makes, in the order in which it does; each has a folder of its own in the output."""

    KEYPOINTS = "keypoints"
    RIGS = "rigs"
    TRACKS = "tracks"
    IDENTITIES = "identities"
    POSES = "poses"
    FILTERED = "filtered"
    QUALITY = "quality"

    @property
    def of_whole_captures(self) -> bool:
        """Whether a result of this kind is about a whole capture, not about a clip."""
        return self in (Kind.RIGS, Kind.IDENTITIES, Kind.FILTERED, Kind.QUALITY)


@dataclass(frozen=True, eq=False, kw_only=True)
class CaptureTasks:
    """The work on one capture: its clips, which tile it, and the fingerprints of what is made of them."""

    capture_id: str
    clips: tuple[Clip, ...]
    """In order; at least one."""
    keypoints: str
    """Fingerprint of the 2D joints."""
    poses: str
    """Fingerprint of all that is made of the 2D joints and the rig."""
    filtered: str = ""
    """Fingerprint of the filtered poses; empty where none are made."""

    @property
    def whole(self) -> Clip:
        """All frames of the capture."""
        return Clip(self.capture_id, 0, self.clips[-1].stop)

    def tasks(self, kind: Kind) -> list[Task]:
        """The tasks of a kind: one a clip, or one for the whole capture; none of a kind that is not asked for."""
        if kind == Kind.FILTERED and not self.filtered:
            return []
        clips = (self.whole,) if kind.of_whole_captures else self.clips
        own = {Kind.KEYPOINTS: self.keypoints, Kind.FILTERED: self.filtered}
        return [Task(clip, own.get(kind, self.poses)) for clip in clips]


@dataclass(frozen=True, eq=False, kw_only=True)
class CapturePlan(CaptureTasks):
    """The work on one capture, with the capture. A job plans by `CaptureTasks` alone: rigs are heavy."""

    capture: Capture


@dataclass(frozen=True, eq=False)
class Keypoints2D:
    """2D joints of every person seen, by view. P is the most people seen in any frame; unused places have score 0.

    Where a joint was not found its confidence is 0 and its position NaN. Place p means nothing by itself: places of
    different views and frames are unrelated until association.
    """

    xy: Float[np.ndarray, "V T P J 2"]
    """Distorted pixels of the decoded video."""
    confidence: Float[np.ndarray, "V T P J"]
    box: Float[np.ndarray, "V T P 4"]
    """left, top, right, bottom in pixels."""
    box_score: Float[np.ndarray, "V T P"]
    skeleton: Skeleton


@dataclass(frozen=True, eq=False)
class Poses3D:
    """3D joints of a clip. A joint that could not be reconstructed is NaN with confidence 0."""

    xyz: Float[np.ndarray, "T P J 3"]
    """World, metres, Z up."""
    confidence: Float[np.ndarray, "T P J"]
    error_px: Float[np.ndarray, "T P J"]
    """Mean reprojection error over the views used; NaN where the joint is."""
    num_views: Int[np.ndarray, "T P J"]
    views_used: Bool[np.ndarray, "T P J V"]
    """Which views the triangulation kept."""
    track_id: Int[np.ndarray, "P"]
    skeleton: Skeleton


@dataclass(frozen=True)
class ClipFailure:
    """A clip without a result is a row, never a lost log line."""

    clip: Clip
    stage: str
    reason: FailureReason
    detail: str
