"""The fused unprojection gives what plain torch gives in double precision, gradients included, in every hard case."""

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.kernels.unprojection import KINDS
from mvpose.geometry.triangulation import Kernel
from mvpose.models.fusion.canonical_frame import image_units
from mvpose.models.multiview import Views, open_views
from mvpose.models.volumes.cube import Cube, about_vertical
from mvpose.models.volumes.volumetric import chosen_engine, unproject

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SIZE = (64, 32)


def cameras(batch: int, views: int, distance: float, generator: torch.Generator) -> torch.Tensor:
    """(B V 3 4) cameras on a sphere about (0, 0, 1) m, looking there; if near, part of the cube lies behind them."""
    forward = torch.nn.functional.normalize(torch.randn(batch, views, 3, generator=generator), dim=-1)
    sideways = torch.nn.functional.normalize(torch.randn(batch, views, 3, generator=generator), dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, sideways), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    centre = torch.tensor([0.0, 0.0, 1.0]) - distance * forward
    k = torch.tensor([[25.0, 0, 31.5], [0, 25.0, 15.5], [0, 0, 1]])
    return k @ torch.cat([rotation, -(rotation @ centre[..., None])], dim=-1)


def scene(batch=2, views=3, count=5, distance=2.0, seed=0, present=None) -> tuple[Views, Cube]:
    generator = torch.Generator().manual_seed(seed)
    projections = cameras(batch, views, distance, generator)
    opened = open_views(torch.zeros(batch, views, 3, 32, 64), projections, present, 2.0)
    turn = about_vertical(torch.rand(batch, generator=generator) * 6)
    centre = torch.tensor([0.0, 0.0, 1.0]) + 0.2 * torch.randn(batch, 3, generator=generator)
    return opened, Cube(centre, turn, 2.0, count)


def in_double(views: Views, cube: Cube) -> tuple[Views, Cube]:
    exact = Cube(cube.centre.double(), cube.rotation.double(), cube.side, cube.count)
    return replace(views, projections=views.projections.double()), exact


def random_features(batch: int, views: int, channels: int, height: int, width: int, kind: str, seed=1):
    generator = torch.Generator().manual_seed(seed)
    features = 2 * torch.randn(batch, views, channels, height, width, generator=generator)
    return features, torch.rand(batch, views, channels, generator=generator) if kind.startswith("conf") else None


def both_ways(features, weights, views, cube, kind, grad):
    """Volume and gradients of features and weights by the fused kernel, and by torch in double precision."""
    found = []
    for engine, dtype, where in (
        (Kernel.FUSED, torch.float32, (views, cube)),
        (Kernel.TORCH, torch.float64, in_double(views, cube)),
    ):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (features, weights) if t is not None]
        volume = unproject(leaves[0], *where, kind, *leaves[1:], engine=engine)
        volume.backward(grad.to(dtype))
        found.append((volume.detach(), *(leaf.grad for leaf in leaves)))
    return zip(*found, strict=True)


# Derandomised, for where two views are equal up to rounding the largest may be either, and the gradient jumps.
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    kind=st.sampled_from([*KINDS]),
    views=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 16, 33]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    count=st.sampled_from([2, 5, 33]),
    distance=st.sampled_from([0.2, 1.0, 3.0]),
    seed=st.integers(0, 999),
)
def test_the_fused_kernel_is_plain_torch_gradients_included(
    kind, views, channels, height, width, count, distance, seed
):
    present = torch.rand(2, views, generator=torch.Generator().manual_seed(seed)) > 0.3
    opened, cube = scene(2, views, count if channels < 16 else 5, distance, seed, present)
    features, weights = random_features(2, views, channels, height, width, kind, seed)
    # Within decimetres of a camera's plane float32 does not place a voxel to 1e-5 of an image; those have no say.
    depth = (cube.index_projections(image_units(opened.projections.double(), SIZE)))[..., 2, :]
    line = torch.arange(cube.count, dtype=torch.float64)
    index = torch.cartesian_prod(line, line, line, torch.ones(1, dtype=torch.float64))
    clear = ((depth @ index.T).abs() > 0.3).all(dim=1).reshape(2, 1, *[cube.count] * 3)
    grad = torch.randn(2, channels, *[cube.count] * 3, generator=torch.Generator().manual_seed(seed)) * clear
    results = both_ways(features, weights, opened, cube, kind, grad)
    volume, expected = next(results)
    assert ((volume - expected).abs() * clear).max() < 1e-5 * features.abs().max()
    for one, other in results:
        # Where terms cancel (the one weight of `conf_norm`), the rounding of their sum is left: 4.1e-4 with 36,000
        # voxels, whose gradients have a norm of 464.
        assert (one - other).abs().max() < 1e-5 * max(1.0, float(other.abs().max())) + 4e-6 * grad.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_is_not_of_zeros(kind):
    views, cube = scene(distance=2.0)
    features, weights = random_features(2, 3, 4, 7, 9, kind)
    results = list(both_ways(features, weights, views, cube, kind, torch.ones(2, 4, 5, 5, 5)))
    assert len(results) == (3 if weights is not None else 2)
    assert all(float(other.std()) > 0.1 for _, other in results)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_in_a_image_stays_so_in_every_voxel_that_shows_it_and_nowhere_else(kind):
    views, cube = scene()
    features, weights = random_features(2, 3, 4, 7, 9, kind)
    for view in range(3):
        broken = features.clone()
        broken[0, view, 1, 3, 4] = torch.nan
        fused = unproject(broken, views, cube, kind, weights, engine=Kernel.FUSED)
        plain = unproject(broken, views, cube, kind, weights, engine=Kernel.TORCH)
        assert plain.isnan().any()
        assert torch.equal(fused.isnan(), plain.isnan())


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_view_has_no_say_whatever_it_holds(kind):
    present = torch.tensor([[True, False, True], [False, True, True]])
    views, cube = scene(present=present)
    features, weights = random_features(2, 3, 4, 7, 9, kind)
    loud = torch.where(present[:, :, None, None, None], features, torch.full_like(features, torch.nan))
    quiet = unproject(features, views, cube, kind, weights)
    assert torch.equal(unproject(loud, views, cube, kind, weights), quiet)


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_view_the_volume_and_the_gradient_are_0(kind):
    views, cube = scene(present=torch.tensor([[False] * 3, [True] * 3]))
    features, weights = random_features(2, 3, 4, 7, 9, kind)
    volume = unproject(features.requires_grad_(), views, cube, kind, weights)
    volume.sum().backward()
    assert not volume[0].any() and volume[1].any()
    assert not features.grad[0].any() and features.grad[1].any()


