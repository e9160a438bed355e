import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.models.fusion.canonical_frame import canonical_frame
from mvpose.models.fusion.canonical_fusion import feature_transform, right_inverse


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_layer_is_linear(a, b, seed):
    x, y, matrix = features(2, 6, 3, 4, seed=seed), features(2, 6, 3, 4, seed=seed + 1), features(2, 4, 3, seed=seed)
    whole = feature_transform(a * x + b * y, matrix)
    parts = a * feature_transform(x, matrix) + b * feature_transform(y, matrix)
    assert torch.allclose(whole, parts, atol=1e-9)


def test_channels_are_points_of_consecutive_numbers_and_every_pixel_sees_the_same_matrix():
    x, matrix = features(2, 6, 2, 2), features(2, 4, 3)
    out = feature_transform(x, matrix)
    assert out.shape == (2, 8, 2, 2)
    for b in range(2):
        for group in range(2):
            for row in range(2):
                for column in range(2):
                    point = x[b, 3 * group : 3 * group + 3, row, column]
                    assert torch.allclose(out[b, 4 * group : 4 * group + 4, row, column], matrix[b] @ point)


def test_a_batch_equals_its_samples():
    x, matrix = features(3, 2, 6, 2, 2), features(3, 2, 4, 3)
    loop = torch.stack([torch.stack([feature_transform(x[i, j], matrix[i, j]) for j in range(2)]) for i in range(3)])
    assert torch.allclose(feature_transform(x, matrix), loop)


def test_two_transforms_are_one_by_the_product():
    x, first, second = features(2, 6, 2, 2), features(2, 4, 3), features(2, 3, 4, seed=1)
    assert torch.allclose(
        feature_transform(feature_transform(x, first), second), feature_transform(x, second @ first), atol=1e-9
    )


def test_channels_that_do_not_divide_into_points_are_refused():
    with pytest.raises(ValueError, match="7 channels"):
        feature_transform(features(1, 7, 2, 2), features(1, 4, 3))


@settings(deadline=None, max_examples=25)
@given(turn=st.floats(0, 6), radius=st.floats(2, 12), height=st.floats(0.2, 5))
def test_a_view_gets_back_what_it_gave(ring_cameras, turn, radius, height):
    cameras = ring_cameras(turn, radius, height)
    given_features = features(3, 6, 2, 2).float()
    there = feature_transform(given_features, right_inverse(cameras))
    assert torch.allclose(feature_transform(there, cameras), given_features, atol=1e-4)


def test_a_canonical_point_comes_back_on_the_same_ray(ring_cameras):
    """P^+ P x differs from x only along the null space of P, the camera's centre: the image of x is kept."""
    camera = ring_cameras(0.3, 4.0, 2.0)[0].double()
    point = features(4, 1, 1)
    back = feature_transform(feature_transform(point, camera), right_inverse(camera))
    moved = (back - point)[:, 0, 0]
    centre = torch.linalg.svd(camera).Vh[-1]
    assert moved.norm() > 1e-3
    assert torch.allclose(moved / moved.norm(), centre * torch.sign(centre @ moved), atol=1e-6)


def test_matrices_of_the_canonical_frame_are_well_scaled(ring_cameras):
    cameras = ring_cameras(0.3, 4.0, 2.0)
    assert cameras.abs().max() < 3
    assert right_inverse(cameras).abs().max() < 3
    singular = torch.linalg.svdvals(cameras)
    assert (singular[:, 0] / singular[:, -1]).max() < 2


@pytest.fixture(scope="module")
def ring_cameras(ring):
    def cameras(turn: float, radius: float, height: float) -> torch.Tensor:
        raw = ring(3, radius=radius, height=height, turn=turn)[None]
        return canonical_frame(raw, torch.ones(1, 3, dtype=torch.bool), (128, 128), 2.0).projections[0]

    return cameras
