"""2D joints of all views of one clip to the 3D joints of its people: read `reconstruct` from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.errors import ConfigError, NoPersonError, TooFewViewsError
from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.association import associate
from mvpose.reconstruction.joints import (
    WIDEST,
    WINDOW_S,
    Agreement,
    JointPoints,
    exchanged,
    swapped_sides,
    triangulate_joints,
)
from mvpose.reconstruction.observations import at_places, observe
from mvpose.reconstruction.tracks import link, strongest
from mvpose.records import Keypoints2D, Poses3D
from mvpose.skeleton import Skeleton


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How 2D joints become 3D joints."""

    max_people: int = 1
    """People kept, those whom views and frames agree on most."""
    min_confidence: float = 0.3
    """2D joints less sure than this are not used."""
    min_views: int = 2
    """A joint needs this many views that agree."""
    max_error: float = 0.025
    """A view that is farther than this from the joint that the others agree on is left out.

    In shares of the person's size in that image (the larger side of the box). On the demos at 1.5, 2, 2.5 and 3 %: a
    camera left out is off by 14.9, 14.3, 13.9, 13.8 px (cameras adjusted: 12.3, 12.0, 11.9, 11.9; two people adjusted:
    16.5, 16.3, 16.1, 16.1), bones vary by 4.9, 4.3, 3.3, 3.2 % (3.7, 3.4, 3.4, 3.4; 4.0, 3.9, 3.7, 3.7). From 2.5 % on
    nothing is gained, and the error of the views kept, which falls with every view dropped, has no say.
    """
    expected_error: float = 0.015
    """Of a 2D joint, calibration and synchronisation included, as a share of the person's size in that image."""
    max_gap_s: float = 1.0
    """A person may go unseen for so long and is still the same."""
    undo_swaps: bool = True
    """Exchange left and right in a view where that makes both joints fit."""

    def __post_init__(self) -> None:
        for name, minimum in (("max_people", 1), ("min_views", 2)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"reconstruction.{name} is {getattr(self, name)}; it must be at least {minimum}")
        for name in ("max_error", "expected_error"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"reconstruction.{name} is {getattr(self, name)}; it must be above 0")

    def agreement(self, fps: float) -> Agreement:
        """When views agree on a joint, in frames of this clip."""
        window = round(WINDOW_S * fps)
        return Agreement(max_error=self.max_error, min_views=self.min_views, window=window)


def reconstruct(keypoints: Keypoints2D, rig: CameraRig, config: ReconstructionConfig, fps: float) -> Poses3D:
    """The people of a clip in 3D: world, metres; at most `max_people`, the one most agreed on first.

    The rig is told in pixels of the decoded videos, one camera a view, in their order. Where no two cameras show
    anybody at the same time there are no people. Raises TooFewViewsError for a rig of fewer than `min_views` cameras,
    and NoPersonError when cameras show people and no two of them agree on one.
    """
    _require_views(keypoints, rig, config.min_views)
    projections = rig.projections
    seen = observe(keypoints, rig, config.min_confidence)
    if not seen.weight.any() or _showing(keypoints, config).sum(axis=0).max(initial=0) < 2:
        return _nobody(keypoints, rig)
    people = associate(seen, rig, config.expected_error, WIDEST * config.max_error)
    tracks = link(people, fps, config.max_gap_s)
    if not tracks:
        names = [name for name, view in zip(rig.names, _showing(keypoints, config), strict=True) if view.any()]
        raise NoPersonError(
            f"cameras {', '.join(names)} found people, but no two agree on one in any of {keypoints.xy.shape[1]} "
            "frames; check that calibration and synchronisation are those of this footage"
        )
    places = strongest(tracks, people, config.max_people)
    (pixels, weights), sizes = seen.of(places), seen.sizes(places)
    drawn = _of_people(torch.from_numpy(keypoints.xy).double().movedim(0, 1), places)
    rule = config.agreement(fps)
    found = triangulate_joints(pixels, weights, sizes, projections, rule)
    mirror = keypoints.skeleton.mirror
    swapped = swapped_sides(pixels, weights, sizes, found, projections, mirror, config.max_error)
    if config.undo_swaps and swapped.any():
        pixels, weights, drawn = (exchanged(values, swapped, mirror) for values in (pixels, weights, drawn))
        found = triangulate_joints(pixels, weights, sizes, projections, rule)
    return _poses(found, drawn, weights, rig, keypoints.skeleton)


def _require_views(keypoints: Keypoints2D, rig: CameraRig, min_views: int) -> None:
    if len(keypoints.xy) != len(rig):
        raise ValueError(f"2D joints of {len(keypoints.xy)} views for a rig of {len(rig)} cameras; give one a camera")
    if len(rig) < min_views:
        raise TooFewViewsError(
            f"{len(rig)} camera(s) with footage ({', '.join(rig.names)}), and a joint needs {min_views} that agree; "
            f"add footage of other cameras of the rig"
        )


def _showing(keypoints: Keypoints2D, config: ReconstructionConfig) -> Bool[np.ndarray, "V T"]:
    """Which view shows anybody in which frame."""
    sure = (keypoints.confidence >= config.min_confidence) & (keypoints.confidence > 0)
    return np.any(sure, axis=(2, 3))


def _nobody(keypoints: Keypoints2D, rig: CameraRig) -> Poses3D:
    """The frames, and no people in them."""
    shape = (keypoints.xy.shape[1], 0, keypoints.xy.shape[3])
    return Poses3D(
        xyz=np.empty((*shape, 3), np.float32),
        confidence=np.empty(shape, np.float32),
        error_px=np.empty(shape, np.float32),
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
    rig: CameraRig,
    skeleton: Skeleton,
) -> Poses3D:
    """Points with what they rest on; errors are told in pixels of the images, through the lenses."""
    used = found.used
    num_views = used.sum(dim=-1)
    share = used / num_views.clamp_min(1)[..., None]
    projected, _ = rig.project(found.points)
    error = (projected.movedim(0, -2) - drawn.nan_to_num()).norm(dim=-1)
    nothing = torch.full_like(error[..., 0], torch.nan)
    return Poses3D(
        xyz=torch.where(found.valid[..., None], found.points, torch.nan).float().numpy(),
        confidence=(weights * share).sum(dim=-1).float().numpy(),
        error_px=torch.where(found.valid, (error * share).sum(dim=-1), nothing).float().numpy(),
        num_views=num_views.numpy(),
        views_used=used.numpy(),
        track_id=np.arange(found.points.shape[1]),
        skeleton=skeleton,
    )
