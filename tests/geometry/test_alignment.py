import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes

from mvpose.geometry.alignment import Similarity, align
from mvpose.geometry.rigid import Rigid

seeds = st.integers(0, 2**31 - 1)


def _similarity(batch: tuple[int, ...], seed: int) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    vector, shift = torch.randn(2, *batch, 3, generator=generator, dtype=torch.float64)
    scale = torch.rand(batch, generator=generator, dtype=torch.float64) * 3.0 + 0.1
    return Similarity(scale, Rigid.from_rotation_vector(vector, shift).rotation, 5.0 * shift)


def _points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.sampled_from([(), (4,), (2, 3)]), seeds)
@settings(max_examples=20, deadline=None)
def test_a_known_similarity_comes_back(batch, seed):
    truth, source = _similarity(batch, seed), _points(*batch, 10, seed=seed)
    found = align(source, truth.apply(source))
    torch.testing.assert_close(found.scale, truth.scale)
    torch.testing.assert_close(found.rotation, truth.rotation, atol=1e-9, rtol=0.0)
    torch.testing.assert_close(found.translation, truth.translation, atol=1e-8, rtol=0.0)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_mirror_image_is_met_with_the_best_proper_rotation(seed):
    source = _points(12, seed=seed)
    target = source * torch.tensor([1.0, 1.0, -1.0]) + 0.1 * _points(12, seed=seed + 1)
    found = align(source, target)
    assert torch.linalg.det(found.rotation) == pytest.approx(1.0)
    best = (found.apply(source) - target).square().sum()
    for turn in range(20):
        other = _similarity((), seed + turn)
        near = Similarity(found.scale, other.rotation, target.mean(0) - found.scale * other.rotation @ source.mean(0))
        assert best <= (near.apply(source) - target).square().sum()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_fit_is_procrustes_when_no_mirror_is_needed(seed):
    source, truth = _points(15, seed=seed), _similarity((), seed)
    target = truth.apply(source) + 0.05 * _points(15, seed=seed + 1)
    residual = (align(source, target).apply(source) - target).square().sum()
    _, _, disparity = procrustes(target.numpy(), source.numpy())
    spread = (target - target.mean(dim=0)).square().sum()
    assert float(residual / spread) == pytest.approx(float(disparity), rel=1e-6)


def test_points_of_no_weight_do_not_count():
    source, truth = _points(10), _similarity((), 3)
    target = truth.apply(source)
    target[3:5] = torch.nan
    weights = torch.ones(10, dtype=torch.float64)
    weights[3:5] = 0.0
    torch.testing.assert_close(align(source, target, weights).rotation, truth.rotation, atol=1e-9, rtol=0.0)


def test_without_scale_the_motion_is_rigid():
    source = _points(10)
    found = align(source, 2.0 * source, scaled=False)
    assert found.scale == 1.0
    torch.testing.assert_close(found.rotation, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0.0)


def test_points_in_one_place_or_none_at_all_give_finite_numbers():
    same = torch.ones(4, 3, dtype=torch.float64)
    found = align(same, 3.0 * same)
    torch.testing.assert_close(found.apply(same), 3.0 * same)
    none = align(same, same, torch.zeros(4, dtype=torch.float64))
    assert none.scale == 1.0
    assert np.isfinite(none.rotation.numpy()).all()
