import pytest
import torch

from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.multiview import Decoding, open_views, read_heatmaps, triangulated

EXACT = Decoding(sharpness=15.0)


def drawn(samples, size=(32, 32)):
    """Heatmap targets of the samples' joints at a quarter of their crops."""
    return gaussian_targets(resized_points(samples.joints_2d, (128, 128), size), size, 2.0)


def test_heatmaps_of_the_joints_give_back_the_joints(blobs):
    samples = blobs()
    views = open_views(samples.crops, samples.projections, None, 2.0)
    found = triangulated(drawn(samples), views, EXACT)
    assert found.valid.all()
    assert (found.joints - samples.joints).norm(dim=-1).max() < 0.003
    assert (found.joints_2d - samples.joints_2d).norm(dim=-1).max() < 0.3
    assert found.confidence.min() > 0.5


def test_points_do_not_depend_on_the_maps_resolution(blobs):
    samples = blobs()
    for size in ((32, 32), (64, 32), (128, 128)):
        maps = drawn(samples, size)
        points, _ = read_heatmaps(maps, (128, 128), Decoding(kind="centre_of_mass"))
        assert (points - samples.joints_2d).norm(dim=-1).max() < 0.2


def test_uint8_crops_are_the_same_crops(blobs):
    crops = (blobs().crops * 255).round()
    views = [open_views(c, blobs().projections, None, 2.0).images for c in (crops.to(torch.uint8), crops / 255)]
    assert torch.allclose(*views, atol=1e-6)


@pytest.mark.parametrize("kind", ["soft_argmax", "centre_of_mass", "argmax"])
def test_views_that_are_not_finite_count_as_absent_and_nothing_is_nan(blobs, kind):
    samples = blobs(batch=3)
    samples.crops[0, 1, 0, 5, 5] = float("nan")
    samples.projections[1, 2, 0, 0] = float("inf")
    samples.crops[2, :3] = float("nan")
    views = open_views(samples.crops, samples.projections, None, 2.0)
    assert views.present.tolist() == [[True, False, True, True], [True, True, False, True], [False] * 3 + [True]]
    assert views.images.isfinite().all()
    found = triangulated(drawn(samples), views, Decoding(kind=kind, sharpness=15.0))
    assert found.valid.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    for answer in (found.joints, found.confidence, found.joints_2d, found.confidence_2d):
        assert answer.isfinite().all()
    assert not found.joints[2].any()
    assert not found.confidence[2].any()
    assert not found.views_used[2].any()
    assert not found.views_used[0, 1].any()


def test_one_view_determines_nothing(blobs):
    samples = blobs(views=1)
    found = triangulated(drawn(samples), open_views(samples.crops, samples.projections, None, 2.0), EXACT)
    assert not found.valid.any()
    assert not found.joints.any()
    assert found.confidence_2d.min() > 0.5


def test_a_camera_with_its_back_to_the_person_leaves_no_joint(blobs):
    """Turned half round, a camera's rays are the same lines, but the person lies behind it."""
    samples = blobs()
    k = torch.tensor([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1]])
    about_face = k @ torch.diag(torch.tensor([-1.0, 1, -1])) @ torch.linalg.inv(k)
    samples.projections[0, 0] = about_face @ samples.projections[0, 0]
    views = open_views(samples.crops, samples.projections, None, 2.0)
    homogeneous = torch.cat([samples.joints, torch.ones(2, 3, 1)], dim=-1)
    x = torch.einsum("bvij,bnj->bvni", samples.projections, homogeneous)
    behind = resized_points(x[..., :2] / x[..., 2:], (128, 128), (32, 32))
    found = triangulated(gaussian_targets(behind, (32, 32), 2.0), views, EXACT)
    assert found.valid.tolist() == [[False] * 3, [True] * 3]
    assert not found.joints[0].any()
    assert not found.confidence[0].any()


def test_gradients_are_finite_where_samples_have_too_few_views(blobs):
    samples = blobs(batch=2)
    present = torch.tensor([[True] * 4, [True] + [False] * 3])
    maps = drawn(samples).requires_grad_()
    views = open_views(samples.crops, samples.projections, present, 2.0)
    triangulated(maps, views, EXACT).joints.square().sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert maps.grad[0].abs().max() > 0
    assert not maps.grad[1].any()


@pytest.mark.usefixtures("unchecked")
def test_inputs_that_contradict_each_other_are_distinguished(blobs):
    samples = blobs()
    crops, projections = samples.crops, samples.projections
    with pytest.raises(ValueError, match="projections"):
        open_views(crops, projections[:, :3], None, 2.0)
    with pytest.raises(ValueError, match="view mask"):
        open_views(crops, projections, torch.ones(2, 3, dtype=torch.bool), 2.0)
    with pytest.raises(ValueError, match="multiples of 32"):
        open_views(crops[..., :100], projections, None, 2.0)
    with pytest.raises(ValueError, match=r"\(B, V, 3, H, W\)"):
        open_views(crops[:, 0], projections, None, 2.0)
