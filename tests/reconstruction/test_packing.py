"""The best choice of bodies against a slow twin that tries them all."""

import itertools

import pytest
import torch

from mvpose.reconstruction import packing
from mvpose.reconstruction.packing import (
    TOLERANCE,
    Packing,
    best_choice,
    by_prices,
    excess_over_prices,
    greedy_choice,
)


def problem(seed: int, frames: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Bodies that want each other's detections; some cannot be."""
    generator = torch.Generator().manual_seed(seed)
    gain = (4 * torch.rand(frames, 5, 3, 2, generator=generator, dtype=torch.float64) - 1).clamp_min(0.0)
    cost = 2 + 3 * torch.rand(frames, 5, generator=generator, dtype=torch.float64)
    cost[:, 3][::4] = torch.inf
    gain[:, 3][::4] = 0.0
    return gain, cost


def best_total(gain: torch.Tensor, cost: torch.Tensor) -> float:
    """Everything that each body could be given, body after body, without what is taken."""

    def best_from(h: int, taken: frozenset) -> float:
        if h == len(cost):
            return 0.0
        totals = [best_from(h + 1, taken)]
        if cost[h].isfinite():
            for places in itertools.product(range(-1, gain.shape[2]), repeat=gain.shape[1]):
                given = frozenset((v, p) for v, p in enumerate(places) if p >= 0)
                if len(given) >= 2 and not given & taken and all(gain[h, v, p] > 0 for v, p in given):
                    worth = float(sum(gain[h, v, p] for v, p in given) - cost[h])
                    if worth > 0:
                        totals.append(worth + best_from(h + 1, taken | given))
        return max(totals)

    return best_from(0, frozenset())


def total(gain: torch.Tensor, cost: torch.Tensor, choice: Packing, t: int) -> float:
    """What a choice is worth, once it is seen to be one."""
    bodies = [
        (h, places) for h, places in zip(choice.taken[t].tolist(), choice.places[t].tolist(), strict=True) if h >= 0
    ]
    given = [(v, p) for _, places in bodies for v, p in enumerate(places) if p >= 0]
    assert len(given) == len(set(given)) and len({h for h, _ in bodies}) == len(bodies)
    assert all(sum(p >= 0 for p in places) >= 2 for _, places in bodies)
    return sum(float(gain[t, h, v, p]) for h, places in bodies for v, p in enumerate(places) if p >= 0) - sum(
        float(cost[t, h]) for h, _ in bodies
    )


def test_no_choice_is_worth_more():
    gain, cost = problem(0, frames=12)
    choice = best_choice(gain, cost)
    for t in range(len(gain)):
        assert total(gain, cost, choice, t) == pytest.approx(best_total(gain[t], cost[t]), abs=1e-6)


def test_a_greedy_choice_is_left_alone_only_where_no_choice_is_worth_more(monkeypatch):
    gain, cost = problem(1, frames=60)
    greedy = greedy_choice(gain, cost)
    settled = (excess_over_prices(gain, cost, greedy) <= TOLERANCE).all(dim=-1)
    assert settled.any() and not settled.all()
    for t in settled.nonzero()[:6, 0].tolist():
        assert total(gain, cost, greedy, t) == pytest.approx(best_total(gain[t], cost[t]), abs=1e-6)
    monkeypatch.setattr(packing, "_solved", lambda *_: pytest.fail("a program for a frame that prices settle"))
    best_choice(gain[settled], cost[settled])


def test_two_pairs_beat_the_body_that_takes_one_detection_of_each():
    # Worth 5, and 4 each: taken greedily, the first leaves nothing to the others.
    gain, cost = torch.zeros(1, 3, 2, 2, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    gain[0, 0, 0, 0] = gain[0, 0, 1, 1] = 3.0
    gain[0, 1, 0, 0] = gain[0, 1, 1, 0] = gain[0, 2, 0, 1] = gain[0, 2, 1, 1] = 2.5
    assert sorted(best_choice(gain, cost).taken[0].tolist()) == [1, 2]
    assert greedy_choice(gain, cost).taken[0].tolist() == [0]


def test_one_detection_is_no_body_however_much_it_gains():
    gain, cost = torch.zeros(1, 2, 2, 1, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    gain[0, 0, 0, 0] = 100.0
    assert not (best_choice(gain, cost).taken >= 0).any()


def test_prices_settle_more_frames_and_none_wrongly():
    # Fails if the bound lacks the prices (frames are settled wrongly), if prices do not move (most stay open), or if
    # hypotheses are dropped that a better choice needs.
    gain, cost = problem(2, frames=80)
    greedy = greedy_choice(gain, cost)
    left = (excess_over_prices(gain, cost, greedy) > TOLERANCE).any(dim=-1).nonzero()[:, 0].tolist()
    settled = 0
    for t in left:
        best, below = by_prices(gain[t], cost[t])
        if len(below):
            assert best_total(gain[t, below], cost[t, below]) == pytest.approx(best_total(gain[t], cost[t]), abs=1e-6)
        else:
            settled += 1
            assert total(gain[t : t + 1], cost[t : t + 1], best, 0) == pytest.approx(best_total(gain[t], cost[t]))
    assert len(left) > 20 and settled > 0.7 * len(left)
