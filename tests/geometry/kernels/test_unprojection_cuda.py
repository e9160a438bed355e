"""The Triton kernels: interpreted and compiled where Triton is installed, run on the device where there is one."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from mvpose.geometry.kernels.unprojection import KINDS
from mvpose.geometry.triangulation import Kernel
from mvpose.models.multiview import open_views
from mvpose.models.volumes.cube import Cube
from mvpose.models.volumes.volumetric import unproject
from tests.geometry.rigs import ring

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
HERE = importlib.util.find_spec("triton") is not None

INTERPRETED = """
import torch
from mvpose.geometry.kernels import unprojection_cpu as cpu, unprojection_cuda as cuda

def both(name, items, inputs, settings, outputs):
    theirs = [torch.zeros_like(o) for o in outputs]
    getattr(cuda, name)(*inputs, *settings, *outputs)
    getattr(cpu, name)(*[a.numpy() for a in inputs], *settings, *[o.numpy() for o in theirs], 0, items)
    for one, other in zip(outputs, theirs, strict=True):
        assert torch.equal(one.isnan(), other.isnan()), name
        scale = max(1.0, float(other.nan_to_num().abs().max()))
        assert float((one - other).nan_to_num().abs().max()) < 3e-6 * scale, name

B, V, c, h, w, n = 2, 3, 5, 6, 9, 5
generator = torch.Generator().manual_seed(0)
features = torch.zeros(B, V, h + 2, w + 2, c)
features[:, :, 1:-1, 1:-1] = 2 * torch.randn(B, V, h, w, c, generator=generator)
features[1, 0, 3, 4, 0] = torch.nan
features = features.flatten(2, 3)
weights, grad = torch.rand(B, V, c, generator=generator), torch.randn(B, n**3, c, generator=generator)
present = torch.tensor([[True, True, True], [True, False, True]])
matrices = torch.randn(B, V, 3, 4, generator=generator, dtype=torch.float64)
for kind in range(4):
    settings = (h, w, n, kind)
    out = [torch.zeros(B, n**3, c)]
    both("forward", B * n**3, (features, weights, present, matrices), settings, out)
    assert out[0].nan_to_num().std() > 0.1 and out[0].isnan().any() and (out[0] == 0).all(dim=2).any()
    d = [torch.zeros_like(features), torch.zeros_like(weights)]
    both("backward", B, (features, weights, present, matrices, grad), settings, d)
    assert d[0].nan_to_num().std() > 0.1 and (kind < 2) == (not d[1].any())
print("agree")
"""

COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from mvpose.geometry.kernels import unprojection_cuda as cuda

read = {"features": "*fp32", "weights": "*fp32", "present": "*i1", "matrices": "*fp64"}
sizes = dict.fromkeys(("height", "width", "count"), "i32")
for kind in range(4):
    chosen = {"VIEWS": 4, "CHANNELS": 32, "KIND": kind, "WIDE": 32, "BLOCK": cuda.BLOCK}
    for kernel, more in ((cuda._forward, ("out",)), (cuda._backward, ("grad", "d_features", "d_weights"))):
        signature = read | dict.fromkeys(more, "*fp32") | sizes | dict.fromkeys(chosen, "constexpr")
        done = compile(ASTSource(kernel, signature, chosen), target=GPUTarget("cuda", 90, 32))
        assert len(done.asm["cubin"]) > 0
print("compiled")
"""


def run(code: str, **environment: str) -> str:
    environment = os.environ | {"PYTHONPATH": REPOSITORY} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not HERE, reason="Triton is not installed")
def test_the_triton_kernels_interpreted_are_the_numba_kernels_gradients_included():
    assert run(INTERPRETED, TRITON_INTERPRET="1") == "agree"


@pytest.mark.skipif(not HERE, reason="Triton is not installed")
def test_the_triton_kernels_compile_for_a_device_that_is_not_here():
    assert run(COMPILED) == "compiled"


@pytest.mark.skipif(HERE, reason="Triton is installed")
def test_without_triton_the_cuda_kernel_stops_with_a_sentence_that_says_what_to_do():
    from mvpose.geometry.kernels.unprojection import _cuda_kernels

    with pytest.raises(ImportError, match="install triton"):
        _cuda_kernels()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [5, 32])
def test_on_the_device_the_triton_kernel_is_the_torch_version_gradients_included(kind, channels):
    projections = ring(4).projections.float().expand(2, -1, -1, -1).contiguous().cuda()
    views = open_views(torch.zeros(2, 4, 3, 1024, 1024, device="cuda"), projections, None, 2.0)
    turn = torch.eye(3, device="cuda").expand(2, -1, -1)
    cube = Cube(torch.tensor([[0.0, 0.0, 1.0]], device="cuda").expand(2, -1), turn, 2.5, 32)
    features = torch.randn(2, 4, channels, 32, 32, device="cuda")
    weights = torch.rand(2, 4, channels, device="cuda") if kind.startswith("conf") else None
    grad = torch.randn(2, channels, 32, 32, 32, device="cuda")
    results = []
    for engine in Kernel:
        leaves = [t.clone().requires_grad_() for t in (features, weights) if t is not None]
        volume = unproject(leaves[0], views, cube, kind, *leaves[1:], engine=engine)
        volume.backward(grad)
        results.append((volume.detach(), *(leaf.grad for leaf in leaves)))
    for one, other in zip(*results, strict=True):
        assert ((one - other).abs() > 1e-4 * max(1.0, float(other.abs().max()))).double().mean() < 1e-3
