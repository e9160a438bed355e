"""The fused kernels as one differentiable function; the device of the points selects the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned


@dataclass(frozen=True)
class Solver:
    """Normal equations, or this many shifted iterations with `sii`; `min_precision` as in `dlt.determined`."""

    sii: bool
    iterations: int
    shift: float
    min_precision: float


def triangulate(
    points: Float[Tensor, "*batch V 2"],
    conditioned: Conditioned,
    weights: Float[Tensor, "*batch V"] | None,
    start: Float[Tensor, "*#batch 3"] | None,
    solver: Solver,
) -> tuple[Float[Tensor, "*batch 3"], Bool[Tensor, "*batch"]]:
    """World points and whether they are determined; gradients reach points and weights.

    Raises ImportError on CUDA if Triton is missing.
    """
    batch, views = points.shape[:-2], points.shape[-2]
    projections, centre, scale = _grouped(conditioned, batch)
    origin = torch.zeros(1, 3).to(points) if start is None else start.expand(*batch, 3).reshape(-1, 3)
    flat = None if weights is None else weights.reshape(-1, views)
    world, valid = _FusedDlt.apply(points.reshape(-1, views, 2), flat, projections, centre, scale, origin, solver)
    return world.reshape(*batch, 3), valid.reshape(batch)


def _grouped(conditioned: Conditioned, batch: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Projections (G V 12), centres (G 3) and scales (G), each serving a run of consecutive points.

    Projections that vary only along the leading batch axes, such as one rig per sample, are not repeated.
    """
    p = conditioned.projections.detach()
    own = (1,) * (len(batch) - p.ndim + 3) + tuple(p.shape[:-3])
    leading = len(batch)
    while leading > 0 and own[leading - 1] == 1:
        leading -= 1
    shape = batch[:leading]
    rest = (1,) * (len(own) - leading)

    def spread(tensor: Tensor, tail: tuple[int, ...]) -> Tensor:
        return tensor.detach().reshape((*own, *tail)).expand((*shape, *rest, *tail)).reshape((-1, *tail)).contiguous()

    views = p.shape[-3]
    return (
        spread(p, (views, 3, 4)).reshape(-1, views, 12),
        spread(conditioned.centre, (3,)),
        spread(conditioned.scale, ()),
    )


class _FusedDlt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        weights: Tensor | None,
        projections: Tensor,
        centre: Tensor,
        scale: Tensor,
        start: Tensor,
        solver: Solver,
    ) -> tuple[Tensor, Tensor]:
        points = points.detach().contiguous()
        weights = points.new_empty(0, 0) if weights is None else weights.detach().to(points.dtype).contiguous()
        start = start.detach().contiguous()
        out = points.new_empty(len(points), 3)
        valid = torch.empty(len(points), dtype=torch.bool, device=points.device)
        settings = (solver.sii, solver.iterations, solver.shift)
        if len(points) > 0:
            inputs = (points, weights, projections, centre, scale, start)
            _run("forward", inputs, (*settings, solver.min_precision), (out, valid))
        ctx.save_for_backward(points, weights, projections, scale, start, valid)
        ctx.settings = settings
        ctx.mark_non_differentiable(valid)
        return out, valid

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        points, weights, projections, scale, start, valid = ctx.saved_tensors
        d_points, d_weights = torch.empty_like(points), torch.empty_like(weights)
        if len(points) > 0:
            inputs = (points, weights, projections, scale, start)
            _run("backward", inputs, ctx.settings, (valid, grads[0].contiguous(), d_points, d_weights))
        return d_points, d_weights if weights.numel() > 0 else None, None, None, None, None, None


def _run(name: str, inputs: tuple[Tensor, ...], settings: tuple, outputs: tuple[Tensor, ...]) -> None:
    """Call one kernel of the module for this device; importing it here keeps numba and Triton out of start-up."""
    if inputs[0].device.type == "cuda":
        kernels = _cuda_kernels()
        with torch.cuda.device(inputs[0].device):
            getattr(kernels, name)(*inputs, *settings, *outputs)
        return
    from mvpose.geometry.kernels import cpu

    arrays = [tensor.numpy() for tensor in inputs], [tensor.numpy() for tensor in outputs]
    cpu.run_threaded(getattr(cpu, name), len(inputs[0]), torch.get_num_threads(), *arrays[0], *settings, *arrays[1])


def _cuda_kernels() -> ModuleType:
    try:
        from mvpose.geometry.kernels import cuda
    except ImportError as error:
        raise ImportError(
            "the fused DLT kernel for CUDA needs Triton, which is not installed: install triton, or use the slower "
            "engine=Engine.TORCH"
        ) from error
    return cuda
