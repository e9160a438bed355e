"""Find rigs whose cameras are too close together: their rays to people are nearly parallel, so depth is a guess.

An error of e metres across the rays is one of e / sin(angle) along them. Without depth, no camera can be compared with
the others' prediction, and neither sizes nor floor are known: what such checks said would be about noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.sightings import Sightings

# With four cameras within 30 cm of one another, 2 to 5 m from people (2 to 7 degrees), a job reconstructs 5 to 25 % of
# the joints of drawn takes, and people of up to 3.2 m; with 60 cm, 28 % at 8.6 degrees and 60 % at 12.8.
WARN_DEGREES, FAIL_DEGREES = 10.0, 9.0
ERROR_M = 0.025
"""1.5 % of a person's height."""


@dataclass(frozen=True)
class CameraSpacing:
    """The pair of cameras whose rays to the same joints cross at the largest angle."""

    views: tuple[int, int]
    degrees: float
    """Median angle between the rays, at most 90: those of two cameras that face each other are parallel, too."""
    baseline_m: float
    distance_m: float
    """Of the people, from the first camera."""


def camera_spacing(sightings: Sightings, rig: CameraRig) -> CameraSpacing | None:
    """The widest pair of a rig; None if no two cameras show the same joint."""
    rays = world_rays(sightings, rig)
    places = rig.centres_world
    widest = None
    for one in range(len(rig)):
        for other in range(one + 1, len(rig)):
            both = (sightings.weight[..., one] > 0) & (sightings.weight[..., other] > 0)
            if not both.any():
                continue
            crossed = torch.linalg.cross(rays[..., one, :][both], rays[..., other, :][both]).norm(dim=-1)
            across = float(crossed.median().clamp_max(1.0))
            degrees = math.degrees(math.asin(across))
            if widest is None or degrees > widest.degrees:
                apart = places[other] - places[one]
                # The side of a triangle over the sine of the opposite angle.
                facing = torch.linalg.cross(rays[..., other, :][both], apart.expand(int(both.sum()), 3)).norm(dim=-1)
                widest = CameraSpacing(
                    (one, other), degrees, float(apart.norm()), float(facing.median()) / max(across, 1e-9)
                )
    return widest


def world_rays(sightings: Sightings, rig: CameraRig) -> Float[Tensor, "T K J V 3"]:
    """Unit directions in the world from each camera to the joints; undefined where the weight is 0."""
    plane = (sightings.ideal - rig.centre) / rig.focal
    rays = torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1), dim=-1)
    return torch.einsum("...vi,vij->...vj", rays, rig.camera_from_world.rotation)


def of_spacing(found: CameraSpacing | None, rig: CameraRig) -> list[Finding]:
    """Finding on a rig without depth; none if the rays of two cameras cross at `WARN_DEGREES` or more."""
    if found is None or found.degrees >= WARN_DEGREES:
        return []
    one, other = (rig.names[view] for view in found.views)
    error_m = ERROR_M / math.sin(math.radians(max(found.degrees, 0.1)))
    fails = found.degrees < FAIL_DEGREES
    depth = "not measurable" if fails else f"uncertain by about {error_m:.1f} m"
    return [
        Finding(
            check=CheckKind.SPACING,
            status=Status.FAIL if fails else Status.WARN,
            reason=(
                f"depth is {depth} with a baseline of {100 * found.baseline_m:.0f} cm at {found.distance_m:.1f} m: the "
                f"rays of {one} and {other}, the widest pair, cross at {found.degrees:.1f} degrees. Place cameras "
                "farther apart (20 degrees or more as people see them)"
                + (". Checks that need depth were not made" if fails else "")
            ),
            figures={"rays_degrees": found.degrees, "baseline_m": found.baseline_m, "distance_m": found.distance_m},
        )
    ]
