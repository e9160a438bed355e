"""Hypotheses: bodies from pairs of detections in two views, with the evidence of every detection and view.

These are the terms of the sum that `mvpose.reconstruction.association` maximises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.observations import Observations

PARTNERS = 6
# With five people and 31 cameras, 128 to 512 hypotheses per frame give the same bodies; 64 split some bodies in two.
MAX_HYPOTHESES = 256
# Rays closer to parallel than this do not determine where they meet.
MIN_SINE = 0.05
MIN_JOINTS = 3
# A point less than this before a camera, or behind it, is this far before it: at a right angle to all rays that matter.
BEHIND_M = 1e-6
# Probability that a detected joint is wrong: left and right exchanged, occluded, or guessed.
STRAY = 0.1
# Correlation c of the errors of two joints of one detection. n joints are worth n / (1 + (n - 1) c) independent ones
# (Kish, Survey Sampling, 1965); 26 are worth about seven. Errors of cameras, clocks and clothes affect all joints.
ALIKE = 0.1
# Evidence of a camera against a body that should be in its image but was not detected. Detectors miss about one person
# in five among others. Misses of one person are correlated, so many cameras count at most like `FULL_MISSES` cameras.
MISS, FULL_MISSES = math.log(1.0 / 0.22), 4


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Hypotheses of each frame; unused entries have infinite cost."""

    gain: Float[Tensor, "T H V P"]
    """Gain of assigning a detection to a body."""
    cost: Float[Tensor, "T H"]
    """Cost of a body before any detection is assigned."""
    centre: Float[Tensor, "T H 3"]

    def with_others(self, frames: Int[Tensor, " n"], others: Hypotheses) -> Hypotheses:
        """Add hypotheses in some of the frames."""
        shape = (len(self.cost), others.cost.shape[1])
        gain = others.gain.new_zeros(*shape, *others.gain.shape[2:])
        cost, centre = others.cost.new_full(shape, torch.inf), others.centre.new_zeros(*shape, 3)
        gain[frames], cost[frames], centre[frames] = others.gain, others.cost, others.centre
        pairs = ((self.gain, gain), (self.cost, cost), (self.centre, centre))
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def centres(self, taken: Int[Tensor, "T K"]) -> Float[Tensor, "T K 3"]:
        """Centres of the hypotheses `taken`; infinite where an index is -1."""
        centre = self.centre.gather(1, taken.clamp_min(0)[..., None].expand(-1, -1, 3))
        return torch.where((taken >= 0)[..., None], centre, torch.inf)


@dataclass(frozen=True, eq=False)
class Bodies:
    """Candidate bodies."""

    points: Float[Tensor, "T H J 3"]
    known: Bool[Tensor, "T H J"]
    due: Bool[Tensor, "T H J"]
    """Joints that a body should have because two of its views show them."""
    weight: Float[Tensor, "T H J"]
    """Relative weight of the joint, averaged over its views."""
    size: Float[Tensor, "T H"]
    """Size of the person in metres according to its views."""


def most_a_joint_says(expected_error: float) -> float:
    """log K: log-likelihood ratio of a joint at its expected place to one anywhere in a square of the person's size."""
    return -math.log(2.0 * math.pi * expected_error**2)


def squared_errors(
    seen: Observations, bodies: Float[Tensor, "T H J 3"], expected_error: float
) -> Iterator[Float[Tensor, "P H J T"]]:
    """Squared ratio of the angle between ray and joint to the expected error, view by view.

    The angle is the distance between unit vectors, which single precision resolves to 1e-7; that of a cosine from 1 is
    lost in it. All views at once take 1.4 times as long, since they do not fit a cache.
    """
    per_sigma2 = (expected_error * seen.extent).square().clamp_min(1e-30).reciprocal().permute(1, 2, 0)
    points = bodies.permute(3, 1, 2, 0).contiguous()
    for view, origin in enumerate(seen.origin):
        towards = points - origin[:, None, None, None]
        x, y, z = towards.div_(towards.square().sum(dim=0).sqrt_().clamp_min_(BEHIND_M))
        a, b, c = seen.directions_frames_last[:, view, :, None]
        off = x - a
        across = off.square()
        for own, ray in ((y, b), (z, c)):
            torch.sub(own, ray, out=off)
            across.addcmul_(off, off)
        yield across.mul_(per_sigma2[view, :, None, None])


