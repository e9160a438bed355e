"""The networks' arithmetic: what is put before a graph, and which precision runs where."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mvpose.errors import ConfigError
from mvpose.models.detection import runtime
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.detection.detector import detector_digest
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.runtime import (
    FEW,
    bound,
    in_half_precision,
    load_network,
    own_bfloat16,
    with_precision,
)

CARD = replace(read_card("rtmpose_s_halpe26"), input_size=(1, 1), mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
FLOAT32 = DetectorConfig(precision="float32")
needs_bfloat16 = pytest.mark.skipif(own_bfloat16() is None, reason="this CPU has no bfloat16")


def as_it_is() -> onnx.ModelProto:
    """A graph that returns its input."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "toy", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(("order", "expected"), [("rgb", [5, 5, 3.75]), ("bgr", [16, 5, 1])])
def test_images_are_normalised_in_the_order_of_the_card(order, expected):
    run = load_network(as_it_is(), replace(CARD, colour_order=order), FLOAT32)
    (output,) = run(np.array([[[[11, 22, 33]]]], dtype=np.uint8))
    assert output.shape == (1, 3, 1, 1) and output.ravel().tolist() == expected


def test_rows_stay_rows_and_columns_columns():
    # Fails if the graph takes (N, w, h, 3).
    run = load_network(as_it_is(), replace(CARD, input_size=(2, 3), mean=(0.0,) * 3, std=(1.0,) * 3), FLOAT32)
    images = np.arange(18, dtype=np.uint8).reshape(1, 3, 2, 3)
    np.testing.assert_array_equal(run(images)[0], images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("own", "asked", "meant"),
    [
        (None, "auto", "float32"),
        ("bfloat16_amx", "auto", "bfloat16_amx"),
        ("bfloat16_avx512", "bfloat16", "bfloat16_avx512"),
        ("bfloat16_amx", "float32", "float32"),
    ],
)
def test_what_a_precision_means_is_decided_by_the_machine_that_plans(own, asked, meant, monkeypatch):
    monkeypatch.setattr(runtime, "own_bfloat16", lambda: own)
    assert with_precision(DetectorConfig(precision=asked)).precision == meant


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        (None, "bfloat16", "has no bfloat16: use float32"),
        ("bfloat16_avx512", "bfloat16_amx", "has bfloat16_avx512: use it, or float32 on all"),
    ],
)
def test_a_machine_that_cannot_do_it_refuses(own, asked, said, monkeypatch):
    # Fails if a worker of another kind than the planning machine computes other bytes without a word.
    monkeypatch.setattr(runtime, "own_bfloat16", lambda: own)
    with pytest.raises(ConfigError, match=said):
        load_network(as_it_is(), CARD, DetectorConfig(precision=asked))


def test_the_digest_tells_precisions_apart(monkeypatch):
    digests = set()
    for own in (None, "bfloat16_avx512", "bfloat16_amx"):
        monkeypatch.setattr(runtime, "own_bfloat16", lambda own=own: own)
        digests.add(detector_digest(DetectorConfig()))
    assert len(digests) == 3 and detector_digest(FLOAT32) in digests


def test_bfloat16_is_for_the_cpu():
    with pytest.raises(ConfigError, match="on CUDA"):
        with_precision(DetectorConfig(device="cuda", precision="bfloat16"))
    assert with_precision(DetectorConfig(device="cuda")).precision == "float32"


@needs_bfloat16
def test_an_image_has_the_same_bits_in_any_company(weights, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    card = read_card("rtmpose_s_halpe26")
    images = np.random.default_rng(0).integers(0, 255, (FEW + 1, 256, 192, 3), dtype=np.uint8)
    run = load_network(onnx.load(locate(card)), card, DetectorConfig(precision="bfloat16"))
    together = run(images)
    for threads in (1, 2):
        other = load_network(onnx.load(locate(card)), card, DetectorConfig(precision="bfloat16", threads=threads))
        for some in (slice(1, 2), slice(0, 3), slice(1, FEW + 1)):
            for whole, part in zip(together, other(np.ascontiguousarray(images[some])), strict=True):
                np.testing.assert_array_equal(part, whole[some])


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_bound_network_answers_for_every_image_whatever_fills_its_batches(number):
    """On CPU tensors, as on a GPU. Fails if the last batch is cut off, or black images are returned."""
    graph = as_it_is()
    runtime._take_images(graph, replace(CARD, input_size=(2, 3), mean=(0.0,) * 3, std=(1.0,) * 3))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    images = torch.arange(1, number * 18 + 1, dtype=torch.uint8).reshape(number, 3, 2, 3)
    (output,) = bound(session, torch.device("cpu"), 4)(images)
    np.testing.assert_array_equal(output, images.permute(0, 3, 1, 2).numpy())


def test_half_precision_finds_the_same_joints(weights):
    # Between the same input and outputs; fails if scores overflow or the graph stays in float32.
    card = read_card("rtmpose_s_halpe26")
    half = in_half_precision(onnx.load(locate(card)))
    assert {i.data_type for i in half.graph.initializer if len(i.dims) > 1} == {TensorProto.FLOAT16}
    images = np.random.default_rng(0).normal(size=(2, 3, 256, 192)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(g.SerializeToString()).run(None, {"input": images})
        for g in (onnx.load(locate(card)), half)
    )
    for x, y in zip(before, after, strict=True):
        np.testing.assert_allclose(x, y, atol=0.02)


def test_half_precision_is_for_gpus_and_chosen_there_by_name_alone():
    with pytest.raises(ConfigError, match="float16 is for CUDA"):
        with_precision(DetectorConfig(precision="float16"))
    assert with_precision(DetectorConfig(precision="float16", device="cuda")).precision == "float16"
    assert with_precision(DetectorConfig(device="cuda")).precision == "float32"
