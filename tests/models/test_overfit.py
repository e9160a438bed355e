"""Every method learns: on sixteen rendered samples it comes under 5 mm within 200 steps (a minute each on one core)."""

from dataclasses import replace

import pytest
import torch

from mvpose.metrics import joint_errors as metrics
from mvpose.models.algebraic import AlgebraicConfig, AlgebraicTriangulation
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_fusion import Baseline, CanonicalFusion, Fusion, FusionConfig
from mvpose.models.objective import MultiViewTruth, ObjectiveConfig, objective
from mvpose.models.objective_settings import WarmUp
from mvpose.models.volumes.volumetric import VolumetricConfig, VolumetricTriangulation

JOINTS, STEPS, RATE, SIZE = 3, 200, 2e-3, (128, 128)
POINTS_FIRST = ObjectiveConfig(warm_up=WarmUp(start=0.3, full=0.5))
ALGEBRAIC = AlgebraicConfig(head_width=32, confidence_widths=(32, 16))
VOLUMETRIC = VolumetricConfig(
    voxels=16, channels=8, widths=(8, 16, 16), side=2.0, root=(0, 1, 2), turn_in_training=False, algebraic=ALGEBRAIC
)
SOON = ObjectiveConfig(joints_as="absolute", volume=0.01, coarse=1.0, warm_up=WarmUp(start=0.1, full=0.2))


def fusing(method, **settings):
    return method(ResNet(18, width=16), JOINTS, FusionConfig(points=16, head_width=32, **settings))


METHODS = {
    "baseline": (lambda: fusing(Baseline), POINTS_FIRST),
    "fusion": (lambda: fusing(Fusion), POINTS_FIRST),
    "concatenation": (lambda: fusing(CanonicalFusion), POINTS_FIRST),
    "pooling": (lambda: fusing(CanonicalFusion, fusion="pooling"), POINTS_FIRST),
    "attention": (lambda: fusing(CanonicalFusion, fusion="attention"), POINTS_FIRST),
    "algebraic": (
        lambda: AlgebraicTriangulation(ResNet(18, width=16), JOINTS, ALGEBRAIC),
        replace(POINTS_FIRST, joints_as="soft_mse"),
    ),
    "volumetric": (lambda: VolumetricTriangulation(ResNet(18, width=16), JOINTS, VOLUMETRIC), SOON),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_overfits_to_under_five_millimetres(name, blobs):
    torch.manual_seed(0)
    build, config = METHODS[name]
    network, samples = build(), blobs(batch=16)
    everywhere = torch.ones(16, 4, JOINTS, dtype=torch.bool)
    truth = MultiViewTruth(samples.joints, everywhere[:, 0], samples.joints_2d, everywhere, everywhere)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.2)
    for step in range(STEPS):
        answer = network(samples.crops, samples.projections, keep_maps=True)
        loss = torch.stack(list(objective(answer, truth, SIZE, config, step / STEPS).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        answer = network.eval()(samples.crops, samples.projections)
    assert answer.valid.all()
    assert metrics.frame_mean(metrics.mpjpe(answer.joints, samples.joints)) < 0.005
