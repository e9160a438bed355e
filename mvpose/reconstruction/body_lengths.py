"""Joints where nobody has them: too far from their neighbours or too near, or left and right in one place.

Views may agree on a wrong joint: the detector takes one arm for the other, or guesses a covered knee, in two or three
views alike. Lengths between the joints of a body hold for everybody within wide limits, so they find the coarsest of
these without a model of poses.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.reconstruction.joints import JointPoints
from mvpose.skeleton import BODY_JOINTS, Skeleton

# Lengths as shares of stature: Drillis and Contini 1966, as in Winter, Biomechanics and Motor Control of Human
# Movement, figure 4.1; widths between the centres of joints.
_LENGTHS = {
    ("shoulder", "elbow"): 0.186,
    ("elbow", "wrist"): 0.146,
    ("hip", "knee"): 0.245,
    ("knee", "ankle"): 0.246,
    ("shoulder", "hip"): 0.288,
}
_WIDTHS = {"shoulder": 0.20, "hip": 0.14}
# Across a joint that may be bent, only the most is known; it has a tighter limit.
_REACHES = {("shoulder", "wrist"): 0.332, ("hip", "ankle"): 0.491}
_TRUNK = ("shoulder", "hip")
_PAIRED = ("elbow", "wrist", "knee", "ankle")

LONGEST, SHORTEST = 1.8, 0.4
"""Limits of a length, relative to what it is in the median over the person's lengths. Those of rendered people are 0.8
to 1.2 of it; an infant's trunk is about 1.6. In 40 takes (`mvpose benchmark fusion --takes 40 --take.seed 7
--take.frames 4`), by four cameras without fusion, 1.2 % of the joints are more than 150 mm off (1.6 % without this
rule; with fusion 2.9 and 3.6 %), and of those within 60 mm 0.04 % are lost. Limits of 1.4 and 0.5 leave 0.9 %."""
FARTHEST = 1.4
"""The same of a reach."""
SAME_PLACE = 0.03
"""Distance of left and right, a share of stature, below which one of them is taken for the other. It is 5 cm; flesh and
bone keep the centres of ankles, knees, wrists and elbows further apart."""
MIN_LENGTHS = 4
"""Minimum number of lengths in which a person's size is known."""


def without_impossible(found: JointPoints, confidence: Float[Tensor, "T P J"], skeleton: Skeleton) -> JointPoints:
    """The points less those that cannot be a joint of the person; joint sets that are not a person's are left alone."""
    if not set(BODY_JOINTS) <= set(skeleton.joints):
        return found
    body = skeleton.indices(*BODY_JOINTS)
    gone = torch.zeros_like(found.valid)
    gone[..., body] = impossible(
        found.points[..., body, :].flatten(0, 1),
        found.valid[..., body].flatten(0, 1),
        confidence[..., body].flatten(0, 1),
    ).unflatten(0, found.valid.shape[:2])
    valid = found.valid & ~gone
    return replace(
        found,
        points=torch.where(valid[..., None], found.points, 0.0),
        valid=valid,
        used=found.used & valid[..., None],
    )


def impossible(
    points: Float[Tensor, "n 12 3"], valid: Bool[Tensor, "n 12"], confidence: Float[Tensor, "n 12"]
) -> Bool[Tensor, "n 12"]:
    """Which of `BODY_JOINTS` of n people cannot be where they are.

    One joint of a person after another is dropped: the one whose lengths are wrong in the largest share, and of equal
    ones first those of the limbs, then the least confident. Finally, of a left and a right joint in one place, the
    less confident.
    """
    start, end, length, least, most = _measures(points)
    joins = torch.zeros(len(length), len(BODY_JOINTS), dtype=points.dtype)
    joins[torch.arange(len(length)), start] = joins[torch.arange(len(length)), end] = 1.0
    last = points.new_tensor([-1e-2 if joint.endswith(_TRUNK) else 0.0 for joint in BODY_JOINTS])
    left = valid.clone()
    while True:
        there = left[:, start] & left[:, end]
        ratio = (points[:, start] - points[:, end]).norm(dim=-1) / length
        bones = there & (least > 0)
        stature = torch.where(bones, ratio, torch.nan).nanmedian(dim=1, keepdim=True).values
        known = bones.sum(dim=1, keepdim=True) >= MIN_LENGTHS
        wrong = there & known & ((ratio > most * stature) | (ratio < least * stature))
        people = wrong.any(dim=1).nonzero()[:, 0]
        if not len(people):
            break
        # A reach that is kept says nothing for its joints.
        says = (bones | wrong)[people].to(joins) @ joins
        share = (wrong[people].to(joins) @ joins) / says.clamp_min(1.0)
        left[people, (share + last - 1e-3 * confidence[people]).argmax(dim=1)] = False
    one, other = ([BODY_JOINTS.index(f"{side}_{part}") for part in _PAIRED] for side in ("left", "right"))
    apart = (points[:, one] - points[:, other]).norm(dim=-1)
    same = known & left[:, one] & left[:, other] & (apart < SAME_PLACE * stature)
    worse = confidence[:, one] < confidence[:, other]
    left[:, one] &= ~(same & worse)
    left[:, other] &= ~(same & ~worse)
    return valid & ~left


def _measures(
    like: Tensor,
) -> tuple[list[int], list[int], Float[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Positions in `BODY_JOINTS` of two joints, their distance as a share of stature, and the limits of its ratio."""
    sides = ("left", "right")
    pairs = [
        (f"{side}_{a}", f"{side}_{b}", share, SHORTEST, LONGEST) for side in sides for (a, b), share in _LENGTHS.items()
    ]
    pairs += [(f"left_{part}", f"right_{part}", share, SHORTEST, LONGEST) for part, share in _WIDTHS.items()]
    pairs += [
        (f"{side}_{a}", f"{side}_{b}", share, 0.0, FARTHEST) for side in sides for (a, b), share in _REACHES.items()
    ]
    start, end, *limits = zip(*pairs, strict=True)
    one, other = ([BODY_JOINTS.index(joint) for joint in joints] for joints in (start, end))
    length, least, most = (like.new_tensor(values) for values in limits)
    return one, other, length, least, most
