import pytest
import torch

from mvpose.geometry import DltMethod
from mvpose.heatmaps import argmax, gaussian_targets
from mvpose.losses import heatmap_mse
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.cross_view_fusion import (
    CrossViewFusion,
    DenseFusion,
    EpipolarFusion,
    RaySampling,
    epipolar_fusion,
)
from mvpose.models.multiview import Decoding, open_views
from mvpose.models.network_settings import CrossViewConfig
from mvpose.models.objective import MultiViewTruth, ObjectiveConfig, objective
from mvpose.models.volumes.heatmap_cameras import CropCameras
from tests.models.moving_people import people, project, ring

SIZE = 24
JOINTS = [1, 3, 9, 13, 16]
RAYS = RaySampling(steps=24)


OTHER_RIG = ring(7, SIZE, distance=6.0)[[0, 2, 3, 5]]


def _scene(frames, views=4, rig=None, seed=0, hidden=0.25):
    """Maps in which a hidden joint is a dim blob about a wrong place; the truth in pixels; what is hidden."""
    generator = torch.Generator().manual_seed(seed)
    truth = people(frames, seed, bend=0.4)[:, JOINTS]
    rig = ring(views, SIZE) if rig is None else rig
    projections = rig.float().expand(frames, -1, -1, -1)
    pixels = project(projections, truth.float())
    occluded = torch.rand(pixels.shape[:3], generator=generator) < hidden
    wrong = pixels + 3.0 * torch.randn(pixels.shape, generator=generator)
    blobs = 0.5 * gaussian_targets(wrong, (SIZE, SIZE), 1.8)
    maps = torch.where(occluded[..., None, None], blobs, gaussian_targets(pixels, (SIZE, SIZE), 1.2))
    centre = torch.tensor([0.0, 0.0, 0.95]).expand(frames, 3)
    return maps, CropCameras(projections), centre, pixels, occluded


def _found(maps, pixels, which):
    return ((argmax(maps) - pixels).norm(dim=-1) <= 1.5)[which].float().mean().item()


