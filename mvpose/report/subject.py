"""The subject of a report: one capture with its poses, and its main figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from mvpose.capture import Capture
from mvpose.quality.judgement import NOT_JUDGED, Verdict
from mvpose.records import Keypoints2D, Poses3D
from mvpose.skeleton import BODY_JOINTS, Skeleton


@dataclass(frozen=True, eq=False)
class CaptureReport:
    """A reconstructed capture. `capture.rig` is the rig used for the poses; views are in its order."""

    capture: Capture
    poses: Poses3D
    frames: Int[np.ndarray, " T"]
    """Frame of the capture for each row of `poses` and `keypoints`; increasing, with gaps where a clip failed."""
    keypoints: Keypoints2D | None = None
    """The 2D detections of the same rows; without them there are no errors per camera in pixels."""
    figures: Mapping[str, int | float] = field(default_factory=dict)
    """Further quality figures to print, by name; the suffixes _px, _mm, _m, _s, _fps and _share state the unit."""
    verdict: Verdict = NOT_JUDGED
    beside: Beside | None = None

    @property
    def times_s(self) -> Float[np.ndarray, " T"]:
        """Seconds since frame 0 of the capture."""
        return self.capture.times_s(self.frames)

    @property
    def body(self) -> list[int]:
        """Indices of the joints that enter the figures."""
        return body_indices(self.poses.skeleton)

    @property
    def present(self) -> Bool[np.ndarray, "T P"]:
        """True from the first to the last frame in which any joint of a person was reconstructed."""
        found = np.isfinite(self.poses.xyz[..., 0]).any(axis=2)
        count = found.cumsum(axis=0)
        return (count > 0) & (found | (count < count[-1:]))

    @property
    def full_rows(self) -> Int[np.ndarray, " n"]:
        """Rows with at least half the maximum number of joints; empty if nothing was reconstructed."""
        joints = np.isfinite(self.poses.xyz[..., 0]).sum(axis=(1, 2))
        return np.flatnonzero((joints > 0) & (2 * joints >= joints.max(initial=0)))

    def moments(self, count: int) -> list[int]:
        """At most `count` of the full rows, evenly spread."""
        full = self.full_rows
        if not len(full):
            return []
        places = np.linspace(0, len(full) - 1, 2 * count + 1).round().astype(int)[1::2]
        return [int(row) for row in dict.fromkeys(full[places])]

    @property
    def frame_errors_px(self) -> Float[np.ndarray, " T"]:
        """Mean reprojection error of the body joints of all persons, by row; NaN if nothing was reconstructed."""
        return mean_known(self.poses.error_px[:, :, self.body], axis=(1, 2))

    @property
    def mean_error_px(self) -> float:
        """Mean reprojection error of the body joints over the views used; NaN if nothing was reconstructed."""
        return float(mean_known(self.poses.error_px[:, :, self.body]))

    @property
    def sigma_mm(self) -> float:
        """Median of the distances within which 68 % of the body joints are; NaN if they are not known."""
        return float(median_known(self.poses.sigma_mm[:, :, self.body]))

    @property
    def joint_share(self) -> float:
        """Share of the body joints that were reconstructed while their person is present; NaN without persons."""
        found = np.isfinite(self.poses.xyz[:, :, self.body, 0])
        return float(mean_known(np.where(self.present[:, :, None], found, np.nan)))

    @property
    def mean_views(self) -> float:
        """Mean number of views per reconstructed body joint."""
        views = self.poses.num_views[:, :, self.body]
        return float(mean_known(np.where(np.isfinite(self.poses.xyz[:, :, self.body, 0]), views, np.nan)))

    @property
    def bone_spread(self) -> float:
        """Standard deviation over median of a limb's length in time; median over limbs and persons."""
        lengths = bone_lengths(self.poses, limb_bones(self.poses.skeleton))
        return float(median_known(length_spread(lengths)))


@dataclass(frozen=True, eq=False)
class Beside:
    """The same capture in another run, to be compared with."""

    run: str
    subject: CaptureReport


def folder_name(capture_id: str) -> str:
    """Return a folder name for a capture: letters, digits, `-`, `_` and inner dots only; made unique by a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", capture_id)[:80].strip("._-")
    if plain and plain == capture_id:
        return plain
    return f"{plain}-{hashlib.sha256(capture_id.encode()).hexdigest()[:8]}".lstrip("-")


def body_indices(skeleton: Skeleton) -> list[int]:
    """Indices of the twelve body joints, or of all joints of a skeleton that has none of them."""
    body = [i for i, joint in enumerate(skeleton.joints) if joint in BODY_JOINTS]
    return body or list(range(len(skeleton.joints)))


def limb_bones(skeleton: Skeleton) -> list[tuple[int, int]]:
    """The bones between body joints."""
    body = set(body_indices(skeleton))
    return [(a, b) for a, b in skeleton.bone_indices if a in body and b in body]


def bone_lengths(poses: Poses3D, bones: list[tuple[int, int]]) -> Float[np.ndarray, "T P n"]:
    """Lengths in metres; NaN if an end is missing."""
    parents, children = [a for a, _ in bones], [b for _, b in bones]
    return np.linalg.norm(poses.xyz[:, :, children] - poses.xyz[:, :, parents], axis=-1)


def length_spread(lengths: Float[np.ndarray, "T P n"]) -> Float[np.ndarray, "P n"]:
    """Standard deviation over median along time; NaN for a bone seen fewer than two times."""
    masked = np.ma.masked_invalid(lengths)
    spread = masked.std(axis=0) / np.ma.median(masked, axis=0)
    return np.where(masked.count(axis=0) > 1, np.ma.filled(spread.astype(float), np.nan), np.nan)


def mean_known(values: Float[np.ndarray, "..."], axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Mean of the finite values; NaN if there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def median_known(values: Float[np.ndarray, "..."]) -> float:
    """Median of the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
