import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.heatmaps import gaussian_targets
from mvpose.models.single_view.heads import (
    DepthHead,
    IntegralHead,
    RayDecoder,
    RegressionHead,
    ReshapeDecoder,
    back_project,
    depth_at,
    frustum,
    integral_2d,
    integral_3d,
)

K = torch.tensor([[300.0, 0.0, 60.0], [0.0, 310.0, 66.0], [0.0, 0.0, 1.0]])


def _blobs(count, seed=0):
    """Features of four channels, one blob each, and where the blobs are, in normalised coordinates."""
    points = torch.rand(count, 4, 2, generator=torch.Generator().manual_seed(seed)) * 0.7 - 0.35
    return gaussian_targets((points + 0.5) * 4 - 0.5, (4, 4), 0.7), points


def _error_after_training(module, predict, truth, steps=30):
    torch.manual_seed(0)
    first = (predict() - truth).abs().mean().item()
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (predict() - truth).abs().mean()
        loss.backward()
        optimiser.step()
    return loss.item() / first


def test_regression_learns_a_mean_over_the_image():
    torch.manual_seed(0)
    features = torch.randn(16, 6, 4, 4)
    head = RegressionHead(6, 2)
    truth = (features.mean(dim=(-2, -1)) @ torch.randn(6, 6)).reshape(16, 2, 3)
    assert _error_after_training(head, lambda: head(features)[0], truth, 300) < 0.05


@settings(deadline=None, max_examples=20)
@given(x=st.floats(-0.2, 0.2), y=st.floats(-0.2, 0.2))
def test_the_integral_of_a_map_is_the_same_at_every_resolution(x, y):
    point = torch.tensor([x, y], dtype=torch.float64)
    for width, height, sigma in ((48, 32, 2.0), (96, 64, 4.0)):
        pixel = (point + 0.5) * torch.tensor([width, height]) - 0.5
        raw = torch.log(gaussian_targets(pixel, (width, height), sigma) + 1e-30)
        assert torch.allclose(integral_2d(raw), point, atol=1e-3)


def test_a_volume_s_integral_is_x_y_z_and_its_plane_the_sum_over_depth():
    points = torch.tensor([[0.1, -0.2, 0.25], [-0.15, 0.05, -0.3]], dtype=torch.float64)
    pixel = (points + 0.5) * torch.tensor([20.0, 24.0, 28.0]) - 0.5
    plane = gaussian_targets(pixel[:, :2], (20, 24), 1.2)
    line = gaussian_targets(torch.stack([pixel[:, 2], torch.zeros(2)], dim=-1), (28, 1), 1.2)[:, 0]
    mean, probability = integral_3d((line[:, :, None, None] * plane[:, None] + 1e-30).log())
    assert torch.allclose(mean, points, atol=2e-3)
    assert torch.allclose(probability, plane / plane.sum(dim=(-2, -1), keepdim=True), atol=1e-6)


def test_the_integral_head_puts_joints_where_blobs_are():
    features, points = _blobs(6)
    depth = features.amax(dim=(-2, -1))[:, :2] - 0.9
    truth = torch.cat([points[:, :2], depth[..., None]], dim=-1)
    head = IntegralHead(4, 2, depth=4, width=8)
    assert head(features)[1].shape == (6, 2, 32, 32)
    assert _error_after_training(head, lambda: head(features)[0], truth) < 0.5


def test_depth_is_read_where_the_joint_is():
    depth = torch.arange(12.0).reshape(1, 3, 4)
    probability = torch.zeros(1, 3, 4)
    probability[0, 1, 2], probability[0, 2, 3] = 0.25, 0.75
    assert depth_at(probability, depth).item() == 0.25 * 6 + 0.75 * 11


def test_the_2_5d_head_learns_place_and_depth_together():
    features, points = _blobs(6, seed=1)
    depth = points[:, :2, 0] * 2.0
    head = DepthHead(4, 2, width=8)

    truth = torch.cat([points[:, :2], depth[..., None]], dim=-1)
    assert _error_after_training(head, lambda: head(features)[0], truth) < 0.5


def test_back_projection_undoes_projection():
    points = torch.rand(2, 5, 3, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 2.0])
    k = torch.stack([K, 2 * K]).double()
    k[1, 2, 2] = 1.0
    image = points @ k.transpose(-1, -2)
    assert torch.allclose(back_project(image[..., :2] / image[..., 2:], image[..., 2], k), points)


def test_each_voxel_of_the_frustum_lies_behind_its_pixel():
    depths = torch.tensor([[2.0, 2.5, 4.0]])
    places = frustum(K[None], (128, 64), (16, 8), depths)
    assert places.shape == (1, 3, 8, 16, 3)
    assert torch.allclose(places[0, :, 3, 5, 2], depths[0])
    image = places[0, 1, 3, 5] @ K.T
    # Pixel 5 of 16 in the map is (5 + 0.5) 8 - 0.5 = 43.5 of 128; row 3 of 8 is 27.5 of 64.
    assert torch.allclose(image[:2] / image[2], torch.tensor([43.5, 27.5]))


def test_a_reshaped_volume_learns_where_blobs_are():
    features, points = _blobs(8)
    truth = torch.cat([points[:, :2], points[:, 2:, :1]], dim=-1)
    decoder = ReshapeDecoder(4, 2, depth=4, width=6)
    assert _error_after_training(decoder, lambda: decoder(features)[0], truth) < 0.5


def test_a_volume_along_the_rays_learns_metres():
    features, points = _blobs(8)
    depth = 3.0 + points[:, 2:, 0]
    pixels = (points[:, :2] + 0.5) * 128 - 0.5
    k = K.expand(8, 3, 3)
    truth = back_project(pixels, depth, k)
    decoder = RayDecoder(4, 2, depth=4, width=6)
    root = torch.full((8,), 3.0)
    assert _error_after_training(decoder, lambda: decoder(features, k, (128, 128), root)[0], truth) < 0.5


def test_rays_tell_a_wide_lens_from_a_long_one():
    features, _ = _blobs(2)
    decoder = RayDecoder(4, 2, depth=4, width=6).eval()
    for parameter in list(decoder.decode.parameters())[-2:]:
        parameter.data.zero_()
    root = torch.full((2,), 3.0)
    k = torch.stack([K, K])
    k[1, 0, 0] *= 2
    out = decoder(features, k, (128, 128), root)[0]
    # A flat volume answers with its middle: the mean ray at the root's depth.
    expected = torch.tensor([(63.5 - 60.0) / 300.0 * 3.0, (63.5 - 66.0) / 310.0 * 3.0, 3.0])
    assert torch.allclose(out[0, 0], expected, atol=1e-4)
    assert torch.allclose(out[1, 1, 0], expected[0] / 2, atol=1e-4)


def test_a_volume_that_would_reach_behind_the_camera_is_refused():
    features, _ = _blobs(1)
    with pytest.raises(ValueError, match=r"a root 0\.80 m away"):
        RayDecoder(4, 2)(features, K[None], (128, 128), torch.tensor([0.8]))