@settings(deadline=None, max_examples=20)
@given(size=st.floats(1.0, 1e6), seed=st.integers(0, 99))
def test_softmax_of_large_features_neither_overflows_nor_vanishes(size, seed):
    """The views' values differ by up to 1e7; where they differ by more than 88 the largest alone counts."""
    views, cube = scene(seed=seed)
    features, _ = random_features(2, 3, 2, 7, 9, "softmax", seed)
    volume = unproject(size * features, views, cube, "softmax")
    expected = unproject(size * features.double(), *in_double(views, cube), "softmax")
    assert volume.isfinite().all()
    # Rounding of a position moves a value by 1e-5 of the features' size, and with it the shares of near equals.
    assert ((volume - expected).abs() > 1e-4 * size).double().mean() < 0.01


def test_the_volume_lies_channels_last_in_memory_and_follows_low_precision_features():
    views, cube = scene()
    features, _ = random_features(2, 3, 4, 7, 9, "sum")
    plain = unproject(features.bfloat16().float(), views, cube, "sum")
    half = features.bfloat16().requires_grad_()
    rough = unproject(half, views, cube, "sum")
    rough.sum().backward()
    assert plain.is_contiguous(memory_format=torch.channels_last_3d)
    assert rough.dtype == torch.float32 and torch.equal(rough, plain)
    assert half.grad.dtype == torch.bfloat16


def test_no_gradient_is_lost_cameras_and_cube_that_want_one_go_through_torch():
    views, cube = scene()
    features, _ = random_features(2, 3, 4, 7, 9, "sum")
    assert chosen_engine(features, views, cube) == Kernel.FUSED
    assert chosen_engine(features.double(), views, cube) == Kernel.TORCH
    moving = replace(cube, centre=cube.centre.clone().requires_grad_())
    unproject(features, views, moving, "softmax").square().sum().backward()
    assert moving.centre.grad.abs().min() > 0
    with torch.no_grad():
        assert chosen_engine(features, views, moving) == Kernel.FUSED
    aimed = replace(views, projections=views.projections.clone().requires_grad_())
    unproject(features, aimed, cube, "softmax").square().sum().backward()
    assert aimed.projections.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_has_the_gradient_of_its_differences(kind):
    views, cube = in_double(*scene(1, 2, 2))
    features, weights = random_features(1, 2, 1, 3, 3, kind)
    leaves = [t.double().requires_grad_() for t in (features, weights) if t is not None]
    assert torch.autograd.gradcheck(lambda f, *w: unproject(f, views, cube, kind, *w), leaves)


def test_a_plain_sum_has_no_use_for_weights():
    views, cube = scene()
    features, weights = random_features(2, 3, 4, 7, 9, "conf")
    assert torch.equal(unproject(features, views, cube, "sum", weights), unproject(features, views, cube, "sum"))


def test_threads_change_nothing():
    views, cube = scene(1, 3, 30)
    features, _ = random_features(1, 3, 4, 7, 9, "softmax")
    before = torch.get_num_threads()
    volumes = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            volumes.append(unproject(features, views, cube, "softmax"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*volumes)
