import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mvpose.models.detection.joint_network import decode_simcc, peaks

SCORES = arrays(np.float64, array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=7), elements=st.floats(-1, 1.5))


def slow_peak(row: np.ndarray) -> tuple[float, float]:
    """The parabola through the highest bin and its neighbours, solved as a linear system."""
    best = max(range(len(row)), key=lambda i: (row[i], -i))
    if best in (0, len(row) - 1):
        return float(best), float(row[best])
    places = np.array([-1.0, 0.0, 1.0])
    a, b, _ = np.linalg.solve(np.stack([places**2, places, places**0], axis=1), row[best - 1 : best + 2])
    return best + (-b / (2 * a) if a < -1e-12 else 0.0), float(row[best])


@settings(max_examples=60, deadline=None)
@given(columns=SCORES, data=st.data())
def test_decoding_agrees_with_a_slow_twin(columns, data):
    rows = data.draw(
        arrays(np.float64, (*columns.shape[:2], 5), elements=st.floats(-1, 1.5).map(lambda v: round(v, 3)))
    )
    columns = columns.round(3)
    xy, confidence = decode_simcc(columns, rows, 2.0)
    for person in range(columns.shape[0]):
        for joint in range(columns.shape[1]):
            x, x_height = slow_peak(columns[person, joint])
            y, y_height = slow_peak(rows[person, joint])
            assert np.allclose(xy[person, joint], [x / 2, y / 2], atol=1e-9)
            assert confidence[person, joint] == min(max(min(x_height, y_height), 0.0), 1.0)


@given(place=st.floats(2, 60), width=st.floats(3, 12))
def test_a_gaussian_is_found_between_bins(place, width):
    scores = np.exp(-((np.arange(64) - place) ** 2) / (2 * width**2))
    found, height = peaks(scores[None])
    assert abs(found[0] - place) < 0.02
    assert 0.98 < height[0] <= 1


def test_a_peak_on_the_border_stays_there():
    found, _ = peaks(np.array([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.5]]))
    assert found.tolist() == [0.0, 3.0]


def test_flat_scores_have_their_peak_in_the_first_bin():
    found, height = peaks(np.full((2, 8), 0.25))
    assert found.tolist() == [0.0, 0.0]
    assert height.tolist() == [0.25, 0.25]


@given(shift=st.integers(-10, 10))
def test_moving_the_scores_moves_the_joint(shift):
    scores = np.exp(-((np.arange(64) - 30.3) ** 2) / 18)[None, None]
    still, _ = decode_simcc(scores, scores, 2.0)
    moved, _ = decode_simcc(np.roll(scores, shift, axis=-1), scores, 2.0)
    assert np.allclose(moved - still, [shift / 2, 0], atol=1e-9)
