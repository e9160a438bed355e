import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.report.drawing import cross, dot, ring, stroke, text_width, write_text

WHITE = (255, 255, 255)
inside = st.floats(20.0, 80.0)


def _black() -> np.ndarray:
    return np.zeros((100, 100, 3), dtype=np.uint8)


def _middle(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@given(inside, inside)
def test_a_dot_lies_at_its_fraction_of_a_pixel(x, y):
    image = _black()
    dot(image, np.array([x, y]), 4.0, WHITE)
    np.testing.assert_allclose(_middle(image), [x, y], atol=0.15)


@given(inside, inside, inside, inside)
def test_a_stroke_lies_between_its_ends(x0, y0, x1, y1):
    image = _black()
    start, stop = np.array([x0, y0]), np.array([x1, y1])
    stroke(image, start, stop, WHITE, 3)
    np.testing.assert_allclose(_middle(image), (start + stop) / 2, atol=0.5)


@pytest.mark.parametrize(
    "draw",
    [
        lambda image, at: dot(image, at, 3.0, WHITE),
        lambda image, at: ring(image, at, 3.0, WHITE),
        lambda image, at: cross(image, at, 3.0, WHITE),
        lambda image, at: stroke(image, at, np.ones(2), WHITE, 2),
    ],
    ids=["dot", "ring", "cross", "stroke"],
)
@pytest.mark.parametrize("point", [[np.nan, 50.0], [1e12, 50.0], [-5000.0, 3.0], [np.inf, 0.0]])
def test_nothing_is_drawn_for_a_point_that_is_missing_or_far_outside(draw, point):
    image = _black()
    draw(image, np.array(point))
    assert not image.any()


def test_a_ring_is_hollow():
    image = np.full((60, 60, 3), 90, dtype=np.uint8)
    ring(image, np.array([30.0, 30.0]), 8.0, WHITE)
    assert (image[30, 30] == 90).all() and image[30, 38].min() > 180


def test_text_of_any_length_ends_inside_the_image():
    image = np.zeros((40, 200, 3), dtype=np.uint8)
    stop = write_text(image, "a camera's name that nobody would give " * 50, 10, 20, 18, WHITE)
    assert 150 < stop <= 200 and image.any()
    assert abs(write_text(image, "short", 10, 20, 18, WHITE) - 10 - text_width("short", 18)) <= 1


def test_line_breaks_in_a_name_stay_on_one_line():
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    write_text(image, "one\n\n\ntwo", 10, 20, 18, WHITE)
    assert image[:40].any() and not image[40:].any()
