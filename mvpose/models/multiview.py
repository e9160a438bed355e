"""Common interface of all methods: inputs, outputs, and the steps that they share.

    method(crops, projections, present=None, keep_maps=False) -> MultiViewPrediction

`crops` are RGB images of one person by V views, uint8 or floats in 0..1, with lens distortion removed; `projections`
map world metres to their pixels (half-pixel rule); `present` is the mask of present views. A view whose crop or matrix
is not finite counts as absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mvpose import heatmaps as maps
from mvpose.geometry.rigid import Rigid
from mvpose.geometry.triangulation import DltMethod, triangulate
from mvpose.models.fusion.canonical_frame import CanonicalFrame, canonical_frame
from mvpose.models.network_settings import PIXEL_DEVIATION, PIXEL_MEAN, STRIDE, Decoding
from mvpose.models.volumes.cube import Volume
from mvpose.models.volumes.peaks import heatmap_peaks


@dataclass(frozen=True, eq=False)
class CameraPose:
    """A pose as a monocular network sees it."""

    volume_points: Float[Tensor, "B J 3"]
    """Joints of the head in the crop's normalised volume (`single_view.epipolar_pose.to_volume`)."""
    pose: Float[Tensor, "B J 3"]
    """The joints in the camera's axes, metres."""
    span_m: Float[Tensor, "B"]
    """Estimated width of the crop at the root, metres."""
    intrinsics: Float[Tensor, "B 3 3"]
    """K of the crop."""
    camera_from_world: Rigid


@dataclass(frozen=True, eq=False)
class MultiViewPrediction:
    """One person's pose. A joint without an answer is (0, 0, 0) with `valid` false and confidence 0; nothing is NaN."""

    joints: Float[Tensor, "B J 3"]
    """World, metres."""
    valid: Bool[Tensor, "B J"]
    confidence: Float[Tensor, "B J"]
    """0..1: concentration of the joint's maps. Comparable within a method, not between methods."""
    joints_2d: Float[Tensor, "B V J 2"]
    """Pixels of the crops; undefined if a view is absent."""
    confidence_2d: Float[Tensor, "B V J"]
    views_used: Bool[Tensor, "B V J"]
    """Mask of the views used for the joint."""
    scale_2d: Float[Tensor, "B V J"] | None = None
    """Scale of the distribution of `joints_2d` about the truth (`losses.likelihood`), in pixels of the crops; None from
    methods that do not predict it."""
    scores: tuple[Float[Tensor, "B V J X"], Float[Tensor, "B V J Y"]] | None = None
    """SimCC scores of columns and rows, kept on request."""
    heatmaps: Float[Tensor, "B V J h w"] | None = None
    """Raw maps of the last 2D stage, kept on request."""
    unfused: Float[Tensor, "B V J h w"] | None = None
    """Maps of each view alone, before a fusion of maps; kept on request, None from other methods."""
    volume: Volume | None = None
    """The volumetric method's volume from which joints were read, kept on request."""
    coarse: MultiViewPrediction | None = None
    """The algebraic stage that centred the volumetric method's cube, or the first stage of a refinement unit, kept on
    request for training."""
    camera_pose: CameraPose | None = None
    """Of a monocular network, kept on request."""


# Registered so that torch.export can return a prediction.
torch.export.register_dataclass(MultiViewPrediction, serialized_type_name="mvpose.MultiViewPrediction")


@dataclass(frozen=True, eq=False)
class Views:
    """Prepared inputs, all numbers finite: normalised images or tokens. An absent view repeats a present one."""

    images: Float[Tensor, "B V 3 H W"] | Float[Tensor, "B V J d"]
    projections: Float[Tensor, "B V 3 4"]
    present: Bool[Tensor, "B V"]
    frame: CanonicalFrame
    size: tuple[int, int]


def open_views(
    crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
    projections: Float[Tensor, "B V 3 4"],
    present: Bool[Tensor, "B V"] | None,
    extent: float,
) -> Views:
    """Check the inputs, mask what is not finite, normalise, and find the canonical frame.

    ValueError if shapes contradict each other or a side is not a multiple of 32. An absent view gets the image
    and camera of the sample's first present one. Thus batch statistics in training never see a blank image, and
    nothing that is multiplied by its weight 0 is NaN.
    """
    _check(crops, projections, present)
    images = crops.float() / 255 if crops.dtype == torch.uint8 else crops
    images, projections, present = without_gaps(images, projections, present)
    mean, deviation = (images.new_tensor(c)[:, None, None] for c in (PIXEL_MEAN, PIXEL_DEVIATION))
    size = crops.shape[-1], crops.shape[-2]
    frame = canonical_frame(projections, present, size, extent)
    return Views((images - mean) / deviation, projections, present, frame, size)


def open_tokens(
    tokens: Float[Tensor, "B V J d"],
    projections: Float[Tensor, "B V 3 4"],
    present: Bool[Tensor, "B V"] | None,
    size: tuple[int, int],
    extent: float,
) -> Views:
    """The same for tokens that a single-view network made from crops of (width, height) `size`."""
    tokens, projections, present = without_gaps(tokens, projections, present)
    return Views(tokens, projections, present, canonical_frame(projections, present, size, extent), size)


