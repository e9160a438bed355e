"""The rig of a camera whose images were turned by quarters."""

from __future__ import annotations

from dataclasses import replace

import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid


def image_turned(rig: CameraRig, camera: int, quarter_turns: int) -> CameraRig:
    """The rig with one camera's image turned clockwise. One turn moves pixel (x, y) to (height - 1 - y, x)."""
    for _ in range(quarter_turns % 4):
        rig = _turned_once(rig, camera)
    return rig


def _turned_once(rig: CameraRig, camera: int) -> CameraRig:
    focal, centre, size = rig.focal.clone(), rig.centre.clone(), rig.size.clone()
    rotation, translation = rig.camera_from_world.rotation.clone(), rig.camera_from_world.translation.clone()
    lens = rig.lens.coefficients.clone()
    focal[camera], size[camera] = focal[camera].flip(0), size[camera].flip(0)
    centre[camera, 0], centre[camera, 1] = rig.size[camera, 1] - 1 - rig.centre[camera, 1], rig.centre[camera, 0]
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=rotation.dtype)
    rotation[camera], translation[camera] = turn @ rotation[camera], turn @ translation[camera]
    if rig.lens.models[camera] != LensModel.KANNALA_BRANDT:
        # x' = -y, y' = x in the tangential and thin-prism terms; the radial terms are invariant.
        p1, p2 = rig.lens.coefficients[camera, 2:4]
        s1, s2, s3, s4 = rig.lens.coefficients[camera, 8:12]
        lens[camera, 2:4] = torch.stack([p2, -p1])
        lens[camera, 8:12] = torch.stack([-s3, -s4, s1, s2])
    return replace(
        rig,
        focal=focal,
        centre=centre,
        size=size,
        lens=Lens(rig.lens.models, lens),
        camera_from_world=Rigid(rotation, translation),
    )
