"""Every network goes through torch.export with free batch (and views, where it takes any), and compiles whole."""

import os
import subprocess
import sys

import pytest
import torch

from mvpose.geometry import DltMethod
from mvpose.models.algebraic import AlgebraicConfig, AlgebraicTriangulation, RansacConfig, RansacTriangulation
from mvpose.models.backbones.simple_baselines import HeatmapHead, ResNet
from mvpose.models.fusion.canonical_fusion import Baseline, CanonicalFusion, Fusion, FusionConfig
from mvpose.models.fusion.cross_view_fusion import CrossViewFusion
from mvpose.models.multiview import Decoding
from mvpose.models.network_settings import CrossViewConfig
from mvpose.models.volumes.volumetric import VolumetricConfig, VolumetricTriangulation

ALGEBRAIC = AlgebraicConfig(head_width=16, confidence_widths=(16, 8))


def fusing(method, **settings):
    return method(ResNet(18, width=8), 3, FusionConfig(points=4, head_width=16, **settings))


def crossing(fusion):
    decoding = Decoding(kind="peak", solver=DltMethod.SII)
    config = CrossViewConfig(fusion=fusion, head_width=16, decoding=decoding)
    return CrossViewFusion(ResNet(18, width=8), 3, (128, 128), config)


METHODS = {
    "baseline": lambda: fusing(Baseline),
    "fusion": lambda: fusing(Fusion),
    "canonical": lambda: fusing(CanonicalFusion),
    "pooling": lambda: fusing(CanonicalFusion, fusion="pooling"),
    "attention": lambda: fusing(CanonicalFusion, fusion="attention"),
    "ransac": lambda: RansacTriangulation(fusing(Baseline), RansacConfig()),
    "algebraic": lambda: AlgebraicTriangulation(ResNet(18, width=8), 3, ALGEBRAIC),
    "dense": lambda: crossing("dense"),
    "rays": lambda: crossing("rays"),
    "volumetric": lambda: VolumetricTriangulation(
        ResNet(18, width=8), 3, VolumetricConfig(voxels=16, channels=4, widths=(4, 6, 8), algebraic=ALGEBRAIC)
    ),
}
TIED = ("fusion", "canonical", "ransac", "dense", "rays")
QUICK = ("pooling",)


def some_slow(names):
    """The quick in every run, the others by hand: tracing takes seconds each."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def build(name: str) -> torch.nn.Module:
    """The method with a head of ordinary weights: fresh heads are near 0, where every answer is the crop's middle."""
    torch.manual_seed(0)
    network = METHODS[name]().eval()
    for head in (module for module in network.modules() if isinstance(module, HeatmapHead)):
        for weight in (p for p in head.parameters() if p.ndim == 4):
            torch.nn.init.normal_(weight, std=0.3)
    return network


def inputs(samples):
    return samples.crops, samples.projections, torch.ones(samples.crops.shape[:2], dtype=torch.bool)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", some_slow(METHODS))
def test_an_exported_method_answers_for_any_batch_and_where_it_can_any_views(name, blobs):
    network = build(name)
    axes = {0: torch.export.Dim("batch", max=64)}
    if name not in TIED:
        axes[1] = torch.export.Dim("views", min=2, max=32)
    program = torch.export.export(network, inputs(blobs(batch=2)), dynamic_shapes=(axes,) * 3, strict=False)
    other = inputs(blobs(batch=3, views=4 if name in TIED else 5, seed=1))
    with torch.no_grad():
        expected, found = network(*other), program.module()(*other)
    assert expected.joints_2d.std(dim=2).median() > 0.1
    assert torch.allclose(found.joints, expected.joints, atol=1e-4)
    assert torch.allclose(found.joints_2d, expected.joints_2d, atol=1e-3)
    assert torch.equal(found.valid, expected.valid)


COMPILE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_export import build
from conftest import blob_samples
samples = blob_samples()
for name in sys.argv[3:]:
    network = build(name)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend=sys.argv[2])
    with torch.no_grad():
        one, other = network(samples.crops, samples.projections), compiled(samples.crops, samples.projections)
    assert torch.allclose(one.joints, other.joints, atol=1e-3), name
    assert torch.allclose(one.joints_2d, other.joints_2d, atol=1e-2), name
    print(name)
"""


@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("eager", ["pooling"]),
        pytest.param("eager", list(METHODS), marks=pytest.mark.slow),
        pytest.param("inductor", ["pooling", "volumetric"], marks=pytest.mark.slow),
    ],
)
def test_methods_compile_into_one_graph(backend, names):
    """In a process without shape checks, whose frames the compiler cannot trace."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, here, backend, *names],
        env={**os.environ, "PYTHONPATH": root},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == names
