import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.lens import Lens, LensModel, _jacobian

FOCAL = 1000.0
H36M = [-0.2070, 0.2478, -0.00098, -0.00142, -0.00307]


def _coefficients(*spreads: float) -> st.SearchStrategy[list[float]]:
    return st.tuples(*[st.floats(-s, s) for s in spreads]).map(list)


# k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4, to the size that real lenses reach, and past it for k1.
brown_conrady = _coefficients(0.4, 0.2, 0.003, 0.003, 0.1, 0.05, 0.05, 0.05, 0.002, 0.002, 0.002, 0.002)
kannala_brandt = _coefficients(0.1, 0.05, 0.02, 0.01)
human36m = _coefficients(0.3, 0.3, 0.003, 0.003, 0.02)
lenses = st.one_of(
    brown_conrady.map(lambda k: Lens.of(LensModel.BROWN_CONRADY, [k])),
    kannala_brandt.map(lambda k: Lens.of(LensModel.KANNALA_BRANDT, [k])),
    human36m.map(lambda k: Lens.of(LensModel.HUMAN36M, [k])),
)


def _disc(lens: Lens, share: float, seed: int = 0, num: int = 60) -> torch.Tensor:
    """Points within a share of the lens's region, and within 55 degrees off the axis, (V n 2)."""
    generator = torch.Generator().manual_seed(seed)
    limit = lens.limit().clamp_max(math.tan(math.radians(55.0)))
    radius = torch.rand(len(limit), num, generator=generator, dtype=torch.float64).sqrt() * share * limit[:, None]
    angle = torch.rand(len(limit), num, generator=generator, dtype=torch.float64) * 2 * math.pi
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)


@given(lenses, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_undistortion_is_the_inverse_wherever_the_lens_is_one_to_one(lens, seed):
    ideal = _disc(lens, 0.999, seed)
    back, valid = lens.undistort(lens.distort(ideal))
    assert valid.all()
    torch.testing.assert_close(back, ideal, atol=1e-9, rtol=0.0)


@given(lenses)
@settings(max_examples=40, deadline=None)
def test_no_two_points_of_the_region_are_shown_at_the_same_place(lens):
    ideal = _disc(lens, 1.0, num=150)[0]
    shown = lens.distort(ideal[None])[0]
    moved, apart = torch.cdist(shown, shown), torch.cdist(ideal, ideal)
    pairs = apart > 1e-3
    # With J + J^T positive definite (p - q) . (f(p) - f(q)) > 0, which is more than being different.
    along = ((shown[:, None] - shown[None]) * (ideal[:, None] - ideal[None])).sum(dim=-1)
    assert (along[pairs] > 0).all()
    assert (moved[pairs] > 0).all()


@given(brown_conrady)
@settings(max_examples=40, deadline=None)
def test_brown_conrady_is_opencv_within_a_millionth_of_a_pixel(k):
    lens = Lens.of(LensModel.BROWN_CONRADY, [k])
    ideal = _disc(lens, 1.0)
    theirs, _ = cv2.projectPoints(
        np.concatenate([ideal[0].numpy(), np.ones((60, 1))], axis=-1), np.zeros(3), np.zeros(3), _matrix(), np.array(k)
    )
    assert np.abs(theirs[:, 0] - _pixels(lens.distort(ideal))).max() < 1e-6


@given(kannala_brandt)
@settings(max_examples=40, deadline=None)
def test_kannala_brandt_is_opencv_fisheye_within_a_millionth_of_a_pixel(k):
    lens = Lens.of(LensModel.KANNALA_BRANDT, [k])
    ideal = _disc(lens, 1.0)
    world = np.concatenate([ideal[0].numpy(), np.ones((60, 1))], axis=-1)[:, None]
    theirs, _ = cv2.fisheye.projectPoints(world, np.zeros(3), np.zeros(3), _matrix(), np.array(k))
    assert np.abs(theirs[:, 0] - _pixels(lens.distort(ideal))).max() < 1e-6


def test_undistorted_pixels_are_those_of_opencv_within_a_millionth_of_a_pixel():
    k = [-0.28, 0.11, 0.0007, -0.0004, -0.02, 0.01, 0.002, 0.001, 0.0005, 0.0, -0.0003, 0.0]
    lens = Lens.of(LensModel.BROWN_CONRADY, [k])
    shown = lens.distort(_disc(lens, 0.9))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 500, 1e-15)
    theirs = cv2.undistortPoints(_pixels(shown)[:, None], _matrix(), np.array(k), P=_matrix(), criteria=criteria)
    assert np.abs(theirs[:, 0] - _pixels(lens.undistort(shown)[0])).max() < 1e-6
    fisheye = [0.05, -0.02, 0.004, -0.001]
    lens = Lens.of(LensModel.KANNALA_BRANDT, [fisheye])
    shown = lens.distort(_disc(lens, 0.9))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-15)
    theirs = cv2.fisheye.undistortPoints(
        _pixels(shown)[:, None], _matrix(), np.array(fisheye), P=_matrix(), criteria=criteria
    )
    assert np.abs(theirs[:, 0] - _pixels(lens.undistort(shown)[0])).max() < 1e-6


