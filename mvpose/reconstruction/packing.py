"""Choose the best set of bodies and their detections in each frame, by exact facility location.

A hypothesis h has a fixed cost, and a gain from each detection (view v, place p) assigned to it. A hypothesis receives
at most one detection per view, and a detection is assigned to at most one hypothesis. The best choice has the highest
total; the empty choice has total 0. The greedy choice is nearly always the best, and prices (the dual of the linear
program) prove it. For the remaining frames, better prices are found by subgradient steps (Held, Wolfe and Crowder,
Validation of subgradient optimization, 1974). They prove most of the choices that are greedy by them; the rest of the
frames are solved as mixed integer programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.reconstruction.assignment import minimum_cost

# Maximum branch-and-bound nodes of one frame. All frames so far, with up to 5 views and 8 people, needed only a few.
MAX_NODES = 200
TOLERANCE = 1e-9
# Steps of the prices, steps without progress after which they become half as long, steps between choices, and what a
# body may lack of its prices to be chosen. A step takes a fortieth of the time of a program, which needs scipy, too.
PRICE_STEPS, PATIENCE, CHOOSE_EVERY, SLACKS = 60, 8, 15, (0.3, 3.0)


@dataclass(frozen=True, eq=False)
class Packing:
    """The chosen bodies of each frame; K is the maximum per frame."""

    taken: Int[Tensor, "T K"]
    """Index of the hypothesis, or -1."""
    places: Int[Tensor, "T K V"]
    """Place of the assigned detection in each view, or -1."""

    def replaced(self, frames: Int[Tensor, " n"], choice: Packing) -> Packing:
        """Replace the choice in some of the frames."""
        maximum = max(self.taken.shape[1], choice.taken.shape[1])
        taken, places = _widened(self, maximum)
        taken[frames], places[frames] = _widened(choice, maximum)
        return Packing(taken, places)


def best_choice(gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"]) -> Packing:
    """The choice with the highest total; each chosen hypothesis has two or more detections."""
    choice = greedy_choice(gain, cost)
    excess = excess_over_prices(gain, cost, choice)
    for t in (excess > TOLERANCE).any(dim=-1).nonzero()[:, 0].tolist():
        # Reduced costs: drop hypotheses farther below their prices than the bound is above the greedy choice.
        kept = (excess[t] >= -excess[t].clamp_min(0.0).sum()).nonzero()[:, 0]
        best, below = by_prices(gain[t, kept], cost[t, kept])
        if len(below):
            taken, places = _solved(gain[t, kept[below]].numpy(), cost[t, kept[below]].numpy())
            best = Packing(below[taken][None], torch.from_numpy(places)[None])
        choice = choice.replaced(torch.tensor([t]), Packing(kept[best.taken], best.places))
    return choice


def by_prices(gain: Float[Tensor, "H V P"], cost: Float[Tensor, "H"]) -> tuple[Packing, Int[Tensor, " n"]]:
    """A choice for one frame, and the hypotheses that may be part of a better one; none if it is the best.

    The price of a detection rises where several hypotheses would take it, and falls where none would, in steps of
    Polyak's length. The sum of all prices and of what hypotheses are worth above them bounds every choice.
    """
    best = greedy_choice(gain[None], cost[None])
    worth, bound, step, waited = float(_values(gain, cost, best).sum()), math.inf, 1.0, 0
    price = lowest = torch.zeros_like(gain[0])
    below = torch.zeros_like(cost)
    first = price.shape[1] * torch.arange(len(price))
    for done in range(PRICE_STEPS):
        profit, at = (gain - price).max(dim=-1)
        excess = profit.clamp_min(0.0).sum(dim=-1) - cost
        total = float(price.sum() + excess.clamp_min(0.0).sum())
        waited = 0 if total < bound else waited + 1
        if total < bound:
            bound, lowest, below = total, price, excess
        taking = (at + first)[(excess > 0)[:, None] & (profit > 0)]
        spare = 1.0 - taking.bincount(minlength=price.numel()).reshape(price.shape)
        spare[(price <= 0) & (spare > 0)] = 0.0
        settled = not spare.any()
        if done % CHOOSE_EVERY == CHOOSE_EVERY - 1 or settled:
            tried = [best, *(_greedy_by(gain, cost, lowest, slack) for slack in SLACKS)]
            worth, best = max(((float(_values(gain, cost, c).sum()), c) for c in tried), key=lambda pair: pair[0])
        if bound - worth <= TOLERANCE:
            return best, torch.empty(0, dtype=torch.int64)
        if settled:
            break
        if waited == PATIENCE:
            price, step, waited = lowest, step / 2.0, 0
        else:
            price = (price - step * (total - worth) / float(spare.square().sum()) * spare).clamp_min(0.0)
    return best, below.ge(worth - bound - TOLERANCE).nonzero()[:, 0]


def _greedy_by(gain: Float[Tensor, "H V P"], cost: Float[Tensor, "H"], price: Tensor, slack: float) -> Packing:
    """Bodies taken greedily by what they are worth above the prices, plus a slack; those that are worth something."""
    choice = greedy_choice((gain - price).clamp_min(0.0)[None], cost[None] - slack)
    paying = _values(gain, cost, choice) > 0
    return Packing(choice.taken[:, paying], choice.places[:, paying])


def _values(gain: Float[Tensor, "H V P"], cost: Float[Tensor, "H"], choice: Packing) -> Float[Tensor, " K"]:
    """Values of the chosen bodies of one frame."""
    places = choice.places[0]
    given = gain[choice.taken[0]].gather(2, places.clamp_min(0)[..., None])[..., 0] * (places >= 0)
    return given.sum(dim=-1) - cost[choice.taken[0]]


def greedy_choice(gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"]) -> Packing:
    """Take the hypothesis of the highest value, then the highest with the remaining detections, and so on."""
    frame, view = torch.arange(len(gain)), torch.arange(gain.shape[2])
    left, taken, places = gain, [], []
    while left.shape[1]:
        best, place = left.max(dim=-1)
        worth, winner = torch.where((best > 0).sum(dim=-1) >= 2, best.sum(dim=-1) - cost, 0.0).max(dim=-1)
        if not (worth > 0).any():
            break
        given = torch.where((worth > 0)[:, None] & (best[frame, winner] > 0), place[frame, winner], -1)
        taken.append(torch.where(worth > 0, winner, -1))
        places.append(given)
        gone = torch.zeros_like(left[:, 0], dtype=torch.bool)
        gone[frame[:, None], view, given.clamp_min(0)] = given >= 0
        left = left.masked_fill(gone[:, None], 0.0)
        left[frame, winner] = 0.0
    if not taken:
        return Packing(frame.new_empty(len(gain), 0), frame.new_empty(len(gain), 0, gain.shape[2]))
    return Packing(torch.stack(taken, dim=1), torch.stack(places, dim=1))


def excess_over_prices(
    gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"], choice: Packing
) -> Float[Tensor, "T H"]:
    """Upper bound on the value of each hypothesis in excess of the prices of the detections that it would take.

    The value of each chosen body is divided among its detections in proportion to their gains; the shares are their
    prices. The prices then sum to the value of the choice. If no hypothesis has a positive excess, no choice has a
    higher value (weak duality).
    """
    frame, view = torch.arange(len(gain))[:, None, None], torch.arange(gain.shape[2])
    there, places, taken = choice.places >= 0, choice.places.clamp_min(0), choice.taken.clamp_min(0)
    share = gain[frame, taken[..., None], view, places] * there
    worth = torch.where(choice.taken >= 0, share.sum(dim=-1) - cost.gather(1, taken), 0.0)
    paid = share * (worth / share.sum(dim=-1).clamp_min(TOLERANCE))[..., None]
    price = gain.new_zeros(len(gain), *gain.shape[2:])
    price.index_put_((frame, view, places), paid, accumulate=True)
    return (gain - price[:, None]).amax(dim=-1).clamp_min_(0.0).sum(dim=-1) - cost


def best_members(value: Float[Tensor, "T K V P"]) -> Int[Tensor, "T K V"]:
    """Assign detections to bodies in every view and frame with the highest total value; a value of 0 is no match.

    A body shown by fewer than two views is dropped, where there are two.
    """
    if not value.shape[-1]:
        return torch.full(value.shape[:-1], -1)
    best, places = value.max(dim=-1)
    places = torch.where(best > 0, places, -1)
    clash = _clashes(places, value.shape[-1])
    for t, v in clash.nonzero().tolist():
        matrix = value[t, :, v].numpy()
        body, place = minimum_cost(-matrix)
        places[t, :, v] = -1
        places[t, torch.from_numpy(body), v] = torch.from_numpy(np.where(matrix[body, place] > 0, place, -1))
    return torch.where((places >= 0).sum(dim=-1, keepdim=True) >= min(2, value.shape[2]), places, -1)


def _clashes(places: Int[Tensor, "T K V"], num_places: int) -> Bool[Tensor, "T V"]:
    """Frames and views in which two bodies have the same detection."""
    wanted = torch.nn.functional.one_hot(places + 1, num_places + 1)[..., 1:].sum(dim=1)
    return (wanted > 1).any(dim=-1)


def _widened(choice: Packing, maximum: int) -> tuple[Int[Tensor, "T K"], Int[Tensor, "T K V"]]:
    more = maximum - choice.taken.shape[1]
    pad = torch.nn.functional.pad
    return pad(choice.taken, (0, more), value=-1), pad(choice.places, (0, 0, 0, more), value=-1)


def _solved(
    gain: Float[np.ndarray, "H V P"], cost: Float[np.ndarray, "H"]
) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "K V"]]:
    """The best choice of one frame, as a mixed integer program.

    The binary variables state which hypotheses are chosen and which detections each receives.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    hypotheses, views, places = gain.shape
    h, v, p = np.nonzero(gain > 0)
    entry = hypotheses + np.arange(len(h))
    one, minus = np.ones(len(h)), -np.ones(hypotheses * views)
    owner = np.repeat(np.arange(hypotheses), views)
    single = coo_array(
        (np.r_[one, minus], (np.r_[h * views + v, np.arange(hypotheses * views)], np.r_[entry, owner])),
        shape=(hypotheses * views, hypotheses + len(h)),
    )
    once = coo_array((one, (v * places + p, entry)), shape=(views * places, hypotheses + len(h)))
    each = np.arange(hypotheses)
    two = coo_array(
        (np.r_[one, -2.0 * np.ones(hypotheses)], (np.r_[h, each], np.r_[entry, each])),
        shape=(hypotheses, hypotheses + len(h)),
    )
    found = milp(
        np.r_[cost, -gain[h, v, p]],
        integrality=np.ones(hypotheses + len(h)),
        bounds=Bounds(0.0, 1.0),
        constraints=[
            LinearConstraint(single.tocsr(), ub=0.0),
            LinearConstraint(once.tocsr(), ub=1.0),
            LinearConstraint(two.tocsr(), lb=0.0),
        ],
        options={"node_limit": MAX_NODES},
    )
    given = found.x[hypotheses:] > 0.5
    members = np.full((hypotheses, views), -1)
    members[h[given], v[given]] = p[given]
    chosen = np.flatnonzero(found.x[:hypotheses] > 0.5)
    return chosen, members[chosen]
