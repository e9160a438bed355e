"""Bodies that two detections of different views could be, and what every detection and every view says of each.

The terms of the sum that `mvpose.reconstruction.association` maximises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.observations import Observations

PARTNERS = 6
# With five people before 31 cameras 128 to 512 hypotheses a frame give the same bodies; 64 break some in two.
MAX_HYPOTHESES = 256
# Rays closer to parallel than this say nothing of where they meet.
MIN_SINE = 0.05
MIN_JOINTS = 3
# A detection's joint is somewhere else on the person, or nowhere, so often: left for right, covered, guessed.
STRAY = 0.1
# Correlation of the errors of two joints of one detection: n of them are worth n / (1 + (n - 1) c) independent ones
# (Kish, Survey Sampling, 1965), 26 about seven. Cameras, clocks and clothes move all of them together.
ALIKE = 0.1
# What a camera says against a body in its image that it does not show: detectors miss about one person of five among
# others. Misses of one person are not independent: many cameras together say no more than `FULL_MISSES` of them.
MISS, FULL_MISSES = math.log(1.0 / 0.22), 4


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Bodies of each frame; what does not exist has infinite cost."""

    gain: Float[Tensor, "T H V P"]
    """What a detection adds to a body that it is given to."""
    cost: Float[Tensor, "T H"]
    """What a body costs before it is given any."""
    centre: Float[Tensor, "T H 3"]

    def with_others(self, frames: Int[Tensor, " n"], others: Hypotheses) -> Hypotheses:
        """More of them in some of the frames."""
        shape = (len(self.cost), others.cost.shape[1])
        gain = others.gain.new_zeros(*shape, *others.gain.shape[2:])
        cost, centre = others.cost.new_full(shape, torch.inf), others.centre.new_zeros(*shape, 3)
        gain[frames], cost[frames], centre[frames] = others.gain, others.cost, others.centre
        pairs = ((self.gain, gain), (self.cost, cost), (self.centre, centre))
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def centres(self, taken: Int[Tensor, "T K"]) -> Float[Tensor, "T K 3"]:
        """Middles of some; infinite where it is -1."""
        centre = self.centre.gather(1, taken.clamp_min(0)[..., None].expand(-1, -1, 3))
        return torch.where((taken >= 0)[..., None], centre, torch.inf)


@dataclass(frozen=True, eq=False)
class Bodies:
    """Bodies that could be."""

    points: Float[Tensor, "T H J 3"]
    known: Bool[Tensor, "T H J"]
    due: Bool[Tensor, "T H J"]
    """Joints that a body should have, because two of its views show them."""
    weight: Float[Tensor, "T H J"]
    """Relative weight of the joint, the mean of the views that it comes from."""
    size: Float[Tensor, "T H"]
    """Metres that these see the person at."""


def most_a_joint_says(expected_error: float) -> float:
    """log K: the likelihood of a joint where it is expected against anywhere in a square of the person's size."""
    return -math.log(2.0 * math.pi * expected_error**2)


def squared_errors(
    seen: Observations, bodies: Float[Tensor, "T H J 3"], expected_error: float
) -> Float[Tensor, "T H V P J"]:
    """Squared angle between rays and joints over the expected error of the detection; infinite behind the camera."""
    offset = bodies[:, :, None] - seen.origin[:, None]
    along = torch.einsum("thvjc,tvpjc->thvpj", offset, seen.ray)
    apart2 = offset.square().sum(dim=-1)[:, :, :, None] - along.square()
    sigma = (expected_error * seen.extent)[:, None, :, :, None] * along
    return torch.where(along > 0, apart2.clamp_min(0.0) / sigma.square().clamp_min(1e-30), torch.inf)


def log_ratio(squared_error: Tensor, expected_error: float) -> Tensor:
    """l of the objective: Student's t against anywhere on the person."""
    peak = (1.0 - STRAY) * math.exp(most_a_joint_says(expected_error))
    return torch.log(STRAY + peak / (1.0 + squared_error / 2.0).square())


def gains(
    seen: Observations, bodies: Float[Tensor, "T H J 3"], known: Bool[Tensor, "T H J"], due: Bool[Tensor, "T H J"],
    expected_error: float,
) -> Float[Tensor, "T H V P"]:  # fmt: skip
    """What each detection says for each body; a joint that is due and not known is counted, and says nothing."""
    ratio = log_ratio(squared_errors(seen, bodies, expected_error), expected_error)
    weight = seen.relative_weight[:, None] * known[:, :, None, None]
    said = torch.einsum("thvpj,thvpj->thvp", ratio, weight)
    enough = (weight > 0).sum(dim=-1) >= MIN_JOINTS
    return torch.where(enough, said * _worth_of_one(due)[..., None, None], 0.0)


