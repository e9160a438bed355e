"""ONNX export of a trained method, from crops and cameras to joints in the world."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mvpose.config import structure
from mvpose.errors import ConfigError
from mvpose.geometry.triangulation import DltMethod
from mvpose.models.method import build_method
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.network_settings import FieldsMethod, Method, TokenMethod
from mvpose.models.pictorial_step import PictorialStep
from mvpose.models.saved import SavedModel

INPUTS = ("crops", "projections", "present")
OUTPUTS = ("joints", "valid", "confidence", "joints_2d", "confidence_2d")


def export_model(model: SavedModel, views: int | None, path: str) -> None:
    """Write a trained model to a local .onnx file, for `views` views, or for any number (None).

    It triangulates by normal equations, the only solver with ONNX operators: on joints that agree, the same point to a
    fraction of a millimetre. ConfigError if the model does not take that many views, or takes tokens and not images.
    """
    rule = model.rule
    if isinstance(model.config, TokenMethod):
        raise ConfigError("this model takes tokens of the detector, not images: it has no export to ONNX.")
    if isinstance(model.config, FieldsMethod):
        raise ConfigError(
            "this model finds people bottom-up: its export to ONNX, which answers for one, does not exist."
        )
    views = views or rule.max_views
    if views is not None:
        rule.require_views(views)
    network = build_method(_by_normal_equations(model.config), pretrained=False)
    trained = model.network.method if isinstance(model.network, PictorialStep) else model.network
    network.load_state_dict(trained.state_dict())
    export_onnx(network.eval(), views or 4, rule.crop.size, path, any_views=views is None)


def _by_normal_equations(config: Method) -> Method:
    def changed(values: Any, *, decoding: bool = False) -> Any:
        if not isinstance(values, dict):
            return values
        made = {key: changed(value, decoding=key == "decoding") for key, value in values.items()}
        return made | {"solver": str(DltMethod.NORMAL.value)} if decoding else made

    return structure(changed(asdict(config)), Method, "method")


def export_onnx(method: nn.Module, views: int, size: tuple[int, int], path: str, *, any_views: bool) -> None:
    """Write `method` for crops of (width, height) `size` to a local .onnx file.

    The file takes `INPUTS` (float crops in 0..1) and returns `OUTPUTS`, named as in `MultiViewPrediction`. The batch
    size is dynamic. With `any_views` so is the number of views, which a method with concatenation or consensus does not
    support. The method must triangulate by normal equations, the only solver with ONNX operators, and should
    be in evaluation mode. ConfigError for PSM and RPSM, which have none.
    """
    if isinstance(method, PictorialStep):
        raise ConfigError("PSM and RPSM cannot be exported to ONNX: export the model with another 3D step, dlt.")
    axes: dict[int, Any] = {0: torch.export.Dim("batch", max=4096)}
    if any_views:
        axes[1] = torch.export.Dim("views", min=2, max=64)
    width, height = size
    crops, cameras = torch.rand(2, views, 3, height, width), torch.eye(3, 4).expand(2, views, 3, 4).contiguous()
    example = crops, cameras, torch.ones(2, views, dtype=torch.bool)
    program = torch.export.export(_Named(method), example, dynamic_shapes=(axes,) * 3, strict=False)
    exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=INPUTS, output_names=OUTPUTS)
    assert exported is not None
    exported.save(path)


class _Named(nn.Module):
    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, crops: Tensor, projections: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        answer: MultiViewPrediction = self.method(crops, projections, present)
        return tuple(getattr(answer, name) for name in OUTPUTS)
