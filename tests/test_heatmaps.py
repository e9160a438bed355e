import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose import heatmaps

coordinate = st.floats(10.0, 21.0)


@settings(deadline=None, max_examples=30)
@given(x=coordinate, y=coordinate, sigma=st.floats(1.0, 2.5))
def test_the_centre_of_mass_of_a_gaussian_is_its_centre(x, y, sigma):
    point = torch.tensor([x, y], dtype=torch.float64)
    target = heatmaps.gaussian_targets(point, (32, 36), sigma)
    assert target.shape == (36, 32)
    assert torch.allclose(heatmaps.centre_of_mass(target), point, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(x=coordinate, y=coordinate, sharpness=st.floats(1.0, 100.0))
def test_soft_argmax_of_a_log_gaussian_is_its_centre(x, y, sharpness):
    point = torch.tensor([x, y], dtype=torch.float64)
    log_target = torch.log(heatmaps.gaussian_targets(point, (32, 32), 1.5) + 1e-300) / sharpness
    assert torch.allclose(heatmaps.soft_argmax(log_target, sharpness), point, atol=1e-4)


@pytest.mark.parametrize(("sharpness", "bound_px"), [(15.0, 0.1), (100.0, 0.71)])
def test_soft_argmax_of_a_target_is_sub_pixel_when_soft_and_snaps_to_pixels_when_sharp(sharpness, bound_px):
    torch.manual_seed(0)
    points = 8 + 48 * torch.rand(50, 2)
    found = heatmaps.soft_argmax(heatmaps.gaussian_targets(points, (64, 64), 2.0), sharpness)
    assert (found - points).norm(dim=-1).max() < bound_px


def test_argmax_is_the_nearest_pixel_of_a_gaussian():
    points = torch.tensor([[3.3, 7.6], [0.2, 15.4]])
    found = heatmaps.argmax(heatmaps.gaussian_targets(points, (12, 16), 2.0))
    assert torch.equal(found, torch.tensor([[3.0, 8.0], [0.0, 15.0]]))


def test_an_unknown_point_has_an_empty_target_and_no_nan():
    target = heatmaps.gaussian_targets(torch.tensor([[float("nan"), 3.0], [2.0, 2.0]]), (8, 8), 1.0)
    assert target[0].abs().max() == 0
    assert target[1, 2, 2] == 1


def test_an_empty_map_has_its_centre_of_mass_in_the_middle():
    assert torch.allclose(heatmaps.centre_of_mass(torch.full((5, 9), -1.0)), torch.tensor([4.0, 2.0]))


def test_soft_argmax_does_not_depend_on_a_constant_added_to_the_map():
    maps = torch.randn(4, 6, 7, dtype=torch.float64)
    assert torch.allclose(heatmaps.soft_argmax(maps, 5.0), heatmaps.soft_argmax(maps + 300.0, 5.0))


def test_the_mean_of_a_volume_keeps_the_order_of_its_axes():
    volume = torch.zeros(2, 5, 6, 7)
    volume[0, 1, 2, 3] = 1.0
    volume[1, 4, 5, 0] = 1.0
    assert torch.equal(heatmaps.soft_argmax_3d(volume), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]))
    assert torch.allclose(heatmaps.concentration_3d(volume, heatmaps.soft_argmax_3d(volume), 1.0), torch.ones(2))


def test_concentration_tells_one_peak_from_two_and_from_none():
    one = heatmaps.masses(heatmaps.gaussian_targets(torch.tensor([16.0, 16.0]), (32, 32), 0.5))
    far = heatmaps.masses(heatmaps.gaussian_targets(torch.tensor([4.0, 16.0]), (32, 32), 0.5))
    two, flat = (one + far) / 2, torch.full((32, 32), 1 / 1024)
    sharp, split, none = (heatmaps.concentration(m, heatmaps.expectation(m), 2.0) for m in (one, two, flat))
    assert sharp > 0.9
    assert split < 0.2
    assert none < 0.05


def test_gradients_of_soft_argmax_are_right():
    maps = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: heatmaps.soft_argmax(m, 3.0), (maps,))


@pytest.mark.parametrize("new", [(16, 16), (256, 128), (64, 64)])
def test_resizing_points_keeps_the_corners_of_the_image(new):
    corners = torch.tensor([[-0.5, -0.5], [63.5, 63.5]])
    expected = torch.tensor([[-0.5, -0.5], [new[0] - 0.5, new[1] - 0.5]])
    assert torch.allclose(heatmaps.resized_points(corners, (64, 64), new), expected)


def test_bfloat16_maps_do_not_round_the_coordinates():
    points = torch.tensor([[50.3, 41.7]])
    maps = heatmaps.gaussian_targets(points, (64, 64), 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = heatmaps.centre_of_mass(maps.bfloat16())
    assert (found - points).abs().max() < 0.02
