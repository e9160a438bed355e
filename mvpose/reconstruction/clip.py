"""Reconstruct the 3D joints of a clip's people from the 2D joints of all views; `reconstruct` shows the steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mvpose.errors import NoPersonError, TooFewViewsError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import radii
from mvpose.reconstruction.association import associate
from mvpose.reconstruction.body_lengths import without_impossible
from mvpose.reconstruction.joint_spread import sigma_mm
from mvpose.reconstruction.joints import (
    WIDEST,
    JointPoints,
    exchanged,
    swapped_sides,
    triangulate_joints,
)
from mvpose.reconstruction.observations import Observations, at_places, observe
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from mvpose.reconstruction.tracks import link, strongest
from mvpose.records import BY_FRAME, Keypoints2D, Poses3D
from mvpose.skeleton import Skeleton

# 2D joints of all views in memory at a time: people are triangulated one group after another. 1 M are 16 MB, and about
# ten such arrays exist at once.
GROUP_ELEMENTS = 1_000_000
MAX_TRACKS = 64
"""Maximum number of tracks of a clip; ten people who are lost and found six times each need as many."""


def reconstruct(
    keypoints: Keypoints2D, rig: CameraRig, config: ReconstructionConfig, fps: float, max_people: int = MAX_TRACKS
) -> Poses3D:
    """The people of a clip in 3D: world, metres; at most `max_people`, those with the most agreement first.

    The rig is in pixels of the decoded videos, one camera per view, in their order. The result has no people if no two
    cameras show a person at the same time. Raises TooFewViewsError for a rig of fewer than `min_views` cameras, and
    NoPersonError if cameras show people but no two of them agree on one.
    """
    _require_views(keypoints, rig, config.min_views)
    seen = observe(keypoints, rig, config.min_confidence)
    showing = (seen.weight > 0).any(dim=-1).any(dim=-1)
    if not seen.weight.any() or int(showing.sum(dim=1).max()) < 2:
        return without_people(keypoints, rig)
    people = associate(seen, rig, config.expected_error, WIDEST * config.max_error)
    tracks = link(people, fps, config.max_gap_s)
    if not tracks:
        names = [name for name, any_shown in zip(rig.names, showing.any(dim=0).tolist(), strict=True) if any_shown]
        raise NoPersonError(
            f"cameras {', '.join(names)} found people, but no two agree on one in any of {keypoints.xy.shape[1]} "
            "frames. Check that calibration and synchronisation belong to this footage"
        )
    places = strongest(tracks, people, max_people)
    group = max(1, GROUP_ELEMENTS // (seen.weight[:, :, 0].numel()))
    parts = [_people_at(part, seen, keypoints, rig, config, fps) for part in places.split(group, dim=1)]
    return _together(parts)


def _people_at(
    places: Int[Tensor, "T K V"],
    seen: Observations,
    keypoints: Keypoints2D,
    rig: CameraRig,
    config: ReconstructionConfig,
    fps: float,
) -> Poses3D:
    """The people in these slots, with rejection of views and exchange of left and right."""
    projections = rig.projections
    (pixels, weights), sizes = seen.of(places), seen.sizes(places)
    drawn = _of_people(torch.from_numpy(keypoints.xy).double().movedim(0, 1), places)
    rule = config.agreement(fps)
    found = triangulate_joints(pixels, weights, sizes, projections, rule)
    mirror = keypoints.skeleton.mirror
    swapped = swapped_sides(pixels, weights, sizes, found, projections, mirror, config.max_error)
    if config.undo_swaps and swapped.any():
        pixels, weights, drawn = (exchanged(values, swapped, mirror) for values in (pixels, weights, drawn))
        found = triangulate_joints(pixels, weights, sizes, projections, rule)
    found = without_impossible(found, (weights * found.used).sum(dim=-1), keypoints.skeleton)
    return _poses(found, drawn, weights, sizes, rig, keypoints.skeleton)


def _together(parts: list[Poses3D]) -> Poses3D:
    """Groups of people as one."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in BY_FRAME}
    return replace(parts[0], track_id=np.arange(joined["xyz"].shape[1]), **joined)


def _require_views(keypoints: Keypoints2D, rig: CameraRig, min_views: int) -> None:
    if len(keypoints.xy) != len(rig):
        raise ValueError(f"2D joints of {len(keypoints.xy)} views for a rig of {len(rig)} cameras; they must be equal")
    if len(rig) < min_views:
        raise TooFewViewsError(
            f"{len(rig)} camera(s) with footage ({', '.join(rig.names)}), but a joint needs {min_views} views that "
            f"agree. Add footage of other cameras of the rig"
        )


def without_people(keypoints: Keypoints2D, rig: CameraRig) -> Poses3D:
    """The frames without any people."""
    shape = (keypoints.xy.shape[1], 0, keypoints.xy.shape[3])
    return Poses3D(
        xyz=np.empty((*shape, 3), np.float32),
        confidence=np.empty(shape, np.float32),
        error_px=np.empty(shape, np.float32),
        sigma_mm=np.empty(shape, np.float32),
        num_views=np.empty(shape, np.int64),
        views_used=np.empty((*shape, len(rig)), bool),
        track_id=np.empty(0, np.int64),
        skeleton=keypoints.skeleton,
    )


def _of_people(xy: Float[Tensor, "T V P J 2"], places: Int[Tensor, "T K V"]) -> Float[Tensor, "T K J V 2"]:
    return at_places(xy, places).movedim(2, 3)


def _poses(
    found: JointPoints,
    drawn: Float[Tensor, "T P J V 2"],
    weights: Float[Tensor, "T P J V"],
    sizes: Float[Tensor, "T P V"],
    rig: CameraRig,
    skeleton: Skeleton,
) -> Poses3D:
    """Points with the views they are based on; errors are in pixels of the distorted images."""
    used = found.used
    num_views = used.sum(dim=-1)
    share = used / num_views.clamp_min(1)[..., None]
    projected, _ = rig.project(found.points)
    error = radii(projected.movedim(0, -2) - drawn.nan_to_num())
    nothing = torch.full_like(error[..., 0], torch.nan)
    return Poses3D(
        xyz=torch.where(found.valid[..., None], found.points, torch.nan).float().numpy(),
        confidence=(weights * share).sum(dim=-1).float().numpy(),
        error_px=torch.where(found.valid, (error * share).sum(dim=-1), nothing).float().numpy(),
        sigma_mm=sigma_mm(found, weights, sizes, rig.projections).float().numpy(),
        num_views=num_views.numpy(),
        views_used=used.numpy(),
        track_id=np.arange(found.points.shape[1]),
        skeleton=skeleton,
    )
