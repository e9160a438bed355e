import os

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mvpose.errors import WeightsError
from mvpose.models.backbones.cspnext import CSPNeXt, cspnext_from_rtmpose

RTMPOSE = "rtmpose-s_simcc-body7_pt-body7-halpe26_700e-256x192-7f134165_20230605.onnx"
LAST_FEATURES = "439"


def image_crops(folder: str) -> np.ndarray:
    """Two crops (2 3 256 192) of each camera's tenth frame, normalised as RTMPose wants them."""
    crops = []
    videos = os.path.join(folder, "Demo_SinglePerson", "videos")
    for name in sorted(os.listdir(videos)):
        capture = cv2.VideoCapture(os.path.join(videos, name))
        capture.set(cv2.CAP_PROP_POS_FRAMES, 10)
        read, frame = capture.read()
        assert read
        for top, left, height in ((500, 250, 800), (600, 100, 1000)):
            crop = cv2.resize(frame[top : top + height, left : left + height * 3 // 4], (192, 256))
            crops.append((crop[..., ::-1] / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225))
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), dtype=np.float32)


def test_cspnext_equals_onnx_runtime_on_real_crops(footage, weights):
    path = os.path.join(weights, RTMPOSE)
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(LAST_FEATURES))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    crops = image_crops(footage)
    expected = session.run([LAST_FEATURES], {"input": crops})[0]
    with torch.no_grad():
        found = cspnext_from_rtmpose(path).eval()(torch.from_numpy(crops)).numpy()
    assert expected.shape == found.shape == (8, 512, 8, 6)
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-4


def test_another_onnx_file_is_refused(weights, tmp_path):
    with pytest.raises(WeightsError, match="convolution 0"):
        cspnext_from_rtmpose(os.path.join(weights, "yolox_tiny_8xb8-300e_humanart-6f3252f9.onnx"))
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(WeightsError, match="not an ONNX file"):
        cspnext_from_rtmpose(str(tmp_path / "text.onnx"))
    with pytest.raises(WeightsError, match="no ONNX file"):
        cspnext_from_rtmpose(str(tmp_path / "absent.onnx"))


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = CSPNeXt(widths=(8, 16, 16, 16), depths=(1, 1, 1, 1))
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_a_frozen_network_does_not_train_until_it_is_thawed():
    network = CSPNeXt(widths=(8, 16, 16, 16), depths=(1, 1, 1, 1)).freeze()
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.train().training
    assert network.freeze(False).training
    assert all(p.requires_grad for p in network.parameters())
