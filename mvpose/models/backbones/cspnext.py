"""CSPNeXt-s, the backbone of RTMPose-s (Jiang et al. 2023), with weights read from its ONNX file.

The file was exported with batch norms folded into the convolutions, so this module has none. It trains with any batch
size and has no statistics to freeze. Input is RGB normalised by ImageNet's mean and deviation.
"""

from __future__ import annotations

import os

import onnx
import torch
from google.protobuf.message import DecodeError
from jaxtyping import Float
from onnx import numpy_helper
from torch import Tensor, nn

from mvpose.errors import WeightsError
from mvpose.models.backbones.simple_baselines import Backbone

WIDTHS = (64, 128, 256, 512)
DEPTHS = (1, 2, 2, 1)


class ConvSiLU(nn.Conv2d):
    """A convolution that keeps the size (at stride 1), then SiLU."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, width, kernel, stride, kernel // 2, groups=groups)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        """The convolution, then SiLU."""
        return nn.functional.silu(super().forward(input))


class CspBlock(nn.Module):
    """3x3 convolution, then 5x5 depthwise and 1x1, with an optional skip."""

    def __init__(self, width: int, skip: bool) -> None:
        super().__init__()
        self.conv1 = ConvSiLU(width, width, 3)
        self.depthwise = ConvSiLU(width, width, 5, groups=width)
        self.pointwise = ConvSiLU(width, width, 1)
        self.skip = skip

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return features of the same shape."""
        inner = self.pointwise(self.depthwise(self.conv1(x)))
        return inner + x if self.skip else inner


class CrossStage(nn.Module):
    """Half the channels pass through the blocks, half bypass them; a channel attention weights both."""

    def __init__(self, channels: int, width: int, depth: int, skip: bool) -> None:
        super().__init__()
        self.short = ConvSiLU(channels, width // 2, 1)
        self.main = ConvSiLU(channels, width // 2, 1)
        self.blocks = nn.Sequential(*(CspBlock(width // 2, skip) for _ in range(depth)))
        self.attention = nn.Conv2d(width, width, 1)
        self.final = ConvSiLU(width, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Return features of this stage's width."""
        both = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        weight = nn.functional.hardsigmoid(self.attention(both.mean(dim=(-2, -1), keepdim=True)))
        return self.final(both * weight)


class PyramidPooling(nn.Module):
    """Maxima over 5x5, 9x9 and 13x13 neighbourhoods, concatenated with the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvSiLU(channels, channels // 2, 1)
        self.expand = ConvSiLU(channels * 2, channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return features of the same shape."""
        x = self.reduce(x)
        pooled = [nn.functional.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13)]
        return self.expand(torch.cat([x, *pooled], dim=1))


class CSPNeXt(Backbone):
    """Three stem convolutions and four stages; the defaults are CSPNeXt-s. Images' sides are multiples of 32."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = nn.Sequential(
            ConvSiLU(3, half // 2, 3, 2), ConvSiLU(half // 2, half // 2, 3), ConvSiLU(half // 2, half, 3)
        )
        stages = []
        channels = half
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            last = i == len(widths) - 1
            layers: list[nn.Module] = [ConvSiLU(channels, width, 3, 2)]
            layers += [PyramidPooling(width)] if last else []
            stages.append(nn.Sequential(*layers, CrossStage(width, width, depth, skip=not last)))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.channels = channels

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Map normalised images to features at 1/32 of their size."""
        return self.stages(self.stem(images))


def cspnext_from_rtmpose(path: str) -> CSPNeXt:
    """CSPNeXt-s with the weights of a local RTMPose-s ONNX file.

    The graph's convolutions have the execution order of this module, except that the file computes a stage's short
    branch before its main one; `CrossStage` declares them in that order. Every shape must match; layers after the
    backbone (the SimCC head) are ignored. WeightsError if the file is missing or contains another network.
    """
    network = CSPNeXt()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    stored = _convolutions(path)[: len(convolutions)]
    wanted = [tuple(c.weight.shape) for c in convolutions]
    found = [tuple(weight.shape) for weight, _ in stored]
    if found != wanted:
        where = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(found))
        raise WeightsError(f"{path} is not an RTMPose-s: its convolution {where} does not fit CSPNeXt-s")
    with torch.no_grad():
        for module, (weight, bias) in zip(convolutions, stored, strict=True):
            module.weight.copy_(weight)
            assert module.bias is not None
            module.bias.copy_(bias)
    return network


def read_graph(path: str) -> onnx.GraphProto:
    """Read the graph of a local ONNX file; WeightsError if there is none."""
    if not os.path.isfile(path):
        raise WeightsError(f"no ONNX file at {path}")
    try:
        return onnx.load(path).graph
    except DecodeError as error:
        raise WeightsError(f"{path} is not an ONNX file: {error}") from error


def _convolutions(path: str) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution of an ONNX file, in the graph's order."""
    graph = read_graph(path)
    tensors = {entry.name: entry for entry in graph.initializer}
    names = [node.input[1:3] for node in graph.node if node.op_type == "Conv"]
    return [
        (torch.tensor(numpy_helper.to_array(tensors[w])), torch.tensor(numpy_helper.to_array(tensors[b])))
        for w, b in names
    ]
