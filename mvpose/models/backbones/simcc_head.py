"""RTMPose's head as a PyTorch module: features to one score per joint and column or row of the crop.

Jiang et al. 2023, section 3: a 7x7 convolution to one map per joint, each map flattened and embedded, one gated
attention unit (Hua et al. 2022) among the joints, and two linear layers that classify columns and rows (SimCC).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from onnx import GraphProto, numpy_helper
from torch import Tensor, nn

from mvpose.errors import WeightsError
from mvpose.models.backbones.cspnext import read_graph

BINS_PER_PIXEL = 2
_STRIDE = 32


class ScaleNorm(nn.Module):
    """A vector scaled to length g sqrt(d) (Nguyen and Salazar 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))
        self.share = width**-0.5

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return vectors of the same direction, length g sqrt(d)."""
        return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.share).clamp_min(1e-5) * self.g


class GatedAttention(nn.Module):
    """Joints attend to each other by squared, rectified products of shared queries and keys; a gate per channel."""

    def __init__(self, width: int, inner: int, key: int) -> None:
        super().__init__()
        self.ln = ScaleNorm(width)
        self.uv = nn.Linear(width, 2 * inner + key, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, key))
        self.beta = nn.Parameter(torch.rand(2, key))
        self.o = nn.Linear(inner, width, bias=False)
        self.scale = nn.Parameter(torch.ones(width))
        self.split = (inner, inner, key)

    def forward(self, x: Float[Tensor, "n J d"]) -> Float[Tensor, "n J d"]:
        """Mix joint tokens, with a scaled skip."""
        u, v, shared = nn.functional.silu(self.uv(self.ln(x))).split(self.split, dim=-1)
        query, key = (shared[..., None, :] * self.gamma + self.beta).unbind(dim=-2)
        kernel = torch.relu(query @ key.transpose(-1, -2) / self.split[2] ** 0.5).square()
        return x * self.scale + self.o(u * (kernel @ v))


class SimCCHead(nn.Module):
    """Scores of columns and rows; those of a trained head are Gaussians of height about 1 at the joint."""

    def __init__(self, channels: int, num_joints: int, size: tuple[int, int], width: int = 256) -> None:
        super().__init__()
        self.size = size
        """(width, height) of the crops in pixels; the head supports no other size."""
        self.width = width
        self.final_layer = nn.Conv2d(channels, num_joints, 7, 1, 3)
        self.norm = ScaleNorm(size[0] // _STRIDE * (size[1] // _STRIDE))
        self.embed = nn.Linear(size[0] // _STRIDE * (size[1] // _STRIDE), width, bias=False)
        self.gau = GatedAttention(width, 2 * width, width // 2)
        self.cls_x = nn.Linear(width, size[0] * BINS_PER_PIXEL, bias=False)
        self.cls_y = nn.Linear(width, size[1] * BINS_PER_PIXEL, bias=False)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n J X"], Float[Tensor, "n J Y"]]:
        """Bin i of an axis is at i / `BINS_PER_PIXEL` pixels of the crop."""
        return self.classified(self.tokens(features))

    def tokens(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n J d"]:
        """One token per joint, which encodes its possible positions."""
        return self.gau(self.embed(self.norm(self.final_layer(features).flatten(2))))

    def classified(self, tokens: Float[Tensor, "*n J d"]) -> tuple[Float[Tensor, "*n J X"], Float[Tensor, "*n J Y"]]:
        """Scores of columns and rows."""
        return self.cls_x(tokens), self.cls_y(tokens)


def simcc_head_from_rtmpose(path: str) -> SimCCHead:
    """The head of a local RTMPose-s ONNX file; WeightsError if the file is missing or contains another network."""
    graph = read_graph(path)
    stored = {entry.name: torch.tensor(numpy_helper.to_array(entry)) for entry in graph.initializer}
    try:
        state = _state(graph, stored)
        num_joints, channels = state["final_layer.weight"].shape[:2]
        size = (len(state["cls_x.weight"]) // BINS_PER_PIXEL, len(state["cls_y.weight"]) // BINS_PER_PIXEL)
        head = SimCCHead(channels, num_joints, size, width=len(state["embed.weight"]))
        head.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} does not have the head of RTMPose-s: {error}") from error
    return head


def _state(graph: GraphProto, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of `SimCCHead`. Linear layers have no names in the file and are in graph order."""
    products = [node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored]
    embed, uv, o, cls_x, cls_y = (stored[name].T for name in products)
    (gamma,) = (t for t in stored.values() if t.ndim == 4 and t.shape[:3] == (1, 1, 2))
    return {
        "final_layer.weight": stored["head.final_layer.weight"],
        "final_layer.bias": stored["head.final_layer.bias"],
        "norm.g": stored["head.mlp.0.g"],
        "embed.weight": embed,
        "gau.ln.g": stored["head.gau.ln.g"],
        "gau.uv.weight": uv,
        "gau.gamma": gamma[0, 0],
        "gau.beta": stored["head.gau.beta"],
        "gau.o.weight": o,
        "gau.scale": stored["head.gau.res_scale.scale"],
        "cls_x.weight": cls_x,
        "cls_y.weight": cls_y,
    }
