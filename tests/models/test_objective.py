from dataclasses import replace

import pytest
import torch

from mvpose.models.algebraic import AlgebraicConfig
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.objective import MultiViewTruth, ObjectiveConfig, objective
from mvpose.models.volumes.volumetric import VolumetricConfig, VolumetricTriangulation

SIZE = (128, 128)


def truth_of(samples) -> MultiViewTruth:
    b, v, j, _ = samples.joints_2d.shape
    everywhere = torch.ones(b, v, j, dtype=torch.bool)
    return MultiViewTruth(samples.joints, everywhere[:, 0], samples.joints_2d, everywhere, everywhere)


def exact(samples) -> MultiViewPrediction:
    b, v, j, _ = samples.joints_2d.shape
    sure, used = torch.ones(b, j), torch.ones(b, v, j, dtype=torch.bool)
    return MultiViewPrediction(samples.joints, sure > 0, sure, samples.joints_2d, torch.ones(b, v, j), used)


def volumetric() -> VolumetricTriangulation:
    torch.manual_seed(0)
    small = AlgebraicConfig(head_width=16, confidence_widths=(16, 8))
    return VolumetricTriangulation(
        ResNet(18, width=8), 3, VolumetricConfig(voxels=16, channels=4, widths=(4, 6, 8), algebraic=small)
    )


def test_an_exact_prediction_costs_nothing(blobs):
    samples = blobs()
    assert sum(objective(exact(samples), truth_of(samples), SIZE, ObjectiveConfig()).values()) == 0


@pytest.mark.parametrize("kind", ["distance", "soft_mse", "absolute"])
def test_the_3d_term_comes_in_after_the_warm_up(blobs, kind):
    samples = blobs()
    off = replace(exact(samples), joints=samples.joints + 0.1)
    config = ObjectiveConfig(joints_as=kind)
    early, late = (objective(off, truth_of(samples), SIZE, config, p) for p in (0.1, 1.0))
    assert set(early) == {"points"}
    assert set(late) == {"points", "joints"}
    expected = {"distance": 0.1 * 3**0.5, "soft_mse": 0.01, "absolute": 0.1}[kind]
    assert late["joints"].item() == pytest.approx(expected, rel=1e-4)


def test_the_2d_term_is_a_share_of_the_crop(blobs):
    samples = blobs()
    off = replace(exact(samples), joints_2d=samples.joints_2d + torch.tensor([12.8, 0.0]))
    assert objective(off, truth_of(samples), SIZE, ObjectiveConfig())["points"].item() == pytest.approx(0.1, rel=1e-4)


def test_samples_with_one_view_are_scored_relative_to_their_root(blobs):
    samples = blobs()
    off = replace(exact(samples), joints=samples.joints + torch.tensor([0.0, 0.3, 0.0]))
    only_first = torch.zeros(2, 4, 3, dtype=torch.bool)
    only_first[:, 0] = True
    single = replace(off, views_used=only_first)
    assert objective(off, truth_of(samples), SIZE, ObjectiveConfig())["joints"] > 0.29
    assert objective(single, truth_of(samples), SIZE, ObjectiveConfig())["joints"] < 1e-6


def test_invalid_and_unknown_joints_do_not_count(blobs):
    samples = blobs()
    broken = replace(exact(samples), joints=samples.joints.clone(), valid=torch.ones(2, 3, dtype=torch.bool))
    broken.joints[0, 1] = 9.0
    broken.valid[0, 1] = False
    truth = truth_of(samples)
    truth.joints[1, 2] = float("nan")
    truth.known[1, 2] = False
    assert objective(broken, truth, SIZE, ObjectiveConfig())["joints"] == 0


def test_every_term_of_the_volumetric_method_reaches_every_parameter(blobs):
    network, samples = volumetric(), blobs(batch=3)
    config = ObjectiveConfig(heatmaps=1.0, volume=1e-4, coarse=1.0, joints_as="absolute")
    terms = objective(network(samples.crops, samples.projections, keep_maps=True), truth_of(samples), SIZE, config)
    assert set(terms) == {"heatmaps", "points", "joints", "volume", "coarse"}
    torch.stack(list(terms.values())).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_terms_that_need_maps_say_so(blobs):
    samples = blobs()
    with pytest.raises(ValueError, match="keep_maps=True"):
        objective(exact(samples), truth_of(samples), SIZE, ObjectiveConfig(heatmaps=1.0))
