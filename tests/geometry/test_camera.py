import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.rigid import Rigid
from mvpose.geometry.triangulation import triangulate
from tests.geometry.rigs import distorted, h36m, ideal_pixels, people_points, ring

seeds = st.integers(0, 2**31 - 1)


@given(st.integers(2, 6), seeds)
@settings(max_examples=20, deadline=None)
def test_project_undistort_triangulate_is_the_identity(views, seed):
    rig, points = ring(views, distorted(views)), people_points(8, seed)
    pixels, seen = rig.project(points)
    ideal, exists = rig.undistorted(pixels)
    assert seen.all()
    assert exists.all()
    found = triangulate(ideal.transpose(0, 1), rig.projections)
    assert found.valid.all()
    torch.testing.assert_close(found.points, points, atol=1e-8, rtol=0.0)


def test_a_camera_without_a_lens_is_its_projection_matrix():
    rig, points = h36m(), people_points(20)
    torch.testing.assert_close(rig.project(points)[0], ideal_pixels(points, rig.projections).transpose(0, 1))


def test_axes_are_x_right_y_down_z_forward():
    rig = ring(1)
    up, ahead = torch.tensor([0.0, 0.0, 1.9], dtype=torch.float64), torch.tensor([0.0, 0.0, 0.9], dtype=torch.float64)
    pixels, seen = rig.project(torch.stack([ahead, up]))
    assert seen.all()
    torch.testing.assert_close(pixels[0, 0], rig.centre[0])
    assert pixels[0, 1, 1] < rig.centre[0, 1]
    left_of_camera = rig.camera_from_world.inverse().apply(torch.tensor([[[-1.0, 0.0, 3.0]]], dtype=torch.float64))
    assert rig.project(left_of_camera[0, 0])[0][0, 0] < rig.centre[0, 0]


def test_a_point_behind_a_camera_is_not_seen_and_its_pixel_is_finite():
    rig = ring(3)
    behind = rig.centres_world[0] + (rig.centres_world[0] - torch.tensor([0.0, 0.0, 0.9]))
    pixels, seen = rig.project(behind)
    assert not seen[0]
    assert pixels.isfinite().all()


def test_a_point_beyond_the_fold_of_the_lens_is_not_seen():
    from mvpose.geometry.lens import Lens, LensModel

    rig = ring(1, Lens.of(LensModel.BROWN_CONRADY, [[-0.5]]))
    aside = rig.camera_from_world.inverse().apply(torch.tensor([[[3.0, 0.0, 3.0]]], dtype=torch.float64))
    assert not rig.project(aside[0, 0])[1].any()


def test_rays_pass_through_the_points_they_came_from():
    rig, points = ring(4, distorted(4)), people_points(10)
    directions, exists = rig.rays(rig.project(points)[0])
    assert exists.all()
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(4, 10, dtype=torch.float64))
    offset = points - rig.centres_world[:, None]
    assert torch.linalg.cross(offset, directions).norm(dim=-1).max() < 1e-9
    assert ((offset * directions).sum(dim=-1) > 0).all()


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_moving_the_world_with_the_cameras_changes_no_pixel(seed):
    generator = torch.Generator().manual_seed(seed)
    vector, shift = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    world_from_new = Rigid.from_rotation_vector(vector, 100 * shift)
    rig, points = ring(3, distorted(3)), people_points(6, seed)
    new_points = world_from_new.inverse().apply(points)
    torch.testing.assert_close(rig.moved(world_from_new).project(new_points)[0], rig.project(points)[0])


def test_cropping_and_resizing_move_pixels_as_the_pixel_centres_move():
    rig, points = ring(2, distorted(2)), people_points(6)
    pixels, _ = rig.project(points)
    origin = torch.tensor([[10.5, 20.0], [0.0, -3.25]], dtype=torch.float64)
    scale = torch.tensor([[0.5, 0.25], [2.0, 2.0]], dtype=torch.float64)
    size = torch.tensor([[100, 100], [200, 200]])
    cropped = rig.cropped(origin, size)
    torch.testing.assert_close(cropped.project(points)[0], pixels - origin[:, None])
    resized = rig.resized(scale, size)
    torch.testing.assert_close(resized.project(points)[0], (pixels + 0.5) * scale[:, None] - 0.5)
    # The corners of the image's area, half a pixel outside its pixel centres, map onto each other.
    corner = torch.tensor([[[-0.5, -0.5]], [[-0.5, -0.5]]], dtype=torch.float64)
    torch.testing.assert_close((corner + 0.5) * scale[:, None] - 0.5, corner)
    torch.testing.assert_close(cropped.cropped(-origin, rig.size).centre, rig.centre)


def test_inside_counts_the_half_pixel_at_the_border():
    rig = ring(1)
    pixels = torch.tensor([[[-0.5, 0.0], [-0.51, 0.0], [999.5, 999.5], [999.6, 5.0]]], dtype=torch.float64)
    assert rig.inside(pixels).tolist() == [[True, False, True, False]]


def test_selected_cameras_keep_their_order_and_unknown_names_are_an_error():
    rig, points = ring(4, distorted(4)), people_points(5)
    some = rig.select(("camera2", "camera0"))
    torch.testing.assert_close(some.project(points)[0], rig.project(points)[0][[2, 0]])
    with pytest.raises(KeyError):
        rig.select(("camera9",))


def test_points_of_any_shape_project_as_a_flat_list_does():
    rig, points = ring(3, distorted(3)), people_points(12)
    pixels, seen = rig.project(points.reshape(2, 3, 2, 3))
    torch.testing.assert_close(pixels.reshape(3, 12, 2), rig.project(points)[0])
    assert seen.shape == (3, 2, 3, 2)
    torch.testing.assert_close(rig.undistorted(pixels)[0].reshape(3, 12, 2), rig.undistorted(pixels.flatten(1, 3))[0])


def test_the_pixels_of_a_missing_point_are_missing():
    """Fails if a missing joint is drawn, or judged, in the middle of the image."""
    rig = h36m(distorted(4))
    points = torch.tensor([[0.0, 0.0, 1.0], [torch.nan, torch.nan, torch.nan]], dtype=torch.float64)
    pixels, seen = rig.project(points)
    assert pixels[:, 0].isfinite().all() and pixels[:, 1].isnan().all()
    assert seen[:, 0].all() and not seen[:, 1].any()


def test_projection_is_differentiable_and_what_is_not_seen_sends_no_nan():
    rig = ring(2, distorted(2))
    behind = 2.0 * rig.centres_world[:1]
    points = torch.cat([people_points(2), behind]).requires_grad_()
    pixels, seen = rig.project(points)
    assert not seen.all()
    pixels.sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    assert torch.autograd.gradcheck(lambda p: rig.project(p)[0], people_points(3).requires_grad_())


def test_another_dtype_is_the_same_rig():
    rig, points = ring(2, distorted(2)), people_points(5)
    single = rig.to(torch.float32)
    assert single.projections.dtype == torch.float32
    assert (single.project(points.float())[0].double() - rig.project(points)[0]).abs().max() < 1e-2
