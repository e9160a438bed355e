"""Associate 2D people across views: decide, frame by frame, which detections show the same person.

Every pair of detections in two views is a hypothesis of a body, with joints midway between the two rays. The value of a
hypothesis is the agreement of all views with it. The best one is taken repeatedly, each detection once (greedy set
packing). Then bodies and members are refined alternately: joints from all members, with outlying views rejected;
members by an optimal assignment of detections to bodies in each view, which never lowers the total agreement. Members
of one body agree with one set of 3D points, so the result is consistent over any cycle of views, and a view gives a
body at most one detection. Distances are in metres between a joint and a ray, so no threshold depends on resolution or
distance.

The cost is bounded: at most `PARTNERS` view pairs per view and `MAX_HYPOTHESES` hypotheses per frame, each evaluated
once on every detection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mvpose.geometry.robust import triangulate_robust
from mvpose.reconstruction.observations import Observations

PARTNERS = 6
# With five people and 31 cameras, 128 to 512 hypotheses per frame give the same bodies; 64 split some into two.
MAX_HYPOTHESES = 256
# Minimum fraction of the weight of a detection's joints that must agree before it becomes a member.
MIN_FIT = 0.25
# Rays closer to parallel than this do not determine where they meet.
MIN_SINE = 0.05
MIN_JOINTS = 3
REFINEMENTS = 2
# Distances between rays and joints in memory at a time: 250 k are 2 MB, and about five such arrays exist at once. 4 M
# take 1.2 times as long with 4 cameras and 1.7 times with 31, and fragment the memory of a process by 150 MB.
FRAMES_ELEMENTS = 250_000


@dataclass(frozen=True, eq=False)
class Association:
    """The people of each frame, in an arbitrary order that differs between frames; K is the maximum per frame."""

    places: Int[Tensor, "T K V"]
    """The slot of the detection that a view contributes, or -1."""
    support: Float[Tensor, "T K V"]
    """Agreement of the view with the body, 0 to 1: confidence of joints that fit, divided by all joints."""
    bodies: Float[Tensor, "T K J 3"]
    known: Bool[Tensor, "T K J"]


def associate(
    seen: Observations, projections: Float[Tensor, "V 3 4"], reach_m: float, threshold_px: float
) -> Association:
    """The people of each frame who are seen by two or more views.

    `reach_m`: a joint at least this far from a ray is not what the ray shows. `threshold_px`: threshold for rejecting
    views when bodies are triangulated.
    """
    num_frames, num_views, num_places, num_joints = seen.weight.shape
    pairs = _detection_pairs(seen.origin, num_places)
    per_frame = min(len(pairs), MAX_HYPOTHESES) * num_views * num_places * num_joints
    step = max(1, FRAMES_ELEMENTS // per_frame)
    chosen = [_chosen_hypotheses(_frames(seen, t, t + step), pairs, reach_m) for t in range(0, num_frames, step)]
    maximum = max(c.shape[1] for c in chosen)
    places = torch.cat([torch.nn.functional.pad(c, (0, 0, 0, maximum - c.shape[1]), value=-1) for c in chosen])
    for _ in range(REFINEMENTS):
        bodies, known, due = _triangulated(seen, places, projections, threshold_px)
        fit, evidence = agreement(seen, bodies, known, due, reach_m)
        places = best_members(torch.where(fit >= MIN_FIT, evidence, torch.zeros_like(evidence)))
    bodies, known, due = _triangulated(seen, places, projections, threshold_px)
    _, evidence = agreement(seen, bodies, known, due, reach_m)
    support = evidence.gather(3, places.clamp_min(0)[..., None])[..., 0] * (places >= 0)
    return Association(places, support, bodies, known)


def agreement(
    seen: Observations,
    bodies: Float[Tensor, "T H J 3"],
    known: Bool[Tensor, "T H J"],
    due: Bool[Tensor, "T H J"],
    reach_m: float,
) -> tuple[Float[Tensor, "T H V P"], Float[Tensor, "T H V P"]]:
    """How well each detection matches each body: its fit (agreeing fraction of its weight) and evidence (per joint).

    `due` joints are those that two of a body's views show, so the body should have them. A due joint that is not
    `known` agrees with nothing, so a body consisting of a few joints that meet by chance has a poor fit.
    """
    offset = bodies[:, :, None] - seen.origin[:, None]
    along = torch.einsum("thvjc,tvpjc->thvpj", offset, seen.ray)
    apart2 = (offset**2).sum(dim=-1)[:, :, :, None] - along**2
    agree = (1.0 - apart2 / reach_m**2).clamp(0.0, 1.0) * (along > 0)
    weight = seen.weight[:, None] * due[:, :, None, None]
    evidence = (agree * weight * known[:, :, None, None]).sum(dim=-1)
    total = weight.sum(dim=-1)
    enough = (weight > 0).sum(dim=-1) >= MIN_JOINTS
    fit = torch.where(enough, evidence / total.clamp_min(1e-9), torch.zeros_like(total))
    return fit, evidence / bodies.shape[2]


def _detection_pairs(origin: Float[Tensor, "V 3"], num_places: int) -> Int[Tensor, "N 4"]:
    """(view, slot, other view, other slot) of the pairs of detections that become hypotheses.

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