def log_ratio(squared_error: Tensor, expected_error: float) -> Tensor:
    """l of the objective: log ratio of Student's t to a uniform distribution over the person. Overwrites the errors."""
    root = math.sqrt(STRAY / (1.0 - STRAY)) * math.exp(-most_a_joint_says(expected_error) / 2.0)
    return squared_error.mul_(root / 2.0).add_(root).square_().reciprocal_().log1p_().add_(math.log(STRAY))


def gains(
    seen: Observations, bodies: Float[Tensor, "T H J 3"], known: Bool[Tensor, "T H J"], due: Bool[Tensor, "T H J"],
    expected_error: float,
) -> Float[Tensor, "T H V P"]:  # fmt: skip
    """Evidence of each detection for each body. Due joints that are not known count, with no evidence."""
    weight, there = seen.relative_weight.permute(1, 2, 3, 0).contiguous(), known.to(bodies)
    errors, frames_last = squared_errors(seen, bodies, expected_error), there.permute(1, 2, 0).contiguous()
    said = torch.stack(
        [
            log_ratio(error, expected_error).mul_(frames_last).mul_(of_view[:, None]).sum(dim=2)
            for error, of_view in zip(errors, weight, strict=True)
        ]
    ).permute(3, 2, 0, 1)
    shown = (seen.weight > 0).to(there).flatten(1, 2)
    enough = (there @ shown.transpose(1, 2)).reshape(said.shape) >= MIN_JOINTS
    return said * _worth_of_one(due)[..., None, None] * enough


def hypotheses(seen: Observations, rig: CameraRig, pairs: Int[Tensor, "N 4"], expected_error: float) -> Hypotheses:
    """Bodies of the pairs that agree best; H is the largest number of possible bodies in any frame, up to the limit."""
    fit, left_out = 0.75 * most_a_joint_says(expected_error), math.log(STRAY)
    met = _meetings(seen, pairs, expected_error)
    says = met.weight * (log_ratio(met.squared, expected_error) - fit)
    known = met.due & (says > left_out)
    score = (says.clamp_min(left_out) * met.due).sum(dim=-1) * _worth_of_one(met.due)
    possible = (known.sum(dim=-1) >= MIN_JOINTS) & (score > -fit)
    best = _best_pairs(torch.where(possible, score, -torch.inf), pairs, seen.weight.shape[2])

    frame = torch.arange(len(best))[:, None]
    points = torch.stack([xyz[frame, best] for xyz in met.points]).movedim(0, -1)
    of_best = (values[frame, best] for values in (known, met.due, met.weight / 2, met.size))
    return judged(seen, rig, Bodies(points, *of_best), possible[frame, best], expected_error)


def judged(
    seen: Observations, rig: CameraRig, bodies: Bodies, possible: Bool[Tensor, "T H"], expected_error: float
) -> Hypotheses:
    """Evaluate all evidence for and against these bodies."""
    fit = 1.5 * most_a_joint_says(expected_error) * bodies.weight
    centre, against = _against(bodies, seen, rig)
    lost = bodies.due.sum(dim=-1) - bodies.known.sum(dim=-1)
    fitted = ((fit * bodies.known).sum(dim=-1) - math.log(STRAY) * lost) * _worth_of_one(bodies.due)
    gain = gains(seen, bodies.points, bodies.known, bodies.due, expected_error)
    counts = (gain > 0) & possible[..., None, None]
    return Hypotheses(
        gain=torch.where(counts, gain + against[..., None], 0.0).contiguous().double(),
        cost=torch.where(possible, fitted + against.sum(dim=-1), torch.inf).double(),
        centre=centre.double(),
    )


def _best_pairs(score: Float[Tensor, "T N"], pairs: Int[Tensor, "N 4"], num_places: int) -> Int[Tensor, "T H"]:
    """All possible pairs. If more than `MAX_HYPOTHESES`, those with scores nearest to the best of their detections."""
    maximum = int(score.isfinite().sum(dim=-1).max())
    if maximum <= MAX_HYPOTHESES:
        return score.topk(maximum, dim=1).indices
    one, other = ((pairs[:, i] * num_places + pairs[:, i + 1]).expand_as(score) for i in (0, 2))
    best = score.new_full((len(score), int(pairs[:, [0, 2]].max() + 1) * num_places), -torch.inf)
    best = best.scatter_reduce(1, one, score, "amax").scatter_reduce(1, other, score, "amax")
    behind = torch.minimum(best.gather(1, one), best.gather(1, other)) - score
    return behind.nan_to_num(torch.inf).topk(MAX_HYPOTHESES, dim=1, largest=False).indices


