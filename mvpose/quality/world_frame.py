"""Check the world frame of a calibration: people of human size on z = 0, cameras above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.robust import triangulate_robust
from mvpose.quality.sightings import GATE, Sightings

# Ankle to knee to hip, and hip to shoulder, as fractions of stature: 0.246 + 0.245 + 0.288 (Drillis and Contini 1966,
# cited in Winter, "Biomechanics and Motor Control of Human Movement", 4th edition, figure 4.1). People need not stand
# straight.
SEGMENTS = (("ankle", "knee"), ("knee", "hip"), ("hip", "shoulder"))
SEGMENTS_OF_STATURE = 0.779
FEET = ("heel", "big_toe", "small_toe")
# Height of the ankle above the floor, from the same source.
ANKLE_OF_STATURE = 0.039
# This quantile over time of a person's lowest joint is the floor: one frame in ten may be below it because of noise,
# and the person may jump in the others.
ON_FLOOR = 0.1


@dataclass(frozen=True)
class WorldFrame:
    """The world's scale, floor and up axis from people and cameras. NaN where the required joints were not seen."""

    stature_m: float
    """Median over people and frames, from the lengths of shin, thigh and trunk."""
    floor_m: float
    """Height of the feet when they are on the floor."""
    usual_feet_m: float
    """Median height of the feet: near or above the floor that people usually stand on, if they go up or down steps."""
    body_up: tuple[float, float, float]
    """Mean unit vector from ankles to shoulders; shorter than 1 if it varies."""
    cameras_up: tuple[float, float, float]
    """Mean of the up directions of the cameras' images."""
    camera_heights_m: tuple[float, ...]
    """Above the feet, along z."""
    agreed_share: float
    """Fraction of the joints in three views on which three agree (two, in a rig of two); NaN if there are none."""


def measured_world_frame(sightings: Sightings, rig: CameraRig) -> WorldFrame:
    """The room from these people's joints on which three views agree (two, in a rig of two).

    In the single-person demo, a bystander seen by two cameras almost side by side is reconstructed 0.3 m below the
    floor.
    """
    limit_px = GATE * sightings.person_px
    found = triangulate_robust(
        sightings.ideal,
        rig.projections,
        sightings.weight,
        threshold_px=limit_px,
        scale_px=limit_px / 6,
        check=False,
    )
    enough = min(3, len(rig))
    sure = found.valid & (found.inliers.sum(dim=-1) >= enough)
    shown = (sightings.weight > 0).sum(dim=-1) >= enough
    points = torch.where(sure[..., None], found.points, torch.nan)
    joints = {joint: points[:, :, i] for i, joint in enumerate(sightings.skeleton.joints)}
    stature = stature_m(joints)
    floor, usual_feet = _floor(joints, stature)
    up = _middle(joints, "shoulder") - _middle(joints, "ankle")
    up = torch.nn.functional.normalize(up, dim=-1).flatten(0, 1)
    upright = up[~up.isnan().any(dim=-1)]
    body = upright.mean(dim=0) if len(upright) else torch.full((3,), torch.nan)
    cameras = -rig.camera_from_world.rotation[:, 1].mean(dim=0)
    return WorldFrame(
        stature_m=stature,
        floor_m=floor,
        usual_feet_m=usual_feet,
        body_up=(float(body[0]), float(body[1]), float(body[2])),
        cameras_up=(float(cameras[0]), float(cameras[1]), float(cameras[2])),
        camera_heights_m=tuple((rig.centres_world[:, 2] - floor).tolist()),
        agreed_share=float(sure.sum() / shown.sum()),
    )


def degrees_from_up(direction: Sequence[float]) -> float:
    """Angle between a direction and +Z."""
    vector = torch.tensor(direction, dtype=torch.float64)
    return float(torch.rad2deg(torch.arccos((vector[2] / vector.norm()).clamp(-1.0, 1.0))))


def nearest_axis(direction: Sequence[float]) -> str:
    """The nearest axis: x, -x, y, -y, z or -z."""
    axis = max(range(3), key=lambda i: abs(direction[i]))
    return ("-" if direction[axis] < 0 else "") + "xyz"[axis]


def stature_m(joints: dict[str, Float[Tensor, "T K 3"]]) -> float:
    """Stature from the median over people and frames of shins, thighs and trunks, averaged over both sides.

    `joints` are world points in metres by name, NaN if unknown. The result is NaN if a segment was never seen.
    """
    length = 0.0
    for below, above in SEGMENTS:
        sides = [
            (joints[f"{side}_{above}"] - joints[f"{side}_{below}"]).norm(dim=-1)
            for side in ("left", "right")
            if f"{side}_{above}" in joints and f"{side}_{below}" in joints
        ]
        length += float(torch.stack(sides).nanmedian()) if sides else torch.nan
    return length / SEGMENTS_OF_STATURE


def _floor(joints: dict[str, Tensor], stature_m: float) -> tuple[float, float]:
    """Height of the lowest joint of the feet when it is on the floor, and in the median."""
    feet = [joints[f"{side}_{part}"] for side in ("left", "right") for part in FEET if f"{side}_{part}" in joints]
    ankles = [joints[f"{side}_ankle"] for side in ("left", "right") if f"{side}_ankle" in joints]
    if not feet and not ankles:
        return torch.nan, torch.nan
    heights = torch.stack(feet or ankles)[..., 2]
    lowest = torch.where(heights.isnan(), torch.inf, heights).amin(dim=0)
    standing = lowest[lowest.isfinite()]
    if not len(standing):
        return torch.nan, torch.nan
    below_m = 0.0 if feet else ANKLE_OF_STATURE * stature_m
    return float(standing.quantile(ON_FLOOR)) - below_m, float(standing.quantile(0.5)) - below_m


def _middle(joints: dict[str, Float[Tensor, "T K 3"]], part: str) -> Float[Tensor, "T K 3"]:
    nothing = torch.full_like(next(iter(joints.values())), torch.nan)
    return (joints.get(f"left_{part}", nothing) + joints.get(f"right_{part}", nothing)) / 2