def _frames(seen: Observations, start: int, stop: int) -> Observations:
    return Observations(seen.ideal[start:stop], seen.ray[start:stop], seen.origin, seen.weight[start:stop])


def _chosen_hypotheses(seen: Observations, pairs: Int[Tensor, "N 4"], reach_m: float) -> Int[Tensor, "T K V"]:
    """Members of the bodies selected by the greedy packing."""
    fit, evidence = agreement(seen, *_hypotheses(seen, pairs, reach_m), reach_m)
    value = torch.where(fit >= MIN_FIT, evidence, torch.zeros_like(evidence))
    frame = torch.arange(len(value))
    view = torch.arange(value.shape[2])
    people = []
    while True:
        best, place = value.max(dim=-1)
        total = best.sum(dim=-1) * ((best > 0).sum(dim=-1) >= 2)
        worth, winner = total.max(dim=-1)
        members = torch.where(best[frame, winner] > 0, place[frame, winner], -1)
        members = torch.where((worth > 0)[:, None], members, -1)
        if not (worth > 0).any():
            break
        people.append(members)
        taken = torch.zeros(value.shape[0], *value.shape[2:], dtype=torch.bool)
        taken[frame[:, None], view, members.clamp_min(0)] = members >= 0
        value = value * ~taken[:, None]
    return torch.stack(people, dim=1) if people else torch.empty(len(value), 0, value.shape[2], dtype=torch.long)


def _hypotheses(
    seen: Observations, pairs: Int[Tensor, "N 4"], reach_m: float
) -> tuple[Float[Tensor, "T H J 3"], Bool[Tensor, "T H J"], Bool[Tensor, "T H J"]]:
    """The bodies of the pairs whose rays pass closest to each other, with known and due joints.

    A joint is due if both views have it, and known if the rays pass each other closely in front of both cameras.
    """
    one, first, other, second = pairs.T
    a, b = seen.ray[:, one, first], seen.ray[:, other, second]
    weight = (seen.weight[:, one, first] * seen.weight[:, other, second]).sqrt()
    base = (seen.origin[other] - seen.origin[one])[:, None]
    cosine, along_a, along_b = (a * b).sum(dim=-1), (a * base).sum(dim=-1), (b * base).sum(dim=-1)
    sine2 = 1.0 - cosine**2
    crossing = sine2 > MIN_SINE**2
    scale = torch.where(crossing, sine2, torch.ones_like(sine2))
    depth_a, depth_b = (along_a - cosine * along_b) / scale, (cosine * along_a - along_b) / scale
    on_a, on_b = depth_a[..., None] * a, base + depth_b[..., None] * b
    gap = (on_a - on_b).norm(dim=-1)
    known = (weight > 0) & crossing & (depth_a > 0) & (depth_b > 0) & (gap < 2 * reach_m)
    agree = (1.0 - (gap / (2 * reach_m)) ** 2).clamp_min(0.0) * weight * known
    best = agree.sum(dim=-1).topk(min(len(pairs), MAX_HYPOTHESES), dim=1).indices
    points = seen.origin[one][:, None] + (on_a + on_b) / 2
    index = best[..., None, None].expand(-1, -1, *points.shape[2:])
    return points.gather(1, index), known.gather(1, index[..., 0]), (weight > 0).gather(1, index[..., 0])


def _triangulated(
    seen: Observations, places: Int[Tensor, "T K V"], projections: Float[Tensor, "V 3 4"], threshold_px: float
) -> tuple[Float[Tensor, "T K J 3"], Bool[Tensor, "T K J"], Bool[Tensor, "T K J"]]:
    """Bodies of the members, with known and due joints."""
    pixels, weights = seen.of(places)
    found = triangulate_robust(pixels, projections, weights, threshold_px=threshold_px, check=False)
    return found.points, found.valid, (weights > 0).sum(dim=-1) >= 2


def best_members(value: Float[Tensor, "T K V P"]) -> Int[Tensor, "T K V"]:
    """For every view and frame, the assignment of detections to bodies with the highest total value; 0 is no match.

    A body seen by fewer than two views is dropped.
    """
    matrix = value.movedim(2, 1).numpy()
    places = np.full(matrix.shape[:3], -1)
    for t, v in np.ndindex(*matrix.shape[:2]):
        body, place = linear_sum_assignment(matrix[t, v], maximize=True)
        places[t, v, body] = np.where(matrix[t, v, body, place] > 0, place, -1)
    members = torch.from_numpy(places).movedim(1, 2)
    return torch.where((members >= 0).sum(dim=-1, keepdim=True) >= 2, members, -1)