@dataclass(frozen=True, eq=False)
class _Meetings:
    """Points at which the rays of two detections pass each other."""

    points: Float[Tensor, "3 T N J"]
    due: Bool[Tensor, "T N J"]
    """Both views have the joint, and their rays cross."""
    squared: Float[Tensor, "T N J"]
    """Squared error of each detection, in expected errors; infinite behind a camera."""
    weight: Float[Tensor, "T N J"]
    """Sum of both relative weights."""
    size: Float[Tensor, "T N"]
    """Size of the person in metres according to both detections, at these depths."""


def _meetings(seen: Observations, pairs: Int[Tensor, "N 4"], expected_error: float) -> _Meetings:
    one, first, other, second = pairs.T
    a, b = seen.directions[:, :, one, first], seen.directions[:, :, other, second]
    base = (seen.origin[other] - seen.origin[one]).T[:, None, :, None]
    cosine, along_a, along_b = (a * b).sum(dim=0), (a * base).sum(dim=0), (b * base).sum(dim=0)
    weight_a, weight_b = seen.relative_weight[:, one, first], seen.relative_weight[:, other, second]
    sine2 = 1.0 - cosine**2
    due = (weight_a > 0) & (weight_b > 0) & (sine2 > MIN_SINE**2)
    scale = sine2.clamp_min(MIN_SINE**2)
    depth_a, depth_b = (along_a - cosine * along_b) / scale, (cosine * along_a - along_b) / scale
    on_a, on_b = a.mul_(depth_a), b.mul_(depth_b).add_(base)
    before = due & (depth_a > 0) & (depth_b > 0)
    wide_a, wide_b = seen.extent[:, one, first, None] * depth_a, seen.extent[:, other, second, None] * depth_b
    wide = wide_a + wide_b
    share = (wide_a / wide).nan_to_num_(0.5).clamp_(0.0, 1.0)
    between = on_b.sub_(on_a)
    gap2 = between.square().sum(dim=0)
    sigma2 = (expected_error * wide).square().clamp_min(1e-30)
    return _Meetings(
        points=on_a.add_(seen.origin[one].T[:, None, :, None]).add_(between.mul_(share)),
        due=due,
        squared=(gap2 / sigma2).masked_fill_(~before, torch.inf),
        weight=weight_a + weight_b,
        size=(wide * before).sum(dim=-1) / (2 * before.sum(dim=-1)).clamp_min(1),
    )


def _against(
    bodies: Bodies, seen: Observations, rig: CameraRig
) -> tuple[Float[Tensor, "T H 3"], Float[Tensor, "T H V"]]:
    """The centre of each body, and m: the evidence of each view against the body if the view does not show it.

    m is proportional to the share of the body inside the image, judged by its centre and the two joints farthest from
    it on opposite sides. m is 0 if the centre is outside the image, or inside the box of a person who appears larger
    than the body would and is therefore nearer to the camera.
    """
    points, there = bodies.points, bodies.known[..., None].to(bodies.points)
    centre = (points * there).sum(dim=-2) / there.sum(dim=-2).clamp_min(1.0)
    arm = (points - centre[:, :, None]) * there
    far = arm.gather(2, arm.square().sum(dim=-1).argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 3))
    opposite = arm.gather(2, (arm * far).sum(dim=-1).argmin(dim=-1)[..., None, None].expand(-1, -1, 1, 3))
    marks = centre[:, :, None] + torch.cat([torch.zeros_like(far), far, opposite], dim=2)
    pixels, before = rig.project(marks)
    inside = (before & rig.inside(pixels)).movedim(0, 2)
    middle, box = pixels[..., 0, :].movedim(0, 2)[:, :, :, None], seen.box[:, None]
    left, top, right, bottom = box.unbind(-1)
    x, y = middle.unbind(-1)
    within = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    distance = (centre[:, :, None] - seen.origin).norm(dim=-1)
    nearer = (seen.extent[:, None] > (bodies.size[..., None] / distance)[..., None]) & seen.weight.any(dim=-1)[:, None]
    open_to = inside[..., 0] & ~(within & nearer).any(dim=-1)
    share = inside.to(points).mean(dim=-1) * open_to
    return centre, MISS * share * (FULL_MISSES / share.sum(dim=-1, keepdim=True).clamp_min(FULL_MISSES))


def _worth_of_one(due: Bool[Tensor, "T H J"]) -> Float[Tensor, "T H"]:
    """Ratio of effective independent joints of a body to due joints."""
    return 1.0 / (1.0 + ALIKE * (due.sum(dim=-1) - 1).clamp_min(0))
