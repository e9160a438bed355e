"""Convert 2D joints to rays, the input of association and triangulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D

# Two poses in one view with a mean joint distance below this fraction of the box's height are duplicate detections.
# On the demo footage, duplicates are 0.01 to 0.03 apart, and different people at least 0.16.
SAME_POSE = 0.08


@dataclass(frozen=True, eq=False)
class Observations:
    """2D joints, frames first. A joint of weight 0 must not be used; its pixel and ray are undefined."""

    ideal: Float[Tensor, "T V P J 2"]
    """Undistorted pixels, as used by `rig.projections`."""
    ray: Float[Tensor, "T V P J 3"]
    """Unit directions in the world from `origin`."""
    origin: Float[Tensor, "V 3"]
    weight: Float[Tensor, "T V P J"]
    """Likelihood that the joint is right, see `mvpose.confidence`."""
    box: Float[Tensor, "T V P 4"]
    """left, top, right, bottom in pixels of the images; empty if there is no person."""
    extent: Float[Tensor, "T V P"]
    """Larger side of the box divided by the focal length: the angular size of the person, in radians."""

    @cached_property
    def relative_weight(self) -> Float[Tensor, "T V P J"]:
        """Weight relative to the detection's best joint: a person who is small or blurred in a view counts fully."""
        return self.weight / self.weight.amax(dim=-1, keepdim=True).clamp_min(1e-30)

    @cached_property
    def directions(self) -> Float[Tensor, "3 T V P J"]:
        """`ray` with the coordinates first, so that steps over them run over contiguous memory."""
        return self.ray.movedim(-1, 0).contiguous()

    @cached_property
    def directions_frames_last(self) -> Float[Tensor, "3 V P J T"]:
        """`ray` with the coordinates first and the frames last."""
        return self.ray.permute(4, 1, 2, 3, 0).contiguous()

    def sizes(self, places: Int[Tensor, "T K V"]) -> Float[Tensor, "T K V"]:
        """Larger side of the box of the people at these places, in pixels; 1 where a place is -1."""
        side = (self.box[..., 2:] - self.box[..., :2]).amax(dim=-1)
        return torch.where(places >= 0, at_places(side, places), 1.0).clamp_min(1.0)

    def frames(self, which: slice | Int[Tensor, " n"]) -> Observations:
        """Some of the frames."""
        some = (values[which] for values in (self.ideal, self.ray, self.weight, self.box, self.extent))
        ideal, ray, weight, box, extent = some
        return Observations(ideal, ray, self.origin, weight, box, extent)

    def of(self, places: Int[Tensor, "T K V"]) -> tuple[Float[Tensor, "T K J V 2"], Float[Tensor, "T K J V"]]:
        """Undistorted pixels and weights of the people in these slots, views last; weight 0 where a slot is -1."""
        ideal = at_places(self.ideal, places).movedim(2, 3)
        weight = at_places(self.weight, places).movedim(2, 3)
        return ideal, weight * (places >= 0)[:, :, None]


def observe(keypoints: Keypoints2D, rig: CameraRig, min_confidence: float) -> Observations:
    """Undistort all joints of at least this likelihood. Of duplicate detections in a view, the better one is kept."""
    confidence = keypoints.confidence.astype(np.float64)
    likelihood = torch.from_numpy(keypoints.scale.likelihood_near(confidence, border_distance(keypoints, rig)))
    usable = (likelihood >= min_confidence) & (likelihood > 0) & torch.from_numpy(~_found_twice(keypoints))[..., None]
    xy = torch.from_numpy(keypoints.xy).double()
    # Missing joints go where undistortion is fast: the corner of an image may have no solution.
    pixels = torch.where(xy.isfinite(), xy, rig.centre[:, None, None, None])
    ideal, invertible = rig.undistorted(pixels)
    usable &= invertible
    on_plane = (ideal - rig.centre[:, None, None, None]) / rig.focal[:, None, None, None]
    direction = torch.cat([on_plane, torch.ones_like(on_plane[..., :1])], dim=-1)
    world = torch.einsum("vab,vtpja->vtpjb", rig.camera_from_world.rotation, direction)
    box = torch.from_numpy(keypoints.box).double().movedim(0, 1).contiguous()
    return Observations(
        ideal=ideal.movedim(0, 1).contiguous(),
        ray=torch.nn.functional.normalize(world, dim=-1).movedim(0, 1).contiguous(),
        origin=rig.centres_world,
        weight=(likelihood * usable).movedim(0, 1).contiguous(),
        box=box,
        extent=(box[..., 2:] - box[..., :2]).amax(dim=-1) / rig.focal.mean(dim=-1)[:, None],
    )


def border_distance(keypoints: Keypoints2D, rig: CameraRig) -> Float[np.ndarray, "V T P J"]:
    """Distance of all joints to the border of the image, relative to the person's size; negative outside the image."""
    xy = np.nan_to_num(keypoints.xy)
    pixels = np.minimum(xy, (rig.size.numpy() - 1)[:, None, None, None] - xy).min(axis=-1)
    return pixels / (keypoints.box[..., 2:] - keypoints.box[..., :2]).max(axis=-1, initial=1.0)[..., None]


def at_places(values: Tensor, places: Int[Tensor, "T K V"]) -> Tensor:
    """`values` (T V P *rest) of the people in these slots, as (T K V *rest); a slot of -1 reads slot 0."""
    frame = torch.arange(places.shape[0])[:, None, None]
    view = torch.arange(places.shape[2])[None, None]
    return values[frame, view, places.clamp_min(0)]


def _found_twice(keypoints: Keypoints2D) -> Bool[np.ndarray, "V T P"]:
    """People whose joints coincide with those of a more confident person in the same view and frame."""
    confidence, xy = keypoints.confidence, np.nan_to_num(keypoints.xy)
    sureness = confidence.mean(axis=-1)
    height = np.maximum(keypoints.box[..., 3] - keypoints.box[..., 1], 1.0)
    num_people = confidence.shape[2]
    twice = np.zeros(sureness.shape, bool)
    for p in range(num_people):
        for q in range(num_people):
            both = np.minimum(confidence[:, :, p], confidence[:, :, q])
            apart = np.linalg.norm(xy[:, :, p] - xy[:, :, q], axis=-1)
            mean = (both * apart).sum(axis=-1) / np.maximum(both.sum(axis=-1), 1e-6)
            surer = (sureness[:, :, q] > sureness[:, :, p]) | ((sureness[:, :, q] == sureness[:, :, p]) & (q < p))
            near = mean < SAME_POSE * np.minimum(height[:, :, p], height[:, :, q])
            twice[:, :, p] |= near & surer & (both.sum(axis=-1) > 0)
    return twice
