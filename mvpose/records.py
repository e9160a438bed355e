"""Records passed between the stages of a job: frozen, complete values, and no torch, which takes 1.4 s to import."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.errors import FailureReason
from mvpose.skeleton import Skeleton


class ClockKind(StrEnum):
    """What identifies a frame."""

    NUMBER = "image number"
    TIME = "presentation time"
    VARYING = "presentation time at a varying rate"
    WALL = "wall time"


@dataclass(frozen=True)
class FrameClock:
    """When the frames of a video were taken, in integer ticks: image numbers, or frame periods."""

    kind: ClockKind
    runs: tuple[tuple[int, int, int], ...]
    """(frame, tick, ticks per frame) of each stretch: ticks rise evenly from this frame up to the next stretch."""


@dataclass(frozen=True)
class Video:
    """One camera's footage (a video file or a folder of images), its 2D joints, or both."""

    camera: str
    uri: str
    """Empty if there are only 2D joints."""
    fps: float
    num_frames: int
    size: tuple[int, int]
    """(width, height) of decoded frames, rotation applied."""
    first_frame: int = 0
    """Frame `k` of the capture is frame `k + first_frame` of this video."""
    stamp: str = ""
    """The storage's stamp of the content when the video was found (see `footage_identity`); empty if not looked up."""
    stated_fps: float | None = None
    """The rate in the file's header, which `fps` may override; None for images, and if it cannot be trusted."""
    clock: FrameClock | None = None
    """What identifies its frames; None if not looked up."""
    shown: tuple[tuple[int, int, int], ...] = ()
    """(frame of the capture, frame of this video, count) of each stretch of this video's frames in the capture. Empty
    if all frames from `first_frame` are used. Frames of the capture in no stretch are missing in this view."""
    shown_turns: int = 0
    """Clockwise quarter turns that the file's metadata requests for display; decoded frames are turned by them."""
    keypoints: str = ""
    """Location from which its 2D joints are imported (then `stamp` is its stamp); empty if they are detected."""

    @property
    def stop(self) -> int:
        """The capture's frame after the last frame of this video."""
        return self.shown[-1][0] + self.shown[-1][2] if self.shown else self.num_frames - self.first_frame

    def frames_of(self, frames: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The frames of this video that show `frames` of the capture; -1 where it has none."""
        if not self.shown:
            return frames + self.first_frame
        starts, own, counts = np.array(self.shown).T
        run = np.maximum(np.searchsorted(starts, frames, side="right") - 1, 0)
        place = frames - starts[run]
        return np.where((place >= 0) & (place < counts[run]), own[run] + place, -1)

    def place_of(self, frame: float) -> float:
        """Position of a frame of this video, or of a moment between two, among the frames of the capture."""
        if not self.shown:
            return frame - self.first_frame
        run = max(bisect_right([own for _, own, _ in self.shown], frame) - 1, 0)
        start, own, _ = self.shown[run]
        return start + frame - own


Breaks = tuple[tuple[int, int], ...]
"""(frame, position on the clock in frame periods) of each frame that does not directly follow the previous one in time:
the cameras were stopped in between, or the images are single instants. A segment is the range between two breaks."""


def positions(frames: Int[np.ndarray, " n"], breaks: Breaks) -> Int[np.ndarray, " n"]:
    """Frames of a capture in frame periods since its frame 0."""
    if not breaks:
        return frames
    starts, at = np.array(((0, 0), *breaks)).T
    run = np.searchsorted(starts, frames, side="right") - 1
    return at[run] + frames - starts[run]


def segments(start: int, stop: int, breaks: Breaks) -> list[tuple[int, int]]:
    """The stretches [a, b) of successive frames within frames [start, stop) of a capture."""
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
    """One clip to be processed by one stage. The fingerprint of all inputs of the result names the result."""

    clip: Clip
    fingerprint: str

    @property
    def name(self) -> str:
        """`<start>-<stop>.<fingerprint>`, unique within a capture and a stage."""
        return f"{self.clip.clip_id.rsplit('/', 1)[1]}.{self.fingerprint}"


class Kind(StrEnum):
    """The kinds of results of a job, in processing order; each has a separate folder in the output."""

    KEYPOINTS = "keypoints"
    RIGS = "rigs"
    TRACKS = "tracks"
    IDENTITIES = "identities"
    POSES = "poses"
    FILTERED = "filtered"
    QUALITY = "quality"

    @property
    def of_whole_captures(self) -> bool:
        """Whether a result of this kind covers a whole capture, not a clip."""
        return self in (Kind.RIGS, Kind.IDENTITIES, Kind.FILTERED, Kind.QUALITY)


@dataclass(frozen=True, eq=False, kw_only=True)
class CaptureTasks:
    """The work on one capture: its clips, which tile it, and the fingerprints of their results."""

    capture_id: str
    clips: tuple[Clip, ...]
    """In order; never empty."""
    keypoints: str
    """Fingerprint of the 2D joints."""
    poses: str
    """Fingerprint of all results computed from the 2D joints and the rig."""
    filtered: str = ""
    """Fingerprint of the filtered poses; empty if none are requested."""

    @property
    def whole(self) -> Clip:
        """All frames of the capture."""
        return Clip(self.capture_id, 0, self.clips[-1].stop)

    def tasks(self, kind: Kind) -> list[Task]:
        """The tasks of a kind: one per clip, or one for the whole capture; empty if the kind is not requested."""
        if kind == Kind.FILTERED and not self.filtered:
            return []
        clips = (self.whole,) if kind.of_whole_captures else self.clips
        own = {Kind.KEYPOINTS: self.keypoints, Kind.FILTERED: self.filtered}
        return [Task(clip, own.get(kind, self.poses)) for clip in clips]


SECOND_LOOK = 2.0**-10
"""Box score of a person found by a second look, at the place that other views gave; far below any box that counts."""


@dataclass(frozen=True, eq=False)
class Keypoints2D:
    """2D joints of all people seen, by view. P is the maximum number seen in any frame; unused slots have score 0.

    A joint that was not found has confidence 0 and position NaN. Slot p has no meaning by itself: slots of different
    views and frames are unrelated until association.
    """

    xy: Float[np.ndarray, "V T P J 2"]
    """Distorted pixels of the decoded video."""
    confidence: Float[np.ndarray, "V T P J"]
    box: Float[np.ndarray, "V T P 4"]
    """left, top, right, bottom in pixels."""
    box_score: Float[np.ndarray, "V T P"]
    """`SECOND_LOOK` if no box network found the person."""
    skeleton: Skeleton
    scale: ConfidenceScale = AS_STATED
    """What `confidence` means; it is the source's own."""
    detected: Keypoints2D | None = None
    """The detector's joints of the same people, where these are corrected by other views. Cameras are judged by
    them: corrected joints agree with the cameras that corrected them."""
    lifted: Float[np.ndarray, "V T P J 3"] | None = None
    """3D joints of the same people by a network of one image: axes of the camera, metres, NaN if unknown."""

    @property
    def likelihood(self) -> Float[np.ndarray, "V T P J"]:
        """`confidence` on the common scale."""
        return self.scale.likelihood_of(self.confidence)


@dataclass(frozen=True, eq=False)
class Poses3D:
    """3D joints of a clip. A joint that could not be reconstructed is NaN with confidence 0."""

    xyz: Float[np.ndarray, "T P J 3"]
    """World, metres, Z up."""
    confidence: Float[np.ndarray, "T P J"]
    error_px: Float[np.ndarray, "T P J"]
    """Mean reprojection error over the views used; NaN if the joint is missing."""
    sigma_mm: Float[np.ndarray, "T P J"]
    """68 % of such joints are this near to their true place, see `reconstruction.joint_spread`. NaN if the joint is
    missing or its uncertainty unknown."""
    num_views: Int[np.ndarray, "T P J"]
    views_used: Bool[np.ndarray, "T P J V"]
    """Which views the triangulation kept."""
    track_id: Int[np.ndarray, "P"]
    skeleton: Skeleton


BY_FRAME = ("xyz", "confidence", "error_px", "sigma_mm", "num_views", "views_used")
"""The arrays of `Poses3D` whose axes begin with frames, people and joints."""


@dataclass(frozen=True)
class ClipFailure:
    """A clip without a result: a row in a table, never only a log line."""

    clip: Clip
    stage: str
    reason: FailureReason
    detail: str
