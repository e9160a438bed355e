import pytest
import torch

from mvpose.geometry.triangulation import DltMethod
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_fusion import Baseline, CanonicalFusion, Fusion, FusionConfig
from mvpose.models.multiview import Decoding

JOINTS = 3


def build(method, **settings):
    torch.manual_seed(0)
    # Normal equations, because shifted iterations start amid all cameras, absent ones too (some micrometres).
    decoding = Decoding(solver=DltMethod.NORMAL)
    config = FusionConfig(points=4, head_width=16, decoding=decoding, **settings)
    return method(ResNet(18, width=8), JOINTS, config)


METHODS = {
    "baseline": lambda: build(Baseline),
    "fusion": lambda: build(Fusion),
    "concatenation": lambda: build(CanonicalFusion),
    "pooling": lambda: build(CanonicalFusion, fusion="pooling"),
    "attention": lambda: build(CanonicalFusion, fusion="attention", keep_own_view=True),
}
ANY_VIEWS = ["baseline", "pooling", "attention"]


@pytest.fixture(params=METHODS)
def network(request):
    return METHODS[request.param]()


@pytest.fixture(params=ANY_VIEWS)
def free(request):
    """A network for any number of views, in double precision."""
    return METHODS[request.param]().double().eval()


def awake(network):
    """Heads start near 0 (deviation 0.001), where every map is flat; scaled up, so that answers differ."""
    with torch.no_grad():
        for layer in (*network.head.deconv_layers, network.head.final_layer):
            if isinstance(layer, torch.nn.ConvTranspose2d | torch.nn.Conv2d):
                layer.weight *= 100
    return network


def test_shapes_and_maps_on_request(network, blobs):
    samples = blobs()
    answer = network.eval()(samples.crops, samples.projections, keep_maps=True)
    assert answer.joints.shape == (2, JOINTS, 3)
    assert answer.joints_2d.shape == (2, 4, JOINTS, 2)
    assert answer.heatmaps.shape == (2, 4, JOINTS, 32, 32)
    assert network(samples.crops, samples.projections).heatmaps is None


def test_gradients_reach_every_parameter(network, blobs):
    samples = blobs(batch=3)
    answer = network(samples.crops, samples.projections)
    ((answer.joints - samples.joints).square().sum() + answer.joints_2d.square().mean()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_batch_equals_its_samples(network, blobs):
    network, samples = awake(network).double().eval(), blobs(batch=2)
    crops, projections = samples.crops.double(), samples.projections.double()
    whole = network(crops, projections)
    assert whole.joints_2d[0].sub(whole.joints_2d[1]).abs().max() > 1e-3
    for i in range(2):
        one = network(crops[i : i + 1], projections[i : i + 1])
        assert torch.allclose(one.joints_2d, whole.joints_2d[i : i + 1])
        assert torch.allclose(one.joints, whole.joints[i : i + 1], atol=1e-6)


def test_a_masked_view_equals_an_absent_one(free, blobs):
    samples = blobs()
    crops, projections = samples.crops.double(), samples.projections.double()
    present = torch.tensor([[True, True, False, True]] * 2)
    crops[:, 2] = float("nan")
    masked = awake(free)(crops, projections, present)
    absent = free(crops[:, [0, 1, 3]], projections[:, [0, 1, 3]])
    assert torch.allclose(masked.joints_2d[:, [0, 1, 3]], absent.joints_2d)
    assert torch.allclose(masked.joints, absent.joints, atol=1e-6)
    assert torch.equal(masked.valid, absent.valid)


def test_the_order_of_views_does_not_matter(free, blobs):
    samples, order = blobs(), torch.tensor([3, 1, 0, 2])
    crops, projections = samples.crops.double(), samples.projections.double()
    straight = awake(free)(crops, projections)
    shuffled = free(crops[:, order], projections[:, order])
    assert torch.allclose(straight.joints_2d[:, order], shuffled.joints_2d)
    assert torch.allclose(straight.joints, shuffled.joints, atol=1e-6)


@pytest.mark.parametrize("name", ["fusion", "concatenation"])
def test_concatenating_networks_refuse_another_number_of_views_and_mask_samples_that_lack_one(name, blobs):
    network, samples = METHODS[name]().eval(), blobs()
    with pytest.raises(ValueError, match="concatenates 4 views but got 3"):
        network(samples.crops[:, :3], samples.projections[:, :3])
    present = torch.ones(2, 4, dtype=torch.bool)
    present[1, 0] = False
    answer = network(samples.crops, samples.projections, present)
    assert not answer.valid[1].any()
    assert not answer.views_used[1].any()


def test_pooling_lets_one_view_learn_from_another_and_the_baseline_does_not(blobs):
    samples = blobs()
    changed = samples.crops.clone()
    changed[:, 0] = 1 - changed[:, 0]

    def difference(name):
        network = awake(METHODS[name]()).double().eval()
        answers = [network(c.double(), samples.projections.double()).joints_2d[:, 1] for c in (samples.crops, changed)]
        return (answers[0] - answers[1]).abs().max()

    assert difference("baseline") < 1e-9
    for name in ("fusion", "concatenation", "pooling", "attention"):
        assert difference(name) > 1e-3


def test_moving_the_world_moves_canonical_fusions_answer_with_it(blobs):
    """A shift of the world changes nothing inside: the canonical frame goes with the subject."""
    samples, shift = blobs(), torch.tensor([5.0, -3.0, 0.5], dtype=torch.float64)
    network = awake(METHODS["pooling"]()).double().eval()
    crops, projections = samples.crops.double(), samples.projections.double()
    moved = projections.clone()
    moved[..., 3] -= projections[..., :3] @ shift
    here, there = network(crops, projections), network(crops, moved)
    assert torch.allclose(here.joints_2d, there.joints_2d, atol=1e-6)
    assert torch.allclose(here.joints + shift * here.valid[..., None], there.joints, atol=1e-6)


def test_fusion_without_cameras_only_concatenates():
    with pytest.raises(ValueError, match="has no cameras"):
        build(Fusion, fusion="pooling")


def test_the_default_sizes_are_the_papers():
    with torch.device("meta"):
        network = CanonicalFusion(ResNet(152), 17, FusionConfig())
    assert network.reduce[0].weight.shape == (300, 2048, 1, 1)
    assert network.fuse.mix[0][0].weight.shape == (400, 1600, 1, 1)
    assert network.fuse.mix[1][0].weight.shape == (400, 400, 1, 1)
    assert network.expand[0].weight.shape == (2048, 300, 1, 1)


def test_cameras_in_double_precision_and_autocast_change_little(network, blobs):
    samples, network = blobs(), awake(network).eval()
    with torch.no_grad():
        plain = network(samples.crops, samples.projections)
        exact = network(samples.crops, samples.projections.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(samples.crops, samples.projections)
    assert exact.joints.dtype == torch.float64
    assert (exact.joints - plain.joints).abs().max() < 1e-4
    assert rough.joints.dtype == rough.joints_2d.dtype == torch.float32
    assert (rough.joints_2d - plain.joints_2d).abs().max() < 0.05
