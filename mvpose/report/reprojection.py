"""3D joints seen through the cameras again, and the detections that they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D
from mvpose.report.subject import CaptureReport

# A detection belongs to a person if half of its joints lie within this share of the diagonal of the person's
# projection. Overlays colour a detection by it; a neighbour stands about a body's width, 0.3 heights, away.
MATCH_SHARE = 0.2
ROWS_AT_ONCE = 512
# Pixels; farther than anything in a picture.
FARTHER = 1e6


@dataclass(frozen=True, eq=False)
class Reprojection:
    """Some rows of a capture in the pictures of all cameras; distorted pixels of the decoded videos."""

    projected: Float[np.ndarray, "V T P J 2"]
    """The 3D joints; NaN where a joint is missing or the camera cannot see there."""
    detected: Float[np.ndarray, "V T P J 2"]
    """The 2D joints of the detection nearest to each person; NaN where there is none near enough."""
    used: Bool[np.ndarray, "V T P J"]
    """Whether the view was kept in the triangulation of the joint."""
    unrelated: Float[np.ndarray, "V T Q J 2"]
    """Detections of nobody who was reconstructed; NaN elsewhere."""

    @property
    def error_px(self) -> Float[np.ndarray, "V T P J"]:
        """Distance of projection and detection in the views used; NaN elsewhere."""
        distance = np.linalg.norm(self.projected - self.detected, axis=-1)
        return np.where(self.used, distance, np.nan)


def reproject(subject: CaptureReport, rows: slice) -> Reprojection:
    """Rows of a capture through its cameras, lens distortion included."""
    poses = subject.poses
    projected = project(poses.xyz[rows], subject.capture.rig)
    used = np.moveaxis(poses.views_used[rows], -1, 0)
    if subject.keypoints is None:
        nothing = np.full(projected.shape, np.nan)
        return Reprojection(projected, nothing, used, nothing[:, :, :0])
    matched = [_match(projected[v], subject.keypoints, v, rows, used[v]) for v in range(len(projected))]
    detected, unrelated = (np.stack(part) for part in zip(*matched, strict=True))
    return Reprojection(projected, detected, used, unrelated)


def project(xyz: Float[np.ndarray, "T P J 3"], rig: CameraRig) -> Float[np.ndarray, "V T P J 2"]:
    """World points to distorted pixels; NaN where the point is, behind a camera, or beyond its lens."""
    points = torch.from_numpy(xyz).to(rig.focal)
    known = points.isfinite().all(dim=-1)
    pixels, seen = rig.project(torch.where(known[..., None], points, 0.0))
    return torch.where((seen & known)[..., None], pixels, torch.nan).cpu().double().numpy()


def camera_errors(subject: CaptureReport) -> Float[np.ndarray, "V T P J"]:
    """Reprojection error in pixels of every observation used; NaN where a view was not used. float32: it is large."""
    num_frames, num_people, num_joints = subject.poses.confidence.shape
    errors = np.full((len(subject.capture.rig), num_frames, num_people, num_joints), np.nan, dtype=np.float32)
    for start in range(0, num_frames, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        errors[:, rows] = reproject(subject, rows).error_px
    return errors


def _match(
    projected: Float[np.ndarray, "T P J 2"],
    keypoints: Keypoints2D,
    view: int,
    rows: slice,
    used: Bool[np.ndarray, "T P J"],
) -> tuple[Float[np.ndarray, "T P J 2"], Float[np.ndarray, "T Q J 2"]]:
    """The detections of one view that belong to each person, and those that belong to none.

    Places of `Keypoints2D` mean nothing by themselves: a person's detection is the one whose joints lie nearest to the
    person's projection, in the median. A view that was used in the triangulation has one, however far. No detection
    belongs to two: whoever it was used for comes first, then whoever is nearest.
    """
    there = (keypoints.confidence[view, rows] > 0) & (keypoints.box_score[view, rows] > 0)[..., None]
    xy = np.where(there[..., None], keypoints.xy[view, rows], np.nan)
    if not projected.shape[1] or not xy.shape[1]:  # nobody in the capture: nothing has a nearest one
        return np.full_like(projected, np.nan), xy
    distance = np.linalg.norm(projected[:, :, None] - xy[:, None], axis=-1)
    median = np.ma.median(np.ma.masked_invalid(distance), axis=-1).filled(np.inf)
    nearest = median.argmin(axis=2)
    smallest = np.take_along_axis(median, nearest[..., None], axis=2)[..., 0]
    extent = np.linalg.norm(np.fmax.reduce(projected, axis=2) - np.fmin.reduce(projected, axis=2), axis=-1)
    used_here = used.any(axis=2) & np.isfinite(smallest)
    mine = (smallest <= MATCH_SHARE * extent) | used_here
    claim = np.where(used_here, smallest - FARTHER, np.where(mine, smallest, np.inf))
    rival = np.where(nearest[:, :, None] == nearest[:, None], claim[:, None], np.inf).min(axis=2)
    mine &= claim <= rival
    detected = np.take_along_axis(xy, nearest[:, :, None, None], axis=1)
    taken = (mine[..., None] & (nearest[..., None] == np.arange(xy.shape[1]))).any(axis=1)
    return np.where(mine[..., None, None], detected, np.nan), np.where(taken[..., None, None], np.nan, xy)
