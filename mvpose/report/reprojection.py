"""Reprojection of 3D joints into the cameras, matched to the 2D detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D
from mvpose.report.subject import CaptureReport

# A detection belongs to a person if half of its joints are within this share of the diagonal of the person's
# projection. Overlays colour detections accordingly. A neighbour is about a body's width, 0.3 heights, away.
MATCH_SHARE = 0.2
ROWS_AT_ONCE = 512
# Pixels; farther than any distance in an image.
FARTHER = 1e6


@dataclass(frozen=True, eq=False)
class Reprojection:
    """Reprojection of some rows of a capture into all cameras, in distorted pixels of the decoded videos."""

    projected: Float[np.ndarray, "V T P J 2"]
    """The 3D joints; NaN if a joint is missing or outside the camera's view."""
    detected: Float[np.ndarray, "V T P J 2"]
    """The 2D joints of the detection nearest to each person; NaN if none is near enough."""
    used: Bool[np.ndarray, "V T P J"]
    """Whether the view was kept in the triangulation of the joint."""
    unrelated: Float[np.ndarray, "V T Q J 2"]
    """Detections that belong to no reconstructed person; NaN elsewhere."""

    @property
    def error_px(self) -> Float[np.ndarray, "V T P J"]:
        """Distance between projection and detection in the views used; NaN elsewhere."""
        distance = np.linalg.norm(self.projected - self.detected, axis=-1)
        return np.where(self.used, distance, np.nan)


def reproject(subject: CaptureReport, rows: slice) -> Reprojection:
    """Reproject rows of a capture into its cameras, with lens distortion."""
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
    """Project world points to distorted pixels; NaN for a missing point, or one behind a camera or beyond its lens."""
    points = torch.from_numpy(xyz).to(rig.focal)
    known = points.isfinite().all(dim=-1)
    pixels, seen = rig.project(torch.where(known[..., None], points, 0.0))
    return torch.where((seen & known)[..., None], pixels, torch.nan).cpu().double().numpy()


def camera_errors(subject: CaptureReport) -> Float[np.ndarray, "V T P J"]:
    """Reprojection error in pixels of every used observation, else NaN. float32, because the array is large."""
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
    """Return the detections of one view matched to each person, and the unmatched ones.

    The order of detections in `Keypoints2D` has no meaning. A person is matched to the detection with the smallest
    median joint distance to the person's projection. A view used in the triangulation always has a match, at any
    distance. No detection is matched twice: the person it was triangulated for comes first, then the nearest.
    """
    there = (keypoints.confidence[view, rows] > 0) & (keypoints.box_score[view, rows] > 0)[..., None]
    xy = np.where(there[..., None], keypoints.xy[view, rows], np.nan)
    if not projected.shape[1] or not xy.shape[1]:  # without persons or detections there is no nearest one
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
