import math

import pytest
import torch

from mvpose.models.algebraic import AlgebraicConfig
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_frame import image_units
from mvpose.models.multiview import open_views
from mvpose.models.volumes.cube import Cube, about_vertical
from mvpose.models.volumes.volumetric import VolumetricConfig, VolumetricTriangulation, aggregate, unproject

KINDS = ["sum", "conf", "conf_norm", "max", "softmax"]


def build(**settings) -> VolumetricTriangulation:
    torch.manual_seed(0)
    config = VolumetricConfig(
        voxels=16,
        channels=4,
        widths=(4, 6, 8),
        algebraic=AlgebraicConfig(head_width=16, confidence_widths=(16, 8)),
        **settings,
    )
    return VolumetricTriangulation(ResNet(18, width=8), 3, config)


def scene(blobs, batch=2, angle=0.0):
    samples = blobs(batch=batch)
    views = open_views(samples.crops, samples.projections, None, 2.0)
    turn = about_vertical(torch.full((batch,), angle))
    return views, Cube(torch.tensor([[0.0, 0.0, 1.0]]).expand(batch, -1), turn, 1.0, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_map_gives_a_constant_volume(blobs, kind):
    views, cube = scene(blobs)
    weights = torch.full((2, 4, 3), 0.5) if kind.startswith("conf") else None
    volume = unproject(torch.full((2, 4, 3, 32, 32), 7.0), views, cube, kind, weights)
    expected = {"sum": 28.0, "conf": 14.0}.get(kind, 7.0)
    assert torch.allclose(volume, torch.full((2, 3, 8, 8, 8), expected), atol=1e-4)


def test_a_voxel_holds_what_the_map_shows_where_it_projects(blobs):
    """A map whose two channels are its own pixel coordinates tells where each voxel fell."""
    views, cube = scene(blobs, angle=0.7)
    axis = (torch.arange(64) + 0.5) * 2 / 64 - 1
    coordinates = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64)])
    volume = unproject(coordinates.expand(2, 4, 2, 64, 64).contiguous(), views, cube, "sum")
    points, _ = cube.image_points(image_units(views.projections, views.size))
    inside = (points.abs() < 0.95).all(dim=-1).all(dim=1)
    assert inside.float().mean() > 0.9
    summed = points.sum(dim=1).transpose(1, 2)
    assert torch.allclose(volume.flatten(2).transpose(1, 2)[inside], summed.transpose(1, 2)[inside], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_aggregation_ignores_unseen_views_and_their_order_and_is_0_where_none_sees(kind):
    values, seen = torch.randn(2, 4, 3, 10), torch.rand(2, 4, 1, 10) > 0.3
    seen[:, :, :, 0] = False
    seen[:, 1] = False
    weights = torch.rand(2, 4, 3) if kind.startswith("conf") else None
    loud = torch.where(seen, values, torch.full_like(values, 1e6))
    whole = aggregate(values, seen, kind, weights)
    order = [3, 0, 2]
    part = aggregate(loud[:, order], seen[:, order], kind, None if weights is None else weights[:, order])
    assert torch.allclose(whole, part, atol=1e-5)
    assert not whole[..., 0].any()


def test_softmax_aggregation_is_the_papers_weighted_mean():
    values = torch.randn(1, 3, 1, 5)
    found = aggregate(values, torch.ones(1, 3, 1, 5, dtype=torch.bool), "softmax")
    expected = (values.exp() * values).sum(dim=1) / values.exp().sum(dim=1)
    assert torch.allclose(found, expected, atol=1e-6)


def test_unprojection_equals_a_loop_over_samples_and_views(blobs):
    views, cube = scene(blobs, angle=0.3)
    maps = torch.randn(2, 4, 3, 16, 16)
    index = torch.cartesian_prod(*[torch.arange(8.0)] * 3)
    looped = torch.zeros(2, 3, 512)
    for b in range(2):
        world = cube.world_of(index.expand(2, -1, -1))[b]
        for v in range(4):
            x = views.projections[b, v] @ torch.cat([world, torch.ones(512, 1)], dim=1).T
            grid = ((x[:2] / x[2] + 0.5) * 2 / 128 - 1).T.reshape(1, 1, 512, 2)
            looped[b] += torch.nn.functional.grid_sample(maps[b : b + 1, v], grid, align_corners=False)[0, :, 0]
    assert torch.allclose(unproject(maps, views, cube, "sum").flatten(2), looped, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(blobs, kind):
    network, samples = build(aggregation=kind), blobs(batch=3)
    answer = network(samples.crops, samples.projections, keep_maps=True)
    value, _ = answer.volume.at(samples.joints)
    error = (answer.joints - samples.joints).square().sum() + (answer.coarse.joints - samples.joints).square().sum()
    (error - value.mean()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("views", [1, 2, 5])
def test_any_number_of_views_from_one(blobs, views):
    network, samples = build().eval(), blobs(views=views)
    answer = network(samples.crops, samples.projections)
    assert answer.valid.all()
    assert answer.joints.isfinite().all()
    assert (answer.joints - torch.tensor([0.0, 0.0, 1.0])).norm(dim=-1).max() < 1.5


def test_a_masked_view_equals_an_absent_one_and_batches_their_samples(blobs):
    network, samples = build().double().eval(), blobs()
    crops, projections = samples.crops.double(), samples.projections.double()
    crops[:, 1] = float("nan")
    whole = network(crops, projections)
    for i in range(2):
        one = network(crops[i : i + 1, [2, 0, 3]], projections[i : i + 1, [2, 0, 3]])
        assert torch.allclose(one.joints, whole.joints[i : i + 1], atol=1e-4)


def test_no_view_leaves_no_joint(blobs):
    samples = blobs()
    present = torch.tensor([[True] * 4, [False] * 4])
    answer = build().eval()(samples.crops, samples.projections, present)
    assert answer.valid.tolist() == [[True] * 3, [False] * 3]
    assert not answer.joints[1].any()


def test_the_cube_turns_in_training_only_and_stays_upright(blobs):
    network, samples = build(), blobs()
    turned = network(samples.crops, samples.projections, keep_maps=True).volume.cube.rotation
    assert (turned[0] - turned[1]).abs().max() > 1e-3
    assert torch.allclose(turned[:, 2, 2], torch.ones(2))
    straight = network.eval()(samples.crops, samples.projections, keep_maps=True).volume.cube.rotation
    assert torch.equal(straight, torch.eye(3).expand(2, -1, -1))


def test_the_expected_joint_stays_in_the_cube_and_its_log_probabilities_sum_to_one(blobs):
    samples = blobs()
    answer = build().eval()(samples.crops, samples.projections, keep_maps=True)
    mass = answer.volume.log_probability.exp().sum(dim=(-3, -2, -1))
    assert torch.allclose(mass, torch.ones_like(mass), atol=1e-5)
    assert (answer.joints - answer.volume.cube.centre[:, None]).abs().max() < 1.25 * math.sqrt(2)


def test_voxels_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="cannot be halved 5 times"):
        VolumetricTriangulation(ResNet(18, width=8), 3, VolumetricConfig(voxels=48 + 1))


def test_cameras_in_double_precision_and_autocast_change_little(blobs):
    samples, network = blobs(), build().eval()
    with torch.no_grad():
        plain = network(samples.crops, samples.projections)
        exact = network(samples.crops, samples.projections.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(samples.crops, samples.projections)
    assert (exact.joints - plain.joints).abs().max() < 1e-4
    assert rough.joints.dtype == torch.float32
    assert (rough.joints - plain.joints).abs().max() < 0.01


def test_voxels_are_placed_exactly_under_autocast(blobs):
    views, cube = scene(blobs)
    axis = (torch.arange(256) + 0.5) * 2 / 256 - 1
    maps = axis.expand(2, 4, 1, 256, 256).contiguous()
    plain = unproject(maps, views, cube, "sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = unproject(maps, views, cube, "sum")
    assert (plain - rough).abs().max() < 1e-4