def without_gaps(
    values: Float[Tensor, "B V *rest"] | UInt8[Tensor, "B V *rest"],
    projections: Float[Tensor, "B V 3 4"],
    present: Bool[Tensor, "B V"] | None,
) -> tuple[Tensor, Float[Tensor, "B V 3 4"], Bool[Tensor, "B V"]]:
    """Views with finite numbers alone: absent ones repeat the sample's first present one."""
    finite = torch.isfinite(values).flatten(2).all(dim=-1) & torch.isfinite(projections).flatten(2).all(dim=-1)
    present = finite if present is None else present & finite
    views = torch.arange(present.shape[1], device=present.device)
    source = torch.where(present, views, present.int().argmax(dim=1, keepdim=True))
    sample = torch.arange(present.shape[0], device=present.device)[:, None]
    some = present.any(dim=1)[:, None, None, None]
    values = torch.where(some.reshape(-1, *[1] * (values.ndim - 1)), values[sample, source], torch.zeros_like(values))
    projections = torch.where(some, projections[sample, source], torch.eye(3, 4).to(projections))
    return values, projections, present


def read_heatmaps(
    heatmaps: Float[Tensor, "B V J h w"], size: tuple[int, int], decoding: Decoding
) -> tuple[Float[Tensor, "B V J 2"], Float[Tensor, "B V J"]]:
    """Points in pixels of crops of (width, height) `size`, and their confidence (without gradient)."""
    if decoding.kind == "centre_of_mass":
        probability = maps.masses(heatmaps)
    else:
        probability = maps.probabilities(heatmaps, decoding.sharpness)
    match decoding.kind:
        case "argmax":
            points = maps.argmax(heatmaps)
        case "peak":
            points = heatmap_peaks(heatmaps.to(probability))[0]
        case _:
            points = maps.expectation(probability)
    confidence = maps.concentration(probability.detach(), points.detach(), decoding.radius)
    return maps.resized_points(points, (heatmaps.shape[-1], heatmaps.shape[-2]), size), confidence


def lift(
    points: Float[Tensor, "B V J 2"], weights: Float[Tensor, "B V J"], views: Views, solver: DltMethod
) -> tuple[Float[Tensor, "B J 3"], Bool[Tensor, "B J"]]:
    """World joints by weighted DLT in float32 or better, and a mask of the determined ones (see `triangulate`)."""
    if points.shape[1] < 2:
        nothing = torch.zeros_like(points[:, 0, :, :1]).expand(-1, -1, 3)
        return nothing, nothing[..., 0] > 0
    with torch.autocast(points.device.type, enabled=False):
        found = triangulate(
            points.to(views.projections).transpose(1, 2),
            views.projections[:, None],
            weights.to(views.projections).transpose(1, 2),
            views.present[:, None].expand(-1, points.shape[2], -1),
            method=solver,
            check=False,
        )
    return found.points, found.valid


def triangulated(
    heatmaps: Float[Tensor, "B V J h w"],
    views: Views,
    decoding: Decoding,
    weights: Float[Tensor, "B V J"] | None = None,
    keep_maps: bool = False,
) -> MultiViewPrediction:
    """Heatmaps to a prediction: decode every view, then weighted DLT (equal weights by default)."""
    points, confidence = read_heatmaps(heatmaps, views.size, decoding)
    weights = torch.ones_like(confidence) if weights is None else weights
    joints, valid = lift(points, weights, views, decoding.solver)
    used = views.present[..., None] & (weights > 0) & valid[:, None]
    return MultiViewPrediction(
        joints=joints,
        valid=valid,
        confidence=(confidence * used).sum(dim=1) / used.sum(dim=1).clamp_min(1),
        joints_2d=points,
        confidence_2d=confidence * views.present[..., None],
        views_used=used,
        heatmaps=heatmaps if keep_maps else None,
    )


def _check(crops: Tensor, projections: Tensor, present: Tensor | None) -> None:
    if crops.ndim != 5 or crops.shape[2] != 3:
        raise ValueError(f"crops must be (B, V, 3, H, W), not {tuple(crops.shape)}")
    if crops.shape[3] % STRIDE or crops.shape[4] % STRIDE:
        raise ValueError(f"the sides of crops must be multiples of {STRIDE}, not {tuple(crops.shape[3:])}")
    if tuple(projections.shape) != (*crops.shape[:2], 3, 4):
        raise ValueError(
            f"crops of {crops.shape[0]} samples by {crops.shape[1]} views need projections "
            f"({crops.shape[0]}, {crops.shape[1]}, 3, 4), not {tuple(projections.shape)}"
        )
    if present is not None and tuple(present.shape) != tuple(crops.shape[:2]):
        raise ValueError(f"the view mask must be {tuple(crops.shape[:2])}, not {tuple(present.shape)}")