def _trained(module, fuse, steps, learning_rate):
    """Fit `fuse(maps, cameras, centre)` to the truth of a fixed set of training frames."""
    maps, cameras, centre, pixels, _ = _scene(48, seed=50)
    targets = gaussian_targets(pixels, (SIZE, SIZE), 1.2)
    optimiser = torch.optim.Adam(module.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randperm(48, generator=generator)[:4]
        fused = fuse(maps[some], CropCameras(cameras.projections[some]), centre[some])
        loss = heatmap_mse(fused, targets[some], torch.ones(4, 4, 5))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module


def test_dense_fusion_is_four_tenths_own_and_two_tenths_of_each_other_view_mapped_over():
    torch.manual_seed(0)
    layer = DenseFusion(4, (3, 2))
    maps = torch.randn(2, 4, 5, 2, 3)
    fused = layer(maps)
    for view in range(4):
        expected = 0.4 * maps[:, view]
        for place, other in enumerate([v for v in range(4) if v != view]):
            matrix = layer.weight[view, place * 6 : (place + 1) * 6]
            expected = expected + 0.2 * (maps[:, other].reshape(2, 5, 6) @ matrix).reshape(2, 5, 2, 3)
        assert torch.allclose(fused[:, view], expected, atol=1e-5)


@pytest.mark.parametrize(("side", "count"), [(64, 201_326_592), (80, 491_520_000)])
def test_dense_fusion_has_as_many_parameters_as_the_paper_s(side, count):
    with torch.device("meta"):
        layer = DenseFusion(4, (side, side))
    assert sum(p.numel() for p in layer.parameters()) == count
    assert sum(p.numel() for p in EpipolarFusion().parameters()) < 500


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_along_the_epipolar_line_a_joint_hidden_in_one_view_is_found_again(kind):
    maps, cameras, centre, pixels, _ = _scene(2, hidden=0.0)
    maps[:, 1] = 0
    hidden = torch.zeros(2, 4, 5, dtype=torch.bool)
    hidden[:, 1] = True
    fused = epipolar_fusion(maps, cameras, centre, kind, RAYS)
    assert _found(maps, pixels, hidden) < 0.1
    assert _found(fused, pixels, hidden) == 1.0


def test_the_epipolar_maximum_is_the_highest_value_on_the_line_of_each_other_view():
    maps, cameras, centre, pixels, _ = _scene(1, views=2, hidden=0.0)
    fused = epipolar_fusion(maps, cameras, centre, "max", RaySampling(steps=200))
    x, y = pixels[0, 0, 2].round().long().tolist()
    # The joint lies on the ray of its own pixel but for half a pixel, so the other view sees it nearly at height 1.
    assert abs(fused[0, 0, 2, y, x] - (0.4 * maps[0, 0, 2, y, x] + 0.6)) < 0.1


def test_the_epipolar_sum_of_a_flat_map_is_the_length_of_the_line():
    _, cameras, centre, _, _ = _scene(1, views=2)
    flat = torch.ones(1, 2, 1, SIZE, SIZE)
    short = RaySampling(steps=64, extent_m=0.5)
    middle = SIZE // 2
    fused = epipolar_fusion(flat, cameras, centre, "sum", short)[0, 0, 0, middle, middle]
    origin = -torch.linalg.solve(cameras.projections[0, 0, :, :3], cameras.projections[0, 0, :, 3])
    pixel = torch.tensor([float(middle), float(middle), 1.0])
    along = torch.nn.functional.normalize(torch.linalg.solve(cameras.projections[0, 0, :, :3], pixel), dim=0)
    depth = (centre[0] - origin).norm() + torch.tensor([-0.25, 0.25])
    ends = project(cameras.projections, (origin + depth[:, None] * along)[None])[0, 1]
    assert torch.isclose((fused - 0.4) / 0.6, (ends[1] - ends[0]).norm(), rtol=0.03)


def test_even_untrained_fusion_along_rays_finds_hidden_joints_in_any_rig():
    torch.manual_seed(0)
    layer = EpipolarFusion(RAYS)
    for rig in (ring(4, SIZE), OTHER_RIG, ring(3, SIZE)):
        maps, cameras, centre, pixels, hidden = _scene(16, rig=rig, seed=7)
        with torch.no_grad():
            fused = layer(maps, cameras, centre)
        assert _found(fused, pixels, hidden) > _found(maps, pixels, hidden) + 0.3
        assert _found(fused, pixels, ~hidden) > 0.97


@pytest.mark.slow
def test_trained_fusion_finds_hidden_joints_of_people_it_has_not_seen():
    torch.manual_seed(0)
    dense = DenseFusion(4, (SIZE, SIZE))
    _trained(dense, lambda maps, cameras, centre: dense(maps), 200, 2e-3)
    sparse = EpipolarFusion(RAYS)
    _trained(sparse, sparse, 200, 4e-3)
    maps, cameras, centre, pixels, hidden = _scene(16, seed=7)
    with torch.no_grad():
        maps, cameras, centre, pixels, hidden = _scene(16, seed=7)
        raw = _found(maps, pixels, hidden)
        assert _found(sparse(maps, cameras, centre), pixels, hidden) > raw + 0.4
        assert _found(dense(maps), pixels, hidden) > raw + 0.1
        maps, cameras, centre, pixels, hidden = _scene(16, rig=OTHER_RIG, seed=7)
        raw = _found(maps, pixels, hidden)
        assert _found(sparse(maps, cameras, centre), pixels, hidden) > raw + 0.4


def test_every_part_of_fusion_along_rays_learns():
    torch.manual_seed(0)
    layer = EpipolarFusion(RAYS)
    before = [p.detach().clone() for p in layer.parameters()]
    _trained(layer, layer, 3, 1e-2)
    assert all((p - q).abs().max() > 1e-4 for p, q in zip(layer.parameters(), before, strict=True) if p.ndim > 1)


def test_fusion_along_rays_does_not_depend_on_the_order_of_the_views():
    torch.manual_seed(0)
    layer = EpipolarFusion(RAYS)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    maps, cameras, centre, _, _ = _scene(1)
    order = [2, 0, 3, 1]
    turned = layer(maps[:, order], CropCameras(cameras.projections[:, order]), centre)
    assert torch.allclose(turned, layer(maps, cameras, centre)[:, order], atol=1e-5)


def test_an_absent_view_helps_no_other():
    torch.manual_seed(0)
    layer = EpipolarFusion(RAYS)
    maps, cameras, centre, _, _ = _scene(1)
    present = torch.tensor([[True, True, False, True]])
    maps[:, 2] = torch.rand(maps[:, 2].shape)
    kept = [0, 1, 3]
    without = layer(maps[:, kept], CropCameras(cameras.projections[:, kept]), centre)
    assert torch.allclose(layer(maps, cameras, centre, present)[:, kept], without, atol=1e-5)


def test_a_view_that_nobody_can_help_keeps_its_map():
    maps, cameras, centre, _, _ = _scene(1)
    present = torch.tensor([[True, False, False, False]])
    fused = EpipolarFusion(RAYS)(maps, cameras, centre, present)
    assert torch.equal(fused[:, 0], maps[:, 0])


def test_the_sign_of_a_projection_matrix_means_nothing():
    torch.manual_seed(0)
    layer = EpipolarFusion(RAYS)
    maps, cameras, centre, _, _ = _scene(1)
    scaled = CropCameras(cameras.projections * torch.tensor([1.0, 7.0, 0.1, 2.0])[None, :, None, None])
    assert torch.allclose(layer(maps, scaled, centre), layer(maps, cameras, centre), atol=1e-4)


@pytest.mark.parametrize("kind", ["sum", "max"])
def test_an_absent_view_adds_nothing_along_the_epipolar_line(kind):
    """Fails if the shares do not follow the views that are there."""
    maps, cameras, centre, _, _ = _scene(1)
    kept = [0, 1, 3]
    present = torch.tensor([[True, True, False, True]])
    without = epipolar_fusion(maps[:, kept], CropCameras(cameras.projections[:, kept]), centre, kind, RAYS)
    assert torch.allclose(epipolar_fusion(maps, cameras, centre, kind, RAYS, present)[:, kept], without, atol=1e-5)
    alone = torch.tensor([[False, True, False, False]])
    assert torch.equal(epipolar_fusion(maps, cameras, centre, kind, RAYS, alone)[:, 1], maps[:, 1])


def test_a_dense_layer_refuses_another_rig_s_maps():
    with pytest.raises(ValueError, match="built for 4 views of 8x6 and got 3 views of 8x6"):
        DenseFusion(4, (8, 6))(torch.zeros(1, 3, 2, 6, 8))


def test_one_view_cannot_be_fused():
    maps, cameras, centre, _, _ = _scene(1, views=2)
    alone = CropCameras(cameras.projections[:, :1])
    with pytest.raises(ValueError, match="at least two views, not 1"):
        DenseFusion(1, (8, 8))
    with pytest.raises(ValueError, match="at least two views, not 1"):
        epipolar_fusion(maps[:, :1], alone, centre, "max")
    with pytest.raises(ValueError, match="at least two views, not 1"):
        EpipolarFusion()(maps[:, :1], alone, centre)


def small(fusion):
    torch.manual_seed(0)
    config = CrossViewConfig(fusion=fusion, head_width=16, decoding=Decoding(kind="peak", solver=DltMethod.NORMAL))
    network = CrossViewFusion(ResNet(18, width=8), 3, (128, 128), config)
    torch.nn.init.normal_(network.head.final_layer.weight, std=0.3)
    torch.nn.init.constant_(network.head.final_layer.bias, 1.0)
    if isinstance(network.fuse, EpipolarFusion):
        torch.nn.init.normal_(network.fuse.own_share[2].weight, std=0.1)
    return network.eval()


@pytest.mark.parametrize("fusion", ["dense", "sum", "max", "rays"])
def test_a_network_keeps_its_maps_before_and_after_fusion(fusion, blobs):
    """Fails if one of the two is the other, or points are read from the maps before fusion."""
    network, samples = small(fusion), blobs()
    answer = network(samples.crops, samples.projections, keep_maps=True)
    views = open_views(samples.crops, samples.projections, None, 2.0)
    own = network.head(network.backbone(views.images.flatten(0, 1)))[1].unflatten(0, (2, 4))
    assert torch.allclose(answer.unfused, own, atol=1e-5)
    assert torch.allclose(answer.heatmaps, network.fused(own, views), atol=1e-5)
    assert (answer.heatmaps - own).abs().max() > 0.05
    assert answer.valid.all() and answer.joints.isfinite().all()
    top = 4 * argmax(answer.heatmaps) + 1.5
    assert (answer.joints_2d - top).abs().max() <= 4 * 3
    bare = network(samples.crops, samples.projections)
    assert bare.heatmaps is None and bare.unfused is None


@pytest.mark.parametrize("fusion", ["sum", "max", "rays"])
def test_a_network_without_a_dense_layer_treats_a_masked_view_as_an_absent_one(fusion, blobs):
    network, samples = small(fusion), blobs()
    masked = network(samples.crops, samples.projections, torch.tensor([[True, False, True, True]] * 2))
    order = [3, 0, 2]
    absent = network(samples.crops[:, order], samples.projections[:, order])
    assert torch.allclose(masked.joints, absent.joints, atol=1e-4)
    assert torch.allclose(masked.joints_2d[:, order], absent.joints_2d, atol=1e-3)
    assert not network(samples.crops[:, :1], samples.projections[:, :1]).valid.any()


def test_a_network_with_a_dense_layer_has_no_joint_for_a_sample_that_lacks_a_view(blobs):
    network, samples = small("dense"), blobs()
    answer = network(samples.crops, samples.projections, torch.tensor([[True] * 4, [True, False, True, True]]))
    assert answer.valid.tolist() == [[True] * 3, [False] * 3]
    with pytest.raises(ValueError, match="built for 4 views of 32x32 and got 3 views"):
        network(samples.crops[:, :3], samples.projections[:, :3])


@pytest.mark.parametrize("fusion", ["dense", "rays"])
def test_maps_before_and_after_fusion_train_every_part_of_the_network(fusion, blobs):
    """Fails if the objective leaves one of the two terms out, or a part of the network gets no gradient."""
    network, samples = small(fusion).train(), blobs(batch=4)
    everywhere = torch.ones(4, 4, 3, dtype=torch.bool)
    truth = MultiViewTruth(samples.joints, everywhere[:, 0], samples.joints_2d, everywhere, everywhere)
    answer = network(samples.crops, samples.projections, keep_maps=True)
    terms = objective(answer, truth, (128, 128), ObjectiveConfig(heatmaps=2.0, points=0.0, joints=0.0))
    targets = gaussian_targets((samples.joints_2d + 0.5) / 4 - 0.5, (32, 32), 2.0)
    weight = everywhere.float()
    assert terms["heatmaps"].item() == pytest.approx(2 * heatmap_mse(answer.heatmaps, targets, weight).item(), rel=1e-4)
    expected = 2 * heatmap_mse(answer.unfused, targets, weight).item()
    assert terms["heatmaps_unfused"].item() == pytest.approx(expected, rel=1e-4)
    sum(terms.values()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
