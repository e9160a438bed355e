"""Runs the detector's networks: ONNX Runtime in float32 and on GPUs, OpenVINO in bfloat16.

On one core of a CPU with AVX-512 BF16, both take 14.4 ms for a crop of RTMPose-s and 66 to 69 ms for an image of
YOLOX-tiny in float32; in bfloat16, OpenVINO takes 7.7 and 37 ms. ONNX Runtime has no bfloat16 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import UInt8
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mvpose.errors import ConfigError
from mvpose.models.detection.cards import ModelCard
from mvpose.models.detection.detector_settings import DetectorConfig, Precision

if TYPE_CHECKING:
    import openvino

Network = Callable[[UInt8[np.ndarray, "N h w 3"] | UInt8[Tensor, "N h w 3"]], list[np.ndarray]]
"""RGB images of the card's size, in the host's memory or on the network's device, to the outputs of the graph."""

FEW = 4
"""Images per call of a graph of fixed shape. By 4, RTMPose-s takes 1 % longer for a crop than by 16, and by 1, 11 %."""


def with_precision(config: DetectorConfig) -> DetectorConfig:
    """The settings with a precision that says which bytes result: for `auto` and `bfloat16`, that of this machine.

    ConfigError if this machine or the device cannot do it.
    """
    if config.device == "cuda":
        if config.precision not in {"auto", "float32", "float16"}:
            raise ConfigError(
                f"detector.precision {config.precision} is for the CPU: on CUDA, use float32 (the default) or float16."
            )
        return config if config.precision == "float16" else replace(config, precision="float32")
    if config.precision == "float16":
        raise ConfigError("detector.precision float16 is for CUDA: on the CPU, use bfloat16 or float32.")
    own = own_bfloat16()
    if config.precision == "auto":
        return replace(config, precision=own or "float32")
    if config.precision == "bfloat16" and own:
        return replace(config, precision=own)
    if config.precision not in {"float32", own}:
        has = f"{own}: use it, or float32 on all" if own else "no bfloat16: use float32"
        raise ConfigError(f"detector.precision is {config.precision}, but the CPU of this machine has {has}.")
    return config


@cache
def own_bfloat16() -> Precision | None:
    """The kind of bfloat16 arithmetic of this machine's CPU. AMX adds in another order than AVX-512."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return None
    return "bfloat16_amx" if "amx_bf16" in flags else "bfloat16_avx512" if "avx512_bf16" in flags else None


def runs_on_cuda() -> bool:
    """Whether this ONNX Runtime was built for CUDA."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def load_network(graph: onnx.ModelProto, card: ModelCard, config: DetectorConfig) -> Network:
    """The network of a card on the requested device in the requested precision, never another without a word.

    Colour order, mean and scale of the card become part of the graph, which then takes bytes. ConfigError if it cannot.
    """
    config = with_precision(config)
    if config.precision == "float16":
        graph = in_half_precision(graph)
    _take_images(graph, card)
    if config.device == "cuda":
        return bound(_session(graph, config), torch.device("cuda"), config.batch_size)
    if config.precision == "float32":
        session = _session(graph, config)
        return lambda images: [np.asarray(output) for output in session.run(None, {"images": np.asarray(images)})]
    return _in_bfloat16(graph, card, config.threads)


def in_half_precision(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float16 between an input and outputs in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(graph, keep_io_types=True)


def _take_images(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put before the graph's input what turns (N, h, w, 3) bytes of RGB into it."""
    inner = graph.graph.input[0].name
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", ["images"], {"to": TensorProto.FLOAT})]
    if card.colour_order == "bgr":
        graph.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "images_order"))
        steps.append(("Gather", ["images_order"], {"axis": 3}))
    for operation, values in (("Sub", card.mean), ("Div", card.std)):
        name = f"images_{operation}"
        graph.graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), name))
        steps.append((operation, [name], {}))
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    before, nodes = [], []
    for i, (operation, inputs, settings) in enumerate(steps):
        output = inner if i == len(steps) - 1 else f"images_{i}"
        nodes.append(helper.make_node(operation, before + inputs, [output], **settings))
        before = [output]
    first = graph.graph.input[0].type.tensor_type.shape.dim[0]
    number = first.dim_value or first.dim_param or "number"
    width, height = card.input_size
    del graph.graph.input[0]
    graph.graph.input.insert(0, helper.make_tensor_value_info("images", TensorProto.UINT8, [number, height, width, 3]))
    rest = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *rest])


def _session(graph: onnx.ModelProto, config: DetectorConfig) -> onnxruntime.InferenceSession:
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[config.device or "cpu"]
    advice = "install onnxruntime-gpu instead of onnxruntime, with its CUDA and cuDNN libraries, or set device to cpu"
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"device {config.device} was requested, but this ONNX Runtime is built without it: {advice}")
    if config.device == "cuda":
        onnxruntime.preload_dlls()  # CUDA and cuDNN as pip has installed them are not found otherwise
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=[provider])
    if provider not in session.get_providers():
        raise ConfigError(f"device {config.device} was requested, but ONNX Runtime could not start it: {advice}")
    return session


def bound(session: onnxruntime.InferenceSession, device: torch.device, batch: int) -> Network:
    """A network that reads images where they are, `batch` at a time: cuDNN looks for the best way for each new number.

    The last images of a call are filled up with black ones.
    """
    outputs = [output.name for output in session.get_outputs()]
    fixed = session.get_inputs()[0].shape[0]
    batch = fixed if isinstance(fixed, int) else batch

    def some(images: UInt8[Tensor, "n h w 3"]) -> list[np.ndarray]:
        filled = torch.zeros((batch, *images.shape[1:]), dtype=torch.uint8, device=device)
        filled[: len(images)] = images
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()  # ONNX Runtime works in a stream of its own
        binding = session.io_binding()
        binding.bind_input("images", device.type, 0, np.uint8, tuple(filled.shape), filled.data_ptr())
        for name in outputs:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return [output[: len(images)] for output in binding.copy_outputs_to_cpu()]

    def run(images: UInt8[np.ndarray, "N h w 3"] | UInt8[Tensor, "N h w 3"]) -> list[np.ndarray]:
        there = torch.as_tensor(images).to(device)
        parts = [some(there[start : start + batch]) for start in range(0, len(there), batch)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return run


def _in_bfloat16(graph: onnx.ModelProto, card: ModelCard, threads: int) -> Network:
    """Graphs with fixed numbers of images, since with a free number the bits of an image depend on the others."""
    import openvino

    core, one_at_a_time = openvino.Core(), Lock()
    width, height = card.input_size
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
    }  # fmt: skip

    @cache
    def request(number: int) -> openvino.InferRequest:
        model = core.read_model(graph.SerializeToString())
        model.reshape([number, height, width, 3])
        return core.compile_model(model, "CPU", settings).create_infer_request()

    def run(images: UInt8[np.ndarray, "N h w 3"] | UInt8[Tensor, "N h w 3"]) -> list[np.ndarray]:
        images = np.asarray(images)
        few = len(images) // FEW * FEW
        starts = [*((i, FEW) for i in range(0, few, FEW)), *((i, 1) for i in range(few, len(images)))]
        # The request writes into the same memory each time, so what is kept is copied.
        with one_at_a_time:
            parts = [[*request(n).infer(images[i : i + n]).to_tuple()] for i, n in starts]
            return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return run
