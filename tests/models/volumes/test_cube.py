import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from mvpose.models.fusion.canonical_frame import image_units
from mvpose.models.volumes.cube import Cube, Volume, about_vertical

SIZE = (128, 128)


def cube(count: int = 5, angle: float = 0.4) -> Cube:
    turn = about_vertical(torch.tensor([angle, 2 * angle], dtype=torch.float64))
    return Cube(torch.tensor([[0.1, 0.2, 1.0], [0.0, -0.3, 0.8]], dtype=torch.float64), turn, 2.0, count)


@settings(deadline=None, max_examples=25)
@given(angle=st.floats(0, 6), seed=st.integers(0, 99))
def test_index_and_world_undo_each_other(angle, seed):
    points = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.allclose(cube(angle=angle).world_of(cube(angle=angle).index_of(points)), points)


def test_the_outer_voxels_lie_on_the_faces():
    corners = cube(angle=0.0).world_of(torch.tensor([[[0.0, 0, 0], [4, 4, 4]]] * 2, dtype=torch.float64))
    assert torch.allclose(corners[0], torch.tensor([[-0.9, -0.8, 0.0], [1.1, 1.2, 2.0]], dtype=torch.float64))


def test_rotations_are_about_the_vertical():
    turned = about_vertical(torch.tensor([math.pi / 2])) @ torch.tensor([1.0, 0.0, 5.0])
    assert torch.allclose(turned, torch.tensor([[0.0, 1.0, 5.0]]), atol=1e-6)


def test_every_voxel_is_projected_as_its_world_point(ring):
    raw = ring(3)[None].expand(2, -1, -1, -1).double()
    index = torch.cartesian_prod(*[torch.arange(5, dtype=torch.float64)] * 3)
    world = cube().world_of(index.expand(2, -1, -1))
    homogeneous = torch.cat([world, torch.ones_like(world[..., :1])], dim=-1)
    x = torch.einsum("bvij,bnj->bvni", raw, homogeneous)
    expected = (x[..., :2] / x[..., 2:] + 0.5) * 2 / 128 - 1
    points, front = cube().image_points(image_units(raw, SIZE))
    assert front.all()
    assert torch.allclose(points, expected, atol=1e-9)


def test_voxels_behind_a_camera_are_reported(ring):
    raw = ring(1, radius=0.4, height=1.0)[None].expand(2, -1, -1, -1).double()
    points, front = cube().image_points(image_units(raw, SIZE))
    assert front.any()
    assert not front.all()
    assert points.isfinite().all()
    assert (points[~front] == 2.0).all()


def test_the_probability_at_a_point_is_that_of_its_nearest_voxel():
    log_probability = torch.log_softmax(torch.randn(2, 1, 125, dtype=torch.float64), dim=-1).unflatten(-1, (5, 5, 5))
    volume = Volume(log_probability, cube())
    index = torch.tensor([[[1.0, 2, 3]], [[4, 0, 2]]], dtype=torch.float64)
    near = cube().world_of(index + 0.3)
    value, inside = volume.at(near)
    assert inside.all()
    assert torch.equal(value[:, 0], torch.stack([log_probability[0, 0, 1, 2, 3], log_probability[1, 0, 4, 0, 2]]))
    _, outside = volume.at(cube().world_of(torch.full((2, 1, 3), 4.6, dtype=torch.float64)))
    assert not outside.any()


def test_between_voxels_it_is_interpolated_and_beyond_the_outer_ones_half_a_voxel_counts():
    log_probability = torch.log_softmax(torch.randn(2, 1, 125, dtype=torch.float64), dim=-1).unflatten(-1, (5, 5, 5))
    volume = Volume(log_probability, cube())
    index = torch.tensor([[[1.25, 2.5, 3.0]], [[4.0, 0.0, 3.7]]], dtype=torch.float64)
    value, inside = volume.at(cube().world_of(index), trilinear=True)
    assert inside.all()
    for sample in range(2):
        between = RegularGridInterpolator([np.arange(5)] * 3, log_probability[sample, 0].numpy())
        assert value[sample, 0].item() == pytest.approx(between(index[sample].numpy()).item(), abs=1e-9)
    beyond = torch.tensor([[[4.4, 1, 1]], [[-0.6, 1, 1]]], dtype=torch.float64)
    value, inside = volume.at(cube().world_of(beyond), trilinear=True)
    assert inside.flatten().tolist() == [True, False]
    assert value[0, 0] == pytest.approx(log_probability[0, 0, 4, 1, 1].item())


def test_projections_of_indices_place_voxels_where_image_points_does(ring):
    raw = image_units(ring(3)[None].expand(2, -1, -1, -1).double(), SIZE)
    axis = torch.arange(5, dtype=torch.float64)
    index = torch.cartesian_prod(axis, axis, axis, torch.ones(1, dtype=torch.float64))
    x = torch.einsum("bvij,nj->bvni", cube().index_projections(raw), index)
    points, front = cube().image_points(raw)
    assert front.all()
    assert torch.allclose(x[..., :2] / x[..., 2:], points, atol=1e-12)