def hypotheses(seen: Observations, rig: CameraRig, pairs: Int[Tensor, "N 4"], expected_error: float) -> Hypotheses:
    """The bodies of the pairs that agree best, as many as some frame has that could be."""
    fit, left_out = 0.75 * most_a_joint_says(expected_error), math.log(STRAY)
    met = _meetings(seen, pairs, expected_error)
    says = met.weight * (log_ratio(met.squared, expected_error) - fit)
    known = met.due & (says > left_out)
    score = torch.where(known, says, torch.where(met.due, left_out, 0.0)).sum(dim=-1) * _worth_of_one(met.due)
    possible = (known.sum(dim=-1) >= MIN_JOINTS) & (score > -fit)
    best = _best_pairs(torch.where(possible, score, -torch.inf), pairs, seen.weight.shape[2])

    def of_best(values: Tensor) -> Tensor:
        index = best.reshape(*best.shape, *[1] * (values.ndim - 2)).expand(*best.shape, *values.shape[2:])
        return values.gather(1, index)

    bodies = Bodies(of_best(met.points), of_best(known), of_best(met.due), of_best(met.weight) / 2, of_best(met.size))
    return judged(seen, rig, bodies, of_best(possible), expected_error)


def judged(
    seen: Observations, rig: CameraRig, bodies: Bodies, possible: Bool[Tensor, "T H"], expected_error: float
) -> Hypotheses:
    """What everything says of these bodies."""
    fit = 1.5 * most_a_joint_says(expected_error) * bodies.weight
    centre, against = _against(bodies, seen, rig)
    lost = torch.where(bodies.due, -math.log(STRAY), 0.0)
    fitted = torch.where(bodies.known, fit, lost).sum(dim=-1) * _worth_of_one(bodies.due)
    gain = gains(seen, bodies.points, bodies.known, bodies.due, expected_error)
    return Hypotheses(
        gain=torch.where((gain > 0) & possible[..., None, None], gain + against[..., None], 0.0),
        cost=torch.where(possible, fitted + against.sum(dim=-1), torch.inf),
        centre=centre,
    )


def _best_pairs(score: Float[Tensor, "T N"], pairs: Int[Tensor, "N 4"], num_places: int) -> Int[Tensor, "T H"]:
    """All that are possible; of more than `MAX_HYPOTHESES` those nearest to the best that their detections have."""
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
    """Where the rays of two detections pass each other."""

    points: Float[Tensor, "T N J 3"]
    due: Bool[Tensor, "T N J"]
    """Both views have the joint, and their rays cross."""
    squared: Float[Tensor, "T N J"]
    """Squared error of each of the two; infinite behind a camera."""
    weight: Float[Tensor, "T N J"]
    """Of both together."""
    size: Float[Tensor, "T N"]
    """Metres that the two see the person at, at these depths."""


def _meetings(seen: Observations, pairs: Int[Tensor, "N 4"], expected_error: float) -> _Meetings:
    one, first, other, second = pairs.T
    a, b = seen.ray[:, one, first], seen.ray[:, other, second]
    base = (seen.origin[other] - seen.origin[one])[:, None]
    cosine, along_a, along_b = (a * b).sum(dim=-1), (a * base).sum(dim=-1), (b * base).sum(dim=-1)
    weight_a, weight_b = seen.relative_weight[:, one, first], seen.relative_weight[:, other, second]
    sine2 = 1.0 - cosine**2
    due = (weight_a > 0) & (weight_b > 0) & (sine2 > MIN_SINE**2)
    scale = torch.where(due, sine2, 1.0)
    depth_a, depth_b = (along_a - cosine * along_b) / scale, (cosine * along_a - along_b) / scale
    on_a, on_b = depth_a[..., None] * a, base + depth_b[..., None] * b
    before = due & (depth_a > 0) & (depth_b > 0)
    extent_a, extent_b = seen.extent[:, one, first, None], seen.extent[:, other, second, None]
    share = torch.where(before, extent_a * depth_a / (extent_a * depth_a + extent_b * depth_b), 0.5)
    sigma = expected_error * (extent_a * depth_a + extent_b * depth_b)
    gap2 = (on_a - on_b).square().sum(dim=-1)
    size = torch.where(before, (extent_a * depth_a + extent_b * depth_b) / 2, 0.0).sum(dim=-1)
    return _Meetings(
        points=seen.origin[one][:, None] + on_a + (on_b - on_a) * share[..., None],
        due=due,
        squared=torch.where(before, gap2 / sigma.square().clamp_min(1e-30), torch.inf),
        weight=weight_a + weight_b,
        size=size / before.sum(dim=-1).clamp_min(1),
    )


def _against(
    bodies: Bodies, seen: Observations, rig: CameraRig
) -> tuple[Float[Tensor, "T H 3"], Float[Tensor, "T H V"]]:
    """The middle of each body, and m: what each view says against it where it shows nothing of it.

    By how much of it would be in the image (of middle, and the joints farthest from it on both sides), and nothing
    where its middle is in the box of somebody who looks larger than it would, and so is nearer to the camera.
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
    within = ((middle >= box[..., :2]) & (middle <= box[..., 2:])).all(dim=-1)
    distance = (centre[:, :, None] - seen.origin).norm(dim=-1)
    nearer = (seen.extent[:, None] > (bodies.size[..., None] / distance)[..., None]) & seen.weight.any(dim=-1)[:, None]
    open_to = inside[..., 0] & ~(within & nearer).any(dim=-1)
    share = inside.to(points).mean(dim=-1) * open_to
    return centre, MISS * share * (FULL_MISSES / share.sum(dim=-1, keepdim=True).clamp_min(FULL_MISSES))


def _worth_of_one(due: Bool[Tensor, "T H J"]) -> Float[Tensor, "T H"]:
    """Independent joints of a body by joints that it should have."""
    return 1.0 / (1.0 + ALIKE * (due.sum(dim=-1) - 1).clamp_min(0))
