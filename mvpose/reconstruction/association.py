"""Associate 2D people across views: find the most likely set of bodies in every frame.

Every pair of detections in two views is a hypothesis of a body h. Each of its joints is the point between the two rays
that is equally far from both, in units of their expected errors. The people of a frame are the bodies, and the
detections that belong to each, that maximise

    sum over bodies h of
        sum over its detections (v, p) of  n_h mean_j w_vpj l(r_hvpj)       (evidence of the detections for the body)
      - n_h mean_j o_hj                                                    (cost of fitting a point to its pixels)
      - sum over views v that should show h and do not of  m_h             (evidence of the other views against it)
      + b max over bodies k of the previous frame of (1 - |h - k| / B)+    (people persist)

with at most one detection per view and body, and at most one body per detection. The remaining detections are
unassigned. All terms are log-likelihood ratios of "this is the joint" to "this is another pixel of some person":

    l(r) = log(e + (1 - e) K / (1 + r^2 / 2)^2)     K = 1 / (2 pi s^2)

is Student's t with two degrees of freedom, so for errors larger than expected only their ratio matters. r is the angle
between ray and joint divided by the detector's expected error, a share s of the person's size in that image. w is the
confidence relative to the most confident joint of the detection. o is 3/2 log K: a joint has three coordinates and its
detection two, so a pair of views keeps a quarter of its evidence and three views keep half. A joint on which the pair
disagrees is dropped at a cost of log 1/e. n_h is the effective number of independent joints, because the joint errors
of one detection are correlated. Limits are angles, so results do not depend on the resolution.

The best set is found with linear programming duality. Bodies are chosen greedily, and the value of each is divided
among its detections as their prices. If no hypothesis is worth more than the prices of its detections, the choice is
optimal. This holds for nearly every frame. Better prices prove a better choice in most of the others; the rest are
solved by a mixed integer program with at most `MAX_NODES` nodes. Evidence is computed in single precision, so of two
sets whose sums differ by less than a thousandth, either may be found. The people of the previous frame are determined
from that frame alone, so each frame depends only on itself and the previous one. Cutting a clip therefore changes at
most its first frame, and only if that frame is ambiguous.

The cost is bounded: at most `MAX_HYPOTHESES` hypotheses per frame, each evaluated on every detection once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.geometry.robust import triangulate_robust
from mvpose.reconstruction.hypotheses import (
    MAX_HYPOTHESES,
    MIN_JOINTS,
    PARTNERS,
    Bodies,
    Hypotheses,
    gains,
    hypotheses,
    judged,
    squared_errors,
)
from mvpose.reconstruction.observations import Observations, at_places
from mvpose.reconstruction.packing import (
    TOLERANCE,
    Packing,
    best_choice,
    best_members,
    excess_over_prices,
    greedy_choice,
)

# Errors above this multiple of the expected error are no evidence for a body.
REACH = 7.0
# Minimum fraction of the weight of a detection's joints that must agree before it shows a known body.
MIN_FIT = 0.25
# A person of the previous frame within a stride of half a second supports a body like one camera that shows it.
STAYS, STRIDE_M = 1.5, 0.35
REFINEMENTS = 1
# Distances between rays and joints in memory at a time: 1 M are 4 MB, and about three such arrays exist at once. Half
# as many take 1.1 times as long with 4 cameras, for the calls, and six times as many 1.1 to 1.3 times, for the memory.
FRAMES_ELEMENTS = 1_000_000


@dataclass(frozen=True, eq=False)
class Association:
    """The people of each frame, in an arbitrary order that differs between frames; K is the maximum per frame."""

    places: Int[Tensor, "T K V"]
    """The slot of the detection that a view contributes, or -1."""
    support: Float[Tensor, "T K V"]
    """Agreement of the view with the body, 0 to 1: confidence of joints that fit, divided by all joints."""
    bodies: Float[Tensor, "T K J 3"]
    known: Bool[Tensor, "T K J"]


def associate(seen: Observations, rig: CameraRig, expected_error: float, gate: float) -> Association:
    """The people of each frame that are visible in two or more views.

    `expected_error`: expected error of a detected joint, as a share of the person's size in that image. `gate`: maximum
    distance of a view from a joint, in the same unit; triangulation rejects views beyond it.
    """
    places = _chosen(seen, rig, expected_error, gate)
    bodies, known, due = _triangulated(seen, places, rig, expected_error, gate)
    for _ in range(REFINEMENTS):
        better = best_members(gains(seen, bodies, known, due, expected_error))
        moved = (better != places).any(dim=-1).any(dim=-1).nonzero()[:, 0]
        if not len(moved):
            break
        places = better
        again = _triangulated(seen.frames(moved), places[moved], rig, expected_error, gate)
        bodies[moved], known[moved], due[moved] = again
    _, evidence = agreement(seen, bodies, known, due, expected_error)
    return Association(places, _support(evidence, places), bodies, known)


def agreement(
    seen: Observations,
    bodies: Float[Tensor, "T H J 3"],
    known: Bool[Tensor, "T H J"],
    due: Bool[Tensor, "T H J"],
    expected_error: float,
) -> tuple[Float[Tensor, "T H V P"], Float[Tensor, "T H V P"]]:
    """Match of each detection with each body: fit (agreeing fraction of its weight) and evidence (per joint).

    `due` joints are those that two of a body's views show, so the body should have them. A due joint that is not
    `known` agrees with nothing.
    """
    weight, due, known = seen.weight.permute(1, 2, 3, 0)[:, :, None], due.permute(1, 2, 0), known.permute(1, 2, 0)
    agree = torch.stack(list(squared_errors(seen, bodies, expected_error)))
    evidence = agree.mul_(-1.0 / REACH**2).add_(1.0).clamp_min_(0.0).mul_(weight).mul_(due & known).sum(dim=3)
    total = (weight * due).sum(dim=3)
    fit = evidence / total.clamp_min(1e-9)
    return fit.permute(3, 2, 0, 1), (evidence / bodies.shape[2]).permute(3, 2, 0, 1)


def shown_by(
    seen: Observations, bodies: Float[Tensor, "T K J 3"], known: Bool[Tensor, "T K J"], expected_error: float
) -> tuple[Int[Tensor, "T K V"], Float[Tensor, "T K V"]]:
    """The detection in every view that shows each of these bodies, or -1, and its support.

    A detection may be off by 6 `expected_error`, because the bodies are known and do not compete.
    """
    fit, evidence = agreement(seen, bodies, known, known, expected_error)
    places = best_members(torch.where(fit >= MIN_FIT, evidence, 0.0))
    return places, _support(evidence, places)


def _support(evidence: Float[Tensor, "T K V P"], places: Int[Tensor, "T K V"]) -> Float[Tensor, "T K V"]:
    return evidence.gather(3, places.clamp_min(0)[..., None])[..., 0] * (places >= 0)


def _chosen(seen: Observations, rig: CameraRig, expected_error: float, gate: float) -> Int[Tensor, "T K V"]:
    """Members of the best set of bodies of each frame, processed in batches of frames.

    Bodies from two views are less accurate than bodies from all views: with 31 views, one person would become two
    bodies.
    """
    seen, rig = _in_single(seen, rig)
    num_frames, num_views, num_places, num_joints = seen.weight.shape
    pairs = detection_pairs(seen.origin, num_places)
    per_frame = min(len(pairs), MAX_HYPOTHESES) * num_views * num_places * num_joints
    step = max(1, FRAMES_ELEMENTS // per_frame)
    last = torch.full((1, 1, 3), torch.inf, dtype=torch.float64)
    parts = []
    for start in range(0, num_frames, step):
        some = seen.frames(slice(start, start + step))
        found = hypotheses(some, rig, pairs, expected_error)
        choice = greedy_choice(found.gain, found.cost)
        open_frames = _unsettled(found.gain, found.cost, choice)
        if len(open_frames):
            members = choice.places[open_frames]
            others = _of_members(some.frames(open_frames), members, rig, expected_error, gate)
            found = found.with_others(open_frames, others)
            choice = _replaced(choice, open_frames, found.gain, found.cost)
        people = found.centres(choice.taken)
        cost = found.cost - _stays(found.centre, _stacked([last, people[:-1]], torch.inf))
        choice = _replaced(choice, _unsettled(found.gain, cost, choice), found.gain, cost)
        parts.append(choice.places)
        last = people[-1:]
    return _stacked(parts, -1)


def _in_single(seen: Observations, rig: CameraRig) -> tuple[Observations, CameraRig]:
    """In single precision, around the middle of the cameras: angles to 1e-7, a hundred-thousandth of a usual error.

    Choices differ from those in double precision only if two are equally likely to that precision.
    """
    middle = Rigid(torch.eye(3, dtype=seen.origin.dtype), seen.origin.mean(dim=0))
    single = (values.float() for values in (seen.ideal, seen.ray, seen.origin - middle.translation, seen.weight))
    ideal, ray, origin, weight = single
    return Observations(ideal, ray, origin, weight, seen.box.float(), seen.extent.float()), rig.moved(middle).to(
        torch.float32
    )


def _unsettled(gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"], choice: Packing) -> Int[Tensor, " n"]:
    """Frames in which a better choice is not ruled out."""
    return (excess_over_prices(gain, cost, choice) > TOLERANCE).any(dim=-1).nonzero()[:, 0]


def _replaced(
    choice: Packing, frames: Int[Tensor, " n"], gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"]
) -> Packing:
    """The best choice in these frames; the other frames keep theirs."""
    return choice.replaced(frames, best_choice(gain[frames], cost[frames])) if len(frames) else choice


def _of_members(
    seen: Observations, places: Int[Tensor, "T K V"], rig: CameraRig, expected_error: float, gate: float
) -> Hypotheses:
    """Bodies triangulated from all their views in a greedy choice."""
    points, known, due = _triangulated(seen, places, rig, expected_error, gate)
    shown = at_places(seen.relative_weight, places) * (places >= 0)[..., None]
    weight = shown.sum(dim=2) / (shown > 0).sum(dim=2).clamp_min(1)
    middle = (points * known[..., None]).sum(dim=2) / known.sum(dim=2)[..., None].clamp_min(1)
    extent = at_places(seen.extent, places) * (places >= 0)
    size = (extent * (middle[:, :, None] - seen.origin).norm(dim=-1)).sum(dim=-1) / (extent > 0).sum(dim=-1).clamp_min(
        1
    )
    possible = known.sum(dim=-1) >= MIN_JOINTS
    return judged(seen, rig, Bodies(points, known, due, weight, size), possible, expected_error)


def _stays(centre: Float[Tensor, "T H 3"], before: Float[Tensor, "T K 3"]) -> Float[Tensor, "T H"]:
    """Evidence of the people of the previous frame for each body."""
    near = (1.0 - (centre[:, :, None] - before[:, None]).norm(dim=-1) / STRIDE_M).clamp_min(0.0)
    return STAYS * torch.nn.functional.pad(near, (0, 1)).amax(dim=-1)


def _stacked(parts: list[Tensor], filler: int | float) -> Tensor:
    """Concatenate parts along frames, padding missing people with `filler`."""
    maximum = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(p, (0, 0, 0, maximum - p.shape[1]), value=filler) for p in parts])


def detection_pairs(origin: Float[Tensor, "V 3"], num_places: int) -> Int[Tensor, "N 4"]:
    """(view, place, other view, other place) of the pairs of detections that become hypotheses.

    A view's partners are spread over all others in order of distance, so some are near and some are on the far side.
    """
    num_views = len(origin)
    order = torch.cdist(origin, origin).argsort(dim=-1, stable=True)[:, 1:]
    partners = min(PARTNERS, num_views - 1)
    ranks = torch.linspace(0, num_views - 2, partners).round().long()
    views = {tuple(sorted((v, int(w)))) for v in range(num_views) for w in order[v, ranks]}
    both = torch.tensor(sorted(views))
    place = torch.cartesian_prod(torch.arange(num_places), torch.arange(num_places)).reshape(-1, 2)
    one, other = both.repeat_interleave(len(place), 0).T
    first, second = place.repeat(len(both), 1).T
    return torch.stack([one, first, other, second], dim=-1)


def _triangulated(
    seen: Observations, places: Int[Tensor, "T K V"], rig: CameraRig, expected_error: float, gate: float
) -> tuple[Float[Tensor, "T K J 3"], Bool[Tensor, "T K J"], Bool[Tensor, "T K J"]]:
    """Triangulated bodies of the members, with known and due joints."""
    pixels, weights = seen.of(places)
    unit = seen.sizes(places)[:, :, None]
    found = triangulate_robust(
        pixels, rig.projections, weights, threshold_px=gate * unit, scale_px=expected_error * unit, check=False
    )
    return found.points, found.valid, (weights > 0).sum(dim=-1) >= 2
