"""Boxes of people in images: the network behind every look.

YOLOX (Ge et al., "YOLOX: Exceeding YOLO Series in 2021") ends in one box and one score per place and class; of boxes
that overlap, the best is kept. Exported graphs do the latter for one image; here the graph ends before it, so that it
takes any number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from jaxtyping import Float
from onnx import numpy_helper

from mvpose.device_images import AnyImage
from mvpose.models.detection.cards import ModelCard, locate
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.person_boxes import PersonBoxes, best, from_letterbox, letterboxed, overlap
from mvpose.models.detection.runtime import load_network

PERSON = 0
"""The class of people, first in COCO's list."""


@dataclass(frozen=True)
class Suppression:
    """The rule by which a graph chooses among boxes that overlap, and the boxes and scores that it chooses from."""

    boxes: str
    scores: str
    max_overlap: float
    """Intersection over union."""


class PersonNetwork:
    """A box network. ConfigError if the device or precision is unavailable, WeightsError if the file is missing.

    A graph without `NonMaxSuppression` gives (1, n, 5) final boxes with scores, and takes one image at a time.
    """

    def __init__(self, card: ModelCard, config: DetectorConfig) -> None:
        self._card, self._config = card, config
        graph = onnx.load(locate(card))
        self._rule = suppression(graph)
        self._network = load_network(before(graph, self._rule) if self._rule else graph, card, config)

    def __call__(self, images: Sequence[AnyImage]) -> list[PersonBoxes]:
        """The boxes in each image."""
        if not images:
            return []
        canvases, scales = letterboxed(images, self._card.input_size)
        if self._rule is None:
            each = [self._network(canvases[i : i + 1])[0][0] for i in range(len(images))]
            found = [PersonBoxes(rows[:, :4].astype(np.float64), rows[:, 4]) for rows in each]
        else:
            boxes, scores = self._network(canvases)
            found = [self._kept(*rows, self._rule) for rows in zip(boxes, scores[..., PERSON], strict=True)]
        limits = self._config.min_box_score, self._config.max_boxes
        return [
            best(PersonBoxes(from_letterbox(own.box, scale), own.score.astype(np.float64)), *limits)
            for own, scale in zip(found, scales, strict=True)
        ]

    def _kept(self, box: Float[np.ndarray, "n 4"], score: Float[np.ndarray, " n"], rule: Suppression) -> PersonBoxes:
        sure = score >= self._config.min_box_score
        return best_of_overlapping(PersonBoxes(box[sure].astype(np.float64), score[sure]), rule.max_overlap)


def best_of_overlapping(boxes: PersonBoxes, max_overlap: float) -> PersonBoxes:
    """The boxes, best first, that overlap no better one by more than `max_overlap` (intersection over union)."""
    order = np.argsort(-boxes.score, kind="stable")
    box, score = boxes.box[order], boxes.score[order]
    too_near = overlap(box, box) > max_overlap
    kept = np.zeros(len(score), bool)
    for i in range(len(score)):
        kept[i] = not (kept[:i] & too_near[i, :i]).any()
    return PersonBoxes(box[kept], score[kept])


def suppression(graph: onnx.ModelProto) -> Suppression | None:
    """The last step of an exported YOLOX, which takes the best-scored places, then the best of those that overlap."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    steps = [node for node in graph.graph.node if node.op_type == "NonMaxSuppression"]
    if len(steps) != 1:
        return None
    boxes, scores = (_before_choice(makers, name) for name in steps[0].input[:2])
    return Suppression(boxes, scores, float(_constants(graph)[steps[0].input[3]].item()))


def before(graph: onnx.ModelProto, rule: Suppression) -> onnx.ModelProto:
    """The graph up to all boxes (B, n, 4) and scores (B, n, classes), for B images."""
    inputs = [value.name for value in graph.graph.input]
    part = onnx.utils.Extractor(graph).extract_model(inputs, [rule.boxes, rule.scores])
    part.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "number"
    del part.graph.value_info[:]
    for output in part.graph.output:
        output.type.tensor_type.ClearField("shape")
    constants = _constants(part)
    shapes = {node.input[1] for node in part.graph.node if node.op_type == "Reshape"}
    for name in shapes & set(constants):
        shape = constants[name].copy()
        if shape[0] == 1:  # one image; 0 keeps what the input has
            shape[0] = 0
            _set_constant(part, name, shape)
    return part


def _before_choice(makers: dict[str, onnx.NodeProto], name: str) -> str:
    """What the best-scored places are gathered from."""
    node = makers[name]
    while node.op_type != "Gather":
        node = makers[node.input[0]]
    return node.input[0]


def _constants(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    nodes = (node for node in graph.graph.node if node.op_type == "Constant")
    return {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer} | {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes
    }


def _set_constant(graph: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    for each in graph.graph.initializer:
        if each.name == name:
            each.CopyFrom(numpy_helper.from_array(value, name))
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(value))
