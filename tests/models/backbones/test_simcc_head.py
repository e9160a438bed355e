import os

import numpy as np
import onnxruntime
import pytest
import torch

from mvpose.errors import WeightsError
from mvpose.models.backbones.cspnext import cspnext_from_rtmpose
from mvpose.models.backbones.simcc_head import SimCCHead, simcc_head_from_rtmpose

RTMPOSE = "rtmpose-s_simcc-body7_pt-body7-halpe26_700e-256x192-7f134165_20230605.onnx"


def test_backbone_and_head_equal_onnx_runtime(weights: str) -> None:
    path = os.path.join(weights, RTMPOSE)
    crops = torch.randn((3, 3, 256, 192), generator=torch.Generator().manual_seed(0))
    expected = onnxruntime.InferenceSession(path).run(None, {"input": crops.numpy()})
    with torch.no_grad():
        found = simcc_head_from_rtmpose(path).eval()(cspnext_from_rtmpose(path).eval()(crops))
    for theirs, ours in zip(expected, found, strict=True):
        assert np.abs(theirs - ours.numpy()).max() < 1e-4 < np.abs(theirs).max()


def test_another_network_has_no_such_head(weights: str) -> None:
    with pytest.raises(WeightsError, match="does not have the head"):
        simcc_head_from_rtmpose(os.path.join(weights, "yolox_tiny_8xb8-300e_humanart-6f3252f9.onnx"))


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    head = SimCCHead(8, 5, (64, 96), width=16)
    columns, rows = head(torch.randn(2, 8, 3, 2))
    assert columns.shape == (2, 5, 128) and rows.shape == (2, 5, 192)
    (columns.square().sum() + rows.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.parameters())
