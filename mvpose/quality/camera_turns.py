"""Find misaligned cameras: the rotation that aligns each with the others, and the one that improves the rig most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.quality.sightings import Sightings, expectation, median_misfits_px

# Rotations are estimated for the cameras with the largest misfit; in a small rig, for all.
SUSPECTS = 6
ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Turn:
    """The misalignment of a camera, expressed as a rotation about its own centre."""

    view: int
    rotation: Float[Tensor, "3 3"]
    """`corrected camera_from_world = rotation camera_from_world`."""
    moved_px: float
    """Median distance by which it moves people in the image."""
    degrees: float
    """Median angle by which it rotates the rays to them, so a rotation about the optical axis counts for little."""
    misfit_px: float
    """Median distance from the position expected from the other cameras, before."""
    corrected_px: float
    """The same, after."""


def corrected(sightings: Sightings, rig: CameraRig, min_share: float) -> tuple[tuple[Turn, ...], CameraRig]:
    """The misaligned cameras, worst first, and the corrected rig. Empty for a rig of two, where either may be wrong.

    A rotation counts if it moves people by at least `min_share` of their height in the image. Two cameras of a rig are
    never corrected, as a reference for the others.
    """
    turns: list[Turn] = []
    while len(turns) < len(rig) - 2:
        turn, turned_rig = worst_turn(sightings, rig)
        share = turn.moved_px / float(sightings.person_px[turn.view])
        if not share >= min_share or turn.view in {t.view for t in turns}:
            break
        turns.append(turn)
        rig = turned_rig
    return tuple(turns), rig


def worst_turn(sightings: Sightings, rig: CameraRig) -> tuple[Turn, CameraRig]:
    """The camera whose rotation reduces the misfit of the whole rig most, and the corrected rig. Needs three views.

    A misaligned camera spoils the reference of the others, so several look wrong; only correcting the right one aligns
    all of them.
    """
    before = median_misfits_px(sightings, rig)
    suspects = before.nan_to_num(-1.0).topk(min(SUSPECTS, len(rig))).indices.tolist()
    tried = []
    for view in suspects:
        rotation, moved_px, degrees = _turn(sightings, rig, view)
        corrected = turned(rig, view, rotation)
        after = median_misfits_px(sightings, corrected)
        turn = Turn(view, rotation, moved_px, degrees, float(before[view]), float(after[view]))
        tried.append((float(after.nansum()), turn, corrected))
    _, turn, corrected = min(tried, key=lambda t: t[0])
    return turn, corrected


def turned(rig: CameraRig, view: int, rotation: Float[Tensor, "3 3"]) -> CameraRig:
    """The rig with one camera rotated about its own centre."""
    pose = rig.camera_from_world
    turns = torch.eye(3).to(pose.rotation).repeat(len(rig), 1, 1)
    turns[view] = rotation
    return replace(rig, camera_from_world=Rigid(turns, torch.zeros_like(pose.translation)) @ pose)


def _turn(sightings: Sightings, rig: CameraRig, view: int) -> tuple[Tensor, float, float]:
    """Rotation of the expected rays onto the observed ones with least absolute angles (IRLS on Wahba's problem, SIAM
    Review 7(3), 1965), and the median pixels and degrees by which it moves the rays."""
    expected = expectation(sightings, rig, view)
    there = expected.known & (sightings.weight[..., view] > 0)
    rays = [_rays(p[there], rig, view) for p in (expected.point, sightings.ideal[..., view, :])]
    rotation = torch.eye(3).to(rays[0])
    if len(rays[0]) < 3:
        return rotation, 0.0, 0.0
    for _ in range(ROUNDS):
        apart = (rays[1] - rays[0] @ rotation.T).norm(dim=-1)
        weight = 1.0 / apart.clamp_min(apart.median().clamp_min(1e-12))
        u, _, vh = torch.linalg.svd((rays[1] * weight[:, None]).T @ rays[0])
        proper = torch.diag(torch.tensor([1.0, 1.0, torch.linalg.det(u @ vh).sign()]).to(u))
        rotation = u @ proper @ vh
    angle = 2.0 * torch.asin(((rays[0] @ rotation.T - rays[0]).norm(dim=-1) / 2.0).clamp_max(1.0))
    degrees = float(torch.rad2deg(angle.median()))
    return rotation, float(angle.median() * rig.focal[view].mean()), degrees


def _rays(pixels: Float[Tensor, "n 2"], rig: CameraRig, view: int) -> Float[Tensor, "n 3"]:
    plane = (pixels - rig.centre[view]) / rig.focal[view]
    return torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1), dim=-1)
