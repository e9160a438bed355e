import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.epipolar import (
    epipolar_distances,
    essential_candidates,
    essential_from_fundamental,
    fundamental_by_consensus,
    fundamental_by_eight_points,
    fundamental_of,
    relative_pose,
    sampson_errors,
)
from mvpose.geometry.rigid import Rigid, cross_matrix
from tests.geometry.rigs import h36m, ideal_pixels, noisy, people_points

LEFT, RIGHT = 0, 1


def _views(num: int, seed: int = 0, sigma: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = ideal_pixels(people_points(num, seed), h36m().projections[[LEFT, RIGHT]])
    return noisy(pixels, sigma).unbind(dim=1)


def _truth() -> tuple[torch.Tensor, Rigid]:
    """F from the projections, and the pose of the right camera relative to the left one, baseline 1."""
    pose = h36m().camera_from_world
    right_from_world = Rigid(pose.rotation[RIGHT], pose.translation[RIGHT])
    relative = right_from_world @ Rigid(pose.rotation[LEFT], pose.translation[LEFT]).inverse()
    unit = Rigid(relative.rotation, relative.translation / relative.translation.norm())
    return fundamental_of(h36m().projections[LEFT], h36m().projections[RIGHT]), unit


def _same_up_to_scale(one: torch.Tensor, other: torch.Tensor, atol: float) -> None:
    one, other = one / one.norm(), other / other.norm()
    torch.testing.assert_close(one * torch.sign((one * other).sum()), other, atol=atol, rtol=0.0)


def test_true_correspondences_agree_with_the_fundamental_matrix_of_the_cameras():
    left, right = _views(50)
    assert epipolar_distances(left, right, _truth()[0]).max() < 1e-8
    assert epipolar_distances(left, right.flip(0), _truth()[0]).median() > 5.0


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_eight_exact_points_and_more_give_the_fundamental_matrix(seed):
    left, right = _views(9, seed)
    f = fundamental_by_eight_points(left, right)
    new_left, new_right = _views(20, seed + 1)
    assert torch.linalg.svdvals(f)[2] < 1e-12
    # How well nine points determine F depends on where they lie; they always agree with it themselves.
    assert sampson_errors(left, right, f).max() < 1e-3
    assert sampson_errors(new_left, new_right, fundamental_by_eight_points(*_views(60, seed))).max() < 1e-5


def test_absent_correspondences_do_not_count_and_batches_are_loops():
    left, right = _views(40, sigma=1.0)
    weights = (torch.arange(40) % 3 > 0).double()
    hidden = torch.where(weights[:, None] > 0, left, torch.nan)
    few = fundamental_by_eight_points(left[weights > 0], right[weights > 0])
    _same_up_to_scale(fundamental_by_eight_points(hidden, right, weights), few, 1e-7)
    batch = fundamental_by_eight_points(left.reshape(2, 20, 2), right.reshape(2, 20, 2))
    _same_up_to_scale(batch[1], fundamental_by_eight_points(left[20:], right[20:]), 1e-9)


def test_distances_are_those_of_opencv_s_epipolar_lines():
    left, right = _views(10, sigma=20.0)
    f = _truth()[0]
    lines = cv2.computeCorrespondEpilines(left.numpy()[:, None], 1, f.numpy())[:, 0]
    back = cv2.computeCorrespondEpilines(right.numpy()[:, None], 2, f.numpy())[:, 0]
    ones = np.ones((10, 1))
    in_right = np.abs((np.concatenate([right.numpy(), ones], axis=1) * lines).sum(axis=1))
    in_left = np.abs((np.concatenate([left.numpy(), ones], axis=1) * back).sum(axis=1))
    np.testing.assert_allclose(epipolar_distances(left, right, f), (in_right + in_left) / 2, rtol=1e-6)


def test_sampson_s_error_is_how_far_the_pixels_must_move():
    left, right = _views(200, sigma=1.0)
    from mvpose.geometry.polynomial import corrected_pixels

    a, b = corrected_pixels(left, right, _truth()[0])
    moved = ((a - left).square().sum(dim=-1) + (b - right).square().sum(dim=-1)).sqrt()
    torch.testing.assert_close(sampson_errors(left, right, _truth()[0]), moved, atol=1e-3, rtol=1e-2)


def test_consensus_finds_the_matrix_and_the_wrong_correspondences():
    left, right = _views(300, sigma=0.5)
    wrong = torch.arange(300) % 4 == 0
    right = right + 100.0 * wrong[:, None] * torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    fit = fundamental_by_consensus(left, right)
    assert fit.inliers[~wrong].double().mean() > 0.95
    assert fit.inliers[wrong].double().mean() < 0.1
    clean_left, clean_right = _views(100, seed=9)
    assert sampson_errors(clean_left, clean_right, fit.fundamental).median() < 1.0
    again = fundamental_by_consensus(left, right)
    assert torch.equal(fit.fundamental, again.fundamental)


def test_too_few_correspondences_for_a_consensus_are_an_error():
    with pytest.raises(ValueError, match=r"\(7, 2\)"):
        fundamental_by_consensus(*_views(7))


def test_the_essential_matrix_has_the_pose_in_it_and_cheirality_picks_it():
    rig = h36m()
    f, truth = _truth()
    essential = essential_from_fundamental(f, rig.intrinsics[LEFT], rig.intrinsics[RIGHT])
    _same_up_to_scale(essential, cross_matrix(truth.translation) @ truth.rotation, 1e-8)
    torch.testing.assert_close(
        torch.linalg.svdvals(essential), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0.0
    )
    candidates = essential_candidates(essential)
    torch.testing.assert_close(torch.linalg.det(candidates.rotation), torch.ones(4, dtype=torch.float64))
    plane = [(pixels - rig.centre[i]) / rig.focal[i] for i, pixels in zip((LEFT, RIGHT), _views(30), strict=True)]
    found = relative_pose(essential, plane[0], plane[1])
    torch.testing.assert_close(found.right_from_left.rotation, truth.rotation, atol=1e-8, rtol=0.0)
    torch.testing.assert_close(found.right_from_left.translation, truth.translation, atol=1e-8, rtol=0.0)
    assert found.in_front.all()


def test_a_sign_turned_essential_matrix_gives_the_same_pose():
    rig = h36m()
    essential = essential_from_fundamental(_truth()[0], rig.intrinsics[LEFT], rig.intrinsics[RIGHT])
    plane = [(pixels - rig.centre[i]) / rig.focal[i] for i, pixels in zip((LEFT, RIGHT), _views(30), strict=True)]
    one, other = (relative_pose(e, plane[0], plane[1]).right_from_left for e in (essential, -essential))
    torch.testing.assert_close(one.matrix(), other.matrix(), atol=1e-9, rtol=0.0)
