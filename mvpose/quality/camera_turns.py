"""Which camera is off: the turn that would bring each in line with the others, and the one whose turn mends most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.quality.sightings import Sightings, expectation, median_misfits_px

# Turns are worked out for the cameras that fit worst; of a small rig for all.
SUSPECTS = 6
ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Turn:
    """A camera that is not where its calibration says, told as a turn about its own centre."""

    view: int
    rotation: Float[Tensor, "3 3"]
    """`mended camera_from_world = rotation camera_from_world`."""
    moved_px: float
    """Median distance by which it moves the people in the image."""
    degrees: float
    """Median angle by which it turns the rays to them: a turn about the optical axis itself counts for little."""
    misfit_px: float
    """Median distance from where the other cameras say, before."""
    mended_px: float
    """And after."""


def mended(sightings: Sightings, rig: CameraRig, min_share: float) -> tuple[tuple[Turn, ...], CameraRig]:
    """The cameras that are off, worst first, and the rig with them turned back. None of a rig of two: either may be.

    A turn counts if it moves people by at least `min_share` of their height in the image. Two cameras of a rig are
    always left as they are, for the others to be measured by.
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
    """The camera whose turn lowers the misfit of the whole rig most, and the rig with it turned. Needs three views.

    A camera that is off spoils what the others are compared with, so that several look off; only the right one, once
    turned, leaves all of them in line.
    """
    before = median_misfits_px(sightings, rig)
    suspects = before.nan_to_num(-1.0).topk(min(SUSPECTS, len(rig))).indices.tolist()
    tried = []
    for view in suspects:
        rotation, moved_px, degrees = _turn(sightings, rig, view)
        mended = turned(rig, view, rotation)
        after = median_misfits_px(sightings, mended)
        turn = Turn(view, rotation, moved_px, degrees, float(before[view]), float(after[view]))
        tried.append((float(after.nansum()), turn, mended))
    _, turn, mended = min(tried, key=lambda t: t[0])
    return turn, mended


def turned(rig: CameraRig, view: int, rotation: Float[Tensor, "3 3"]) -> CameraRig:
    """The rig with one camera turned about its own centre."""
    pose = rig.camera_from_world
    turns = torch.eye(3).to(pose.rotation).repeat(len(rig), 1, 1)
    turns[view] = rotation
    return replace(rig, camera_from_world=Rigid(turns, torch.zeros_like(pose.translation)) @ pose)


def _turn(sightings: Sightings, rig: CameraRig, view: int) -> tuple[Tensor, float, float]:
    """Rotation of the expected rays onto those observed, least absolute angles (IRLS on Wahba's problem, SIAM Review
    7(3), 1965); median pixels and degrees by which it moves the rays."""
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
