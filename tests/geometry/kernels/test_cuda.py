"""The Triton kernels: in Triton's interpreter where Triton is installed, on the device where there is one."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from mvpose.geometry.triangulation import DltMethod, Kernel, triangulate
from tests.geometry.rigs import ideal_pixels, noisy, people_points, ring

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

INTERPRETED = """
import torch
from mvpose.geometry.conditioning import Conditioned
from mvpose.geometry.kernels import cpu, cuda
from tests.geometry.rigs import ideal_pixels, noisy, people_points, ring

def both(name, n, *arguments_and_outputs):
    *inputs, outputs = arguments_and_outputs
    theirs = [torch.zeros_like(o) for o in outputs]
    arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in inputs]
    getattr(cuda, name)(*inputs, *outputs)
    getattr(cpu, name)(*arrays, *[o.numpy() for o in theirs], 0, n)
    for one, other in zip(outputs, theirs, strict=True):
        if one.numel():
            scale = max(1.0, float(other.double().abs().max()))
            assert float((one.double() - other.double()).abs().max()) < 1e-8 * scale, name

num, generator = 140, torch.Generator().manual_seed(0)
projections = ring(3).projections
pixels = noisy(ideal_pixels(people_points(num), projections), 2.0)
weights = torch.rand(num, 3, generator=generator, dtype=torch.float64)
weights[0, 1:], weights[1, 1] = 0.0, 0.0
pixels[1, 1] = torch.nan
grad = torch.randn(num, 3, generator=generator, dtype=torch.float64)
for groups in (1, 70):
    c = Conditioned.of(projections, torch.float64)
    p = c.projections.reshape(1, 3, 12).repeat(groups, 1, 1)
    centre, scale = c.centre.repeat(groups, 1), c.scale.repeat(groups)
    for w in (weights, torch.empty(0, 0, dtype=torch.float64)):
        for start in (torch.zeros(1, 3, dtype=torch.float64), 0.1 * grad):
            for sii in (False, True):
                uv = pixels if len(w) else pixels.nan_to_num()
                out, valid = torch.zeros(num, 3, dtype=torch.float64), torch.zeros(num, dtype=torch.bool)
                both("forward", num, uv, w, p, centre, scale, start, sii, 2, 2.0**-16, 2.0**-15, [out, valid])
                assert 0 < int(valid.sum()) and (len(w) == 0 or not valid[0])
                d = [torch.zeros_like(uv), torch.zeros_like(w)]
                both("backward", num, uv, w, p, scale, start, sii, 2, 2.0**-16, valid, grad, d)
print("agree")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_triton_kernels_interpreted_are_the_numba_kernels_gradients_included():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": REPOSITORY}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agree"


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is installed")
def test_without_triton_the_cuda_kernel_stops_with_a_sentence_that_says_what_to_do():
    from mvpose.geometry.kernels.fused import _cuda_kernels

    with pytest.raises(ImportError, match="install triton"):
        _cuda_kernels()


@pytest.mark.gpu
@pytest.mark.parametrize("method", [DltMethod.NORMAL, DltMethod.SII])
@pytest.mark.parametrize("views", [2, 4, 16, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_the_device_the_triton_kernel_is_the_torch_version_gradients_included(method, views, dtype):
    projections, points = ring(views).projections.cuda(), people_points(5000)
    pixels = noisy(ideal_pixels(points, ring(views).projections), 2.0).to(dtype).cuda()
    weights = (torch.rand(5000, views, generator=torch.Generator().manual_seed(1)) + 0.1).to(dtype).cuda()
    results = []
    for engine in Kernel:
        p, w = pixels.clone().requires_grad_(), weights.clone().requires_grad_()
        found = triangulate(p, projections, w, method=method, engine=engine)
        found.points.sum().backward()
        results.append((found.points.detach(), p.grad, w.grad))
    for one, other in zip(*results, strict=True):
        tolerance = (1e-8 if dtype == torch.float64 else 2e-3) * max(1.0, float(other.abs().max()))
        assert ((one - other).abs() > tolerance).double().mean() < 1e-3
