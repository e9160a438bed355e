"""Disturbed versions of a view: what is taken from the person, and what the box becomes."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.training.token_views import SeenPerson, disturbed, found
from mvpose.training.training_config import TokenCacheConfig

BOX = np.array([60.0, 40.0, 140.0, 260.0])
NOTHING = TokenCacheConfig(draws=1, furniture=0.0, people=0.0, edge=0.0, misplaced=0.0, blurred=0.0)


def person() -> SeenPerson:
    image = np.full((320, 320, 3), 100, np.uint8)
    return SeenPerson(image, BOX)


def drawn(seed: int, **chances: float) -> SeenPerson:
    others = [np.full((320, 320, 3), 200, np.uint8)]
    return disturbed(person(), others, replace(NOTHING, **chances), np.random.default_rng(seed))


def test_in_full_view_the_box_holds_the_person_and_the_image_is_untouched() -> None:
    boxes = np.stack([found(person(), np.random.default_rng(seed)).box for seed in range(200)])
    assert (np.abs(boxes - BOX) <= [24, 33, 24, 33]).all()
    assert boxes.mean(axis=0) - BOX == pytest.approx([-6.4, -8.8, 6.4, 8.8], abs=2.0)
    assert (drawn(0).image == 100).all()


def test_an_edge_leaves_black_beyond_it_and_the_box_ends_there() -> None:
    for seed in range(20):
        view = drawn(seed, edge=1.0)
        black = (view.image == 0).all(axis=-1)
        left, top, right, bottom = view.box.round().astype(int)
        assert 0.1 < black.mean() < 0.95
        assert not black[max(top, 0) : bottom, max(left, 0) : right].any()
        taken = 1 - (right - left) * (bottom - top) / np.prod(np.ptp(BOX.reshape(2, 2), axis=0))
        assert -0.6 < taken < 0.8


@pytest.mark.parametrize(("what", "shade"), [("furniture", None), ("people", 200)])
def test_what_stands_in_front_covers_part_of_the_person(what: str, shade: int | None) -> None:
    shares = []
    for seed in range(40):
        view = drawn(seed, **{what: 1.0})
        left, top, right, bottom = BOX.astype(int)
        changed = (view.image != 100).any(axis=-1)[top:bottom, left:right]
        shares.append(changed.mean())
        if shade is not None:
            assert (view.image[(view.image != 100).any(axis=-1)] == shade).all()
    assert 0.15 < np.mean(shares) < 0.6 and max(shares) < 0.95


def test_half_of_the_boxes_behind_furniture_shrink_to_what_is_left() -> None:
    smaller = [np.prod(np.ptp(drawn(seed, furniture=1.0).box.reshape(2, 2), axis=0)) < 14000 for seed in range(100)]
    assert 0.2 < np.mean(smaller) < 0.55


def test_a_version_follows_from_the_generator() -> None:
    everything = {"furniture": 1.0, "people": 1.0, "edge": 1.0, "misplaced": 1.0, "blurred": 1.0}
    one, again, other = (drawn(seed, **everything) for seed in (3, 3, 4))
    assert (one.image == again.image).all() and (one.box == again.box).all()
    assert (one.image != other.image).any()
