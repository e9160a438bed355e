"""Crops of one person among others, or of a group, in a room, photographed by every camera of a rig.

A joint is visible if it is inside the image and the surface at its pixel is at most `DEPTH_IN_LIMB_M` nearer to
the camera than the joint, along the camera's axis. A joint is inside its limb, so its own limb and clothes never hide
it; another limb, another person or an object does if it is further in front than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mvpose.datasets.sample import observed
from mvpose.geometry.camera import CameraRig
from mvpose.rendering.camera_rigs import finer, squares
from mvpose.rendering.mesh import PosedPerson
from mvpose.rendering.photograph import draw_sensor, photograph
from mvpose.rendering.renderer import Renderer
from mvpose.rendering.room import Room
from mvpose.skeleton import Skeleton

DEPTH_IN_LIMB_M = {
    "nose": 0.04, "eye": 0.04, "ear": 0.07, "head": 0.14, "neck": 0.13, "thorax": 0.16, "spine": 0.18, "hip": 0.18,
    "shoulder": 0.13, "elbow": 0.09, "wrist": 0.07, "knee": 0.11, "ankle": 0.09, "big_toe": 0.07, "small_toe": 0.07,
    "heel": 0.09,
}  # fmt: skip
"""Maximum thickness in metres of flesh, shoe and loose cloth between a joint and the surface of its own limb."""


def visible_joints(
    pixels: Float[np.ndarray, "J 2"],
    joint_depth: Float[np.ndarray, " J"],
    depth: Float[np.ndarray, "H W"],
    skeleton: Skeleton,
) -> Bool[np.ndarray, " J"]:
    """Mask of the joints that nothing occludes. Pixels of the depth image; metres along the camera's axis.

    A joint outside the image or behind the camera is not visible.
    """
    known = np.isfinite(pixels).all(axis=-1) & (joint_depth > 0)
    column, row = np.round(np.where(known[:, None], pixels, -1)).astype(int).T
    height, width = depth.shape
    known &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
    surface = depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    limb = np.array([DEPTH_IN_LIMB_M[_part(joint)] for joint in skeleton.joints])
    return known & (surface >= joint_depth - limb)


def _part(joint: str) -> str:
    side, _, part = joint.partition("_")
    return part if side in ("left", "right") else joint


# Multisampling takes 5 s per view on llvmpipe; twice the resolution takes 20 ms.
FINER = 2
MIN_JOINTS = 4
"""Views with fewer joints in the image are left out: the person is not in it."""
BODY_MARGIN_PX = 80
"""In pixels of an image of twice the resolution: a person whose joints are further outside than this is not drawn."""


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """Crops about P people by the cameras that have one of them in their image."""

    rig: CameraRig
    """Cameras of the crops, with lens distortion."""
    crops: tuple[bytes, ...]
    visible: Bool[np.ndarray, "P V J"]
    box: Float[np.ndarray, "P V 4"]
    """Boxes about the joints of each in the image, in pixels of the crop; NaN if there are none."""


def photographed(
    rng: np.random.Generator,
    renderer: Renderer,
    rig: CameraRig,
    moments: Sequence[Sequence[PosedPerson]],
    room: Room,
    pixels_of: Callable[[str], UInt8[np.ndarray, "_ _ 4"]],
    skeleton: Skeleton,
    side: int,
    margin: float,
    labelled: int = 1,
) -> RenderedViews:
    """Crops about the first `labelled` people, all in one crop.

    `moments` are the people at times of the exposure; labels are of the middle one.
    """
    joints = np.stack([person.joints for person in moments[len(moments) // 2][:labelled]]).astype(np.float64)
    inside, box = observed(rig, joints)
    kept = (inside.sum(axis=2) >= MIN_JOINTS).any(axis=0)
    whole = rig.select(tuple(name for name, chosen in zip(rig.names, kept, strict=True) if chosen))
    visible, box = inside[:, kept], box[:, kept]
    about = np.concatenate([np.nanmin(box[..., :2], axis=0), np.nanmax(box[..., 2:], axis=0)], axis=-1)
    crop, _ = squares(whole, about, margin, side)
    fine = finer(crop, FINER)
    sensors = [draw_sensor(rng, room.brightness) for _ in whole.names]
    images: list[list[np.ndarray]] = [[] for _ in sensors]
    pixels = fine.project(torch.from_numpy(joints))[0].numpy()
    depths = fine.camera_from_world.apply(torch.from_numpy(joints.reshape(1, -1, 3)))[..., 2].numpy()
    depths = depths.reshape(pixels.shape[:-1])
    for moment, people in enumerate(moments):
        renderer.stage(room.surfaces, people, room.lights, pixels_of)
        present = people_in_views(fine, people)
        for view, sensor in enumerate(sensors):
            image, depth = renderer.image(fine, view, sensor.exposure, present[view], room.background)
            images[view].append(image)
            if moment == len(moments) // 2:
                for p in range(labelled):
                    visible[p, view] &= visible_joints(pixels[view, p], depths[view, p], depth, skeleton)
    edges = np.concatenate([np.full((len(whole), 2), -0.5), whole.size.numpy() - 0.5], axis=-1)
    sizes = [(side, side)] * len(whole)
    photographs = zip(images, sizes, sensors, _in_crops(whole, crop, edges), strict=True)
    return RenderedViews(crop, tuple(photograph(rng, *v) for v in photographs), visible, _in_crops(whole, crop, box))


def people_in_views(rig: CameraRig, people: Sequence[PosedPerson]) -> list[list[int]]:
    """For each view the people who may be in its image, according to their joints."""
    joints = torch.from_numpy(np.stack([p.joints for p in people]).astype(np.float64))
    pixels, seen = rig.project(joints)
    low = torch.where(seen[..., None], pixels, torch.inf).amin(dim=2) - BODY_MARGIN_PX
    high = torch.where(seen[..., None], pixels, -torch.inf).amax(dim=2) + BODY_MARGIN_PX
    meets = (high > 0).all(dim=-1) & (low < rig.size[:, None]).all(dim=-1)
    return [[i for i, here in enumerate(row) if here] for row in meets.tolist()]


def _in_crops(whole: CameraRig, crop: CameraRig, box: Float[np.ndarray, "*P V 4"]) -> Float[np.ndarray, "*P V 4"]:
    """Boxes in pixels of the cameras' whole images in those of their crops."""
    scale = (crop.focal / whole.focal).numpy()
    # A pixel c of the whole image maps to (c + 0.5) s - 0.5 + shift.
    shift = crop.centre.numpy() - ((whole.centre.numpy() + 0.5) * scale - 0.5)
    return (box + 0.5) * np.tile(scale, 2) - 0.5 + np.tile(shift, 2)
