"""Choose the best set of bodies and their detections in each frame, by exact facility location.

A hypothesis h has a fixed cost, and a gain from each detection (view v, place p) assigned to it. A hypothesis receives
at most one detection per view, and a detection is assigned to at most one hypothesis. The best choice has the highest
total; the empty choice has total 0. The greedy choice is nearly always the best, and prices (the dual of the linear
program) prove it. The remaining frames are solved as mixed integer programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.reconstruction.assignment import minimum_cost

# Maximum branch-and-bound nodes of one frame. All frames so far, with up to 5 views and 8 people, needed only a few.
MAX_NODES = 200
TOLERANCE = 1e-9
# Steps of prices and their margins, in units of the gains. Of frames of six people that the first prices leave open,
# they settle two thirds in 1 to 4 rounds, each a hundredth of the time of a program.
PRICE_ROUNDS, STEP, FIRST_MARGIN, NEXT_MARGIN = 16, 2.0, 0.5, 0.7


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
    excess = excess_over_prices(gain, cost, choice, PRICE_ROUNDS)
    for t in (excess > TOLERANCE).any(dim=-1).nonzero()[:, 0].tolist():
        # Reduced costs: drop hypotheses farther below their prices than the bound is above the greedy choice.
        kept = (excess[t] >= -excess[t].clamp_min(0.0).sum()).nonzero()[:, 0]
        taken, places = _solved(gain[t, kept].numpy(), cost[t, kept].numpy())
        choice = choice.replaced(torch.tensor([t]), Packing(kept[taken][None], torch.from_numpy(places)[None]))
    return choice


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
    gain: Float[Tensor, "T H V P"], cost: Float[Tensor, "T H"], choice: Packing, rounds: int = 0
) -> Float[Tensor, "T H"]:
    """Upper bound on the value of each hypothesis in excess of the prices of the detections that it would take.

    The value of each chosen body is divided among its detections in proportion to their gains; the shares are their
    prices. The prices then sum to the value of the choice. If no hypothesis has a positive excess, no choice has a
    higher value (weak duality). In each of the `rounds`, detections that hypotheses of positive excess would take
    become more expensive, and others of the same bodies cheaper; the bound is that of the best round of each frame.
    """
    frame, view = torch.arange(len(gain))[:, None, None], torch.arange(gain.shape[2])
    there, places, taken = choice.places >= 0, choice.places.clamp_min(0), choice.taken.clamp_min(0)
    share = gain[frame, taken[..., None], view, places] * there
    worth = torch.where(choice.taken >= 0, share.sum(dim=-1) - cost.gather(1, taken), 0.0)
    lowest = torch.full_like(cost, torch.inf)
    for done in range(rounds + 1):
        paid = share * (worth / share.sum(dim=-1).clamp_min(TOLERANCE))[..., None]
        price = gain.new_zeros(len(gain), *gain.shape[2:])
        price.index_put_((frame, view, places), paid, accumulate=True)
        best, at = (gain - price[:, None]).max(dim=-1)
        profit = best.clamp_min(0.0)
        excess = profit.sum(dim=-1) - cost
        better = excess.clamp_min(0.0).sum(dim=-1) < lowest.clamp_min(0.0).sum(dim=-1)
        lowest = torch.where(better[:, None], excess, lowest)
        if done == rounds or not (lowest > TOLERANCE).any():
            break
        over = (excess + FIRST_MARGIN * NEXT_MARGIN**done).clamp_min(0.0)
        rise = torch.where(profit > 0, (over / (profit > 0).sum(dim=-1).clamp_min(1))[..., None], 0.0)
        demand = torch.zeros_like(gain).scatter_(3, at[..., None], rise[..., None]).amax(dim=1)
        share = paid + STEP * demand[frame, view, places] * there
    return lowest


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