def _matrix() -> np.ndarray:
    return np.array([[FOCAL, 0, 0], [0, FOCAL, 0], [0, 0, 1.0]])


def _pixels(plane: torch.Tensor) -> np.ndarray:
    return FOCAL * plane[0].numpy()


def test_human36m_has_no_factor_two_on_its_tangential_terms():
    lens = Lens.of(LensModel.HUMAN36M, [H36M])
    x, y, (k1, k2, p1, p2, k3) = 0.3, -0.2, H36M
    r2 = x * x + y * y
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
    expected = torch.tensor([[[x * factor + p2 * r2, y * factor + p1 * r2]]], dtype=torch.float64)
    torch.testing.assert_close(lens.distort(torch.tensor([[[x, y]]], dtype=torch.float64)), expected)
    # Half of OpenCV's coefficients give the same cross terms, but not the same r^2 terms: the two are different lenses.
    opencv = Lens.of(LensModel.BROWN_CONRADY, [H36M])
    corner = torch.tensor([[[0.44, 0.44]]], dtype=torch.float64)
    gap_px = 1145.0 * (lens.distort(corner) - opencv.distort(corner)).norm()
    assert 0.1 < gap_px < 1.0


def test_points_beyond_the_fold_are_refused_and_finite():
    lens = Lens.of(LensModel.BROWN_CONRADY, [[-0.5]])
    # x - 0.5 x^3 turns at sqrt(2 / 3), where it has the value 0.5443.
    limit = float(lens.limit()[0])
    assert limit == pytest.approx(math.sqrt(2 / 3), abs=1e-3)
    assert limit <= math.sqrt(2 / 3)
    ideal, valid = lens.undistort(torch.tensor([[[0.5, 0.0], [0.56, 0.0], [3.0, 4.0]]], dtype=torch.float64))
    assert valid.tolist() == [[True, False, False]]
    assert ideal.isfinite().all()


def test_a_lens_without_distortion_is_the_identity_out_to_88_degrees():
    lens = Lens.none(1)
    points = torch.tensor([[[0.0, 0.0], [20.0, 20.0], [0.1, -0.4]]], dtype=torch.float64)
    torch.testing.assert_close(lens.distort(points), points)
    ideal, valid = lens.undistort(points)
    torch.testing.assert_close(ideal, points)
    assert valid.all()


def test_cameras_of_different_models_do_not_mix():
    coefficients = torch.zeros(3, 12, dtype=torch.float64)
    coefficients[:, :5] = torch.tensor(H36M)
    coefficients[1, 4] = 0.0
    models = (LensModel.BROWN_CONRADY, LensModel.KANNALA_BRANDT, LensModel.HUMAN36M)
    mixed = Lens(models, coefficients)
    points = _disc(mixed, 0.6)
    for i, model in enumerate(models):
        alone = Lens((model,), coefficients[i : i + 1])
        torch.testing.assert_close(mixed.distort(points)[i], alone.distort(points[i : i + 1])[0])
        torch.testing.assert_close(mixed.undistort(points)[0][i], alone.undistort(points[i : i + 1])[0][0])
    assert mixed.select([2, 0]).models == (models[2], models[0])


@pytest.mark.parametrize("model", list(LensModel))
def test_distortion_and_its_inverse_are_differentiable_in_points_and_coefficients(model):
    k = [[0.05, -0.02, 0.004, -0.001]] if model == LensModel.KANNALA_BRANDT else [H36M]
    coefficients = Lens.of(model, k).coefficients.requires_grad_()
    points = _disc(Lens.of(model, k), 0.5, num=4).requires_grad_()
    for name in ("distort", "undistort"):

        def run(c, p, name=name):
            out = getattr(Lens((model,), c), name)(p)
            return out if name == "distort" else out[0]

        assert torch.autograd.gradcheck(run, (coefficients, points), atol=1e-6)


def test_single_precision_is_good_to_a_hundredth_of_a_pixel():
    lens = Lens.of(LensModel.BROWN_CONRADY, [H36M]).to(torch.float32)
    ideal = _disc(lens, 0.9).float()
    back, valid = lens.undistort(lens.distort(ideal))
    assert valid.all()
    assert 1145.0 * (back - ideal).abs().max() < 0.01


@given(lenses, st.integers(0, 1000))
def test_the_jacobian_is_that_of_automatic_differentiation(lens, seed):
    points = _disc(lens, 0.9, seed, num=5).requires_grad_()
    shown = lens.distort(points)
    rows = [torch.autograd.grad(shown[..., axis].sum(), points, retain_graph=True)[0] for axis in (0, 1)]
    exact = _jacobian(lens.models[0], lens.coefficients, points.detach())
    torch.testing.assert_close(exact, torch.stack(rows, dim=-2), rtol=1e-9, atol=1e-9)
