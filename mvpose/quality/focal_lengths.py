"""Detect a camera whose focal length is not the calibrated one: it shows people larger or smaller than they should be.

A zoom that was touched after the calibration shifts joints by little where people stand in the middle of the image, and
changes with their place: taken for a rotation, it seems to move. Sizes tell it apart: of each person, the extent of the
joints about their middle, over that expected from the other cameras. Neither rotations nor time change it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.findings import CheckKind, Finding, status_by
from mvpose.quality.sightings import Sightings, expectation

# Deviation of the focal length: up to 1.1 % on the demos and 4 % on 30 drawn takes, 2.8 % with a camera 10 frames
# late. In place of 0.91 and 1.10, the takes say 0.90 to 0.92 and 1.06 to 1.12.
FOCAL_WARN, FOCAL_FAIL = 0.05, 0.08
# Fewer joints, or sizes, are noise: of a single person, half of the ratios are within 3 %.
MIN_JOINTS, MIN_SIZES = 6, 10
# A camera spoils the reference of the others, so its own factor converges in a few rounds.
ROUNDS, CONVERGED = 8, 0.002


@dataclass(frozen=True, eq=False)
class Refocused:
    """The camera with the most deviant focal length, and the factor that fits it to the others."""

    view: int
    factor: float


def refocused(sightings: Sightings, rig: CameraRig) -> Refocused | None:
    """The camera whose focal length deviates by `FOCAL_WARN` or more from what fits the others.

    The rig must be aligned in time and rotation. None if no camera does, for a rig of two, and if too few people are
    seen by three cameras.
    """
    if len(rig) < 3:
        return None
    apart = _apart(size_ratios(sightings, rig))
    if not apart.isfinite().any():
        return None
    view = int(apart.log().abs().nan_to_num(-1.0).argmax())
    factor = step = float(apart[view])
    for _ in range(ROUNDS - 1):
        if abs(step - 1.0) < CONVERGED:
            break
        step = float(_apart(size_ratios(sightings, zoomed(rig, view, factor)))[view])
        factor *= step
    return Refocused(view, factor) if abs(factor - 1.0) >= FOCAL_WARN else None


def zoomed(rig: CameraRig, view: int, factor: float) -> CameraRig:
    """The rig with another focal length of one camera."""
    focal = rig.focal.clone()
    focal[view] *= factor
    return replace(rig, focal=focal)


def size_ratios(sightings: Sightings, rig: CameraRig) -> Float[Tensor, " V"]:
    """Median size of people in each view over that expected from the other views; NaN with fewer than `MIN_SIZES`."""
    ratios = torch.full((len(rig),), torch.nan, dtype=torch.float64)
    for view in range(len(rig)):
        expected = expectation(sightings, rig, view)
        there = (expected.known & (sightings.weight[..., view] > 0)).double()[..., None]
        count = there.sum(dim=-2, keepdim=True)
        shown, wanted = (
            there * (points - (there * points).sum(dim=-2, keepdim=True) / count.clamp_min(1.0))
            for points in (sightings.ideal[..., view, :].double(), expected.point.double())
        )
        enough = count[..., 0, 0] >= MIN_JOINTS
        ratio = ((shown * wanted).sum(dim=(-1, -2)) / wanted.square().sum(dim=(-1, -2)))[enough]
        if len(ratio) >= MIN_SIZES:
            ratios[view] = ratio.median()
    return ratios


def of_focal(found: Refocused | None, rig: CameraRig) -> list[Finding]:
    """Finding on the camera with a wrong focal length; none if none has."""
    if found is None:
        return []
    change = found.factor - 1.0
    return [
        Finding(
            check=CheckKind.FOCAL,
            status=status_by(abs(change), FOCAL_WARN, FOCAL_FAIL),
            reason=(
                f"shows people {abs(change):.0%} {'larger' if change > 0 else 'smaller'} than the other cameras "
                "expect: it was zoomed, or moved nearer or farther, after the calibration, or its calibration is for "
                f"another image size. A focal length {found.factor:.2f} times the calibrated one fits. Recalibrate "
                "it. The checks below assume it"
            ),
            cameras=(rig.names[found.view],),
            figures={"focal_factor": found.factor},
        )
    ]


def _apart(ratios: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
    """Each view's ratio over the median of the others."""
    others = ratios.repeat(len(ratios), 1).fill_diagonal_(torch.nan)
    return ratios / others.nanmedian(dim=1).values
