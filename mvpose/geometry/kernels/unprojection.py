"""Unprojection as one differentiable function over its kernels; the device of the features selects the kernel."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry import Aggregation

# Numbering used by the kernels; a sum weights every view by 1.
KINDS: dict[Aggregation, int] = {"softmax": 0, "max": 1, "sum": 2, "conf": 2, "conf_norm": 3}


def unproject(
    features: Float[Tensor, "B V c h w"],
    matrices: Float[Tensor, "B V 3 4"],
    present: Bool[Tensor, "B V"],
    count: int,
    aggregation: Aggregation,
    weights: Float[Tensor, "B V c"] | None = None,
) -> Float[Tensor, "B c n n n"]:
    """Volumes of count^3 voxels in float32, channels last in memory; gradients reach features and weights.

    `matrices` map (i, j, k, 1) of a voxel to homogeneous image coordinates, -1..1 over the image, with the depth in
    metres as the third. Raises ImportError on CUDA if Triton is missing.
    """
    height, width = features.shape[3:]
    to_pixels = matrices.new_tensor([width / 2, height / 2, 1.0], dtype=torch.float64)
    pixels = (matrices.detach().double() * to_pixels[:, None]).contiguous()
    if not aggregation.startswith("conf"):
        weights = features.new_ones(features.shape[:3], dtype=torch.float32)
    assert weights is not None
    flat = _Unprojection.apply(features, weights.float(), pixels, present.contiguous(), count, KINDS[aggregation])
    return flat.unflatten(1, (count,) * 3).permute(0, 4, 1, 2, 3)


class _Unprojection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weights: Tensor, matrices: Tensor, present: Tensor, count: int, kind: int
    ) -> Tensor:
        framed = _with_border(features.detach())
        inputs = (framed, weights.detach().contiguous(), present, matrices)
        settings = (features.shape[3], features.shape[4], count, kind)
        out = framed.new_empty(len(features), count**3, features.shape[2])
        if out.numel() > 0:
            _run("forward", inputs, settings, (out,))
        ctx.save_for_backward(*inputs)
        ctx.settings, ctx.dtype = settings, features.dtype
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        framed, weights = ctx.saved_tensors[:2]
        d_framed, d_weights = torch.zeros_like(framed), torch.zeros_like(weights)
        if grads[0].numel() > 0:
            inputs = (*ctx.saved_tensors, grads[0].float().contiguous())
            _run("backward", inputs, ctx.settings, (d_framed, d_weights))
        height, width = ctx.settings[:2]
        d_features = d_framed.unflatten(2, (height + 2, width + 2))[:, :, 1:-1, 1:-1].permute(0, 1, 4, 2, 3)
        return d_features.to(ctx.dtype), d_weights, None, None, None, None


def _with_border(features: Float[Tensor, "B V c h w"]) -> Float[Tensor, "B V P c"]:
    """Channels last with a border of zeros one pixel wide, so that no kernel has to check whether a tap is inside."""
    batch, views, channels, height, width = features.shape
    framed = features.new_empty(batch, views, height + 2, width + 2, channels, dtype=torch.float32)
    framed[:, :, 1:-1, 1:-1] = features.permute(0, 1, 3, 4, 2)
    for edge in (0, -1):
        framed[:, :, edge] = 0.0
        framed[:, :, :, edge] = 0.0
    return framed.flatten(2, 3)


def _run(name: str, inputs: tuple[Tensor, ...], settings: tuple[int, ...], outputs: tuple[Tensor, ...]) -> None:
    """Call one kernel of the module for this device; importing it here keeps numba and Triton out of start-up."""
    if inputs[0].device.type == "cuda":
        kernels = _cuda_kernels()
        with torch.cuda.device(inputs[0].device):
            getattr(kernels, name)(*inputs, *settings, *outputs)
        return
    from mvpose.geometry.kernels import unprojection_cpu
    from mvpose.geometry.kernels.cpu import POINTS_PER_THREAD, run_threaded

    arrays = [tensor.numpy() for tensor in inputs], [tensor.numpy() for tensor in outputs]
    # Voxels are distributed, or whole samples if threads would add to the same gradients.
    whole = name == "backward"
    items = len(inputs[0]) if whole else outputs[0].shape[:2].numel()
    minimum = 1 if whole else POINTS_PER_THREAD
    kernel, threads = getattr(unprojection_cpu, name), torch.get_num_threads()
    run_threaded(kernel, items, threads, *arrays[0], *settings, *arrays[1], minimum=minimum)


def _cuda_kernels() -> ModuleType:
    try:
        from mvpose.geometry.kernels import unprojection_cuda
    except ImportError as error:
        raise ImportError(
            "the fused unprojection for CUDA needs Triton, which is not installed: install triton, or use the "
            "slower engine=Engine.TORCH"
        ) from error
    return unprojection_cuda
