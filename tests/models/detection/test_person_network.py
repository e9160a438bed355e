"""The box network for many images at once, against the same network with its own last step for one."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mvpose.device_images import uploaded
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.person_boxes import PersonBoxes
from mvpose.models.detection.person_network import PersonNetwork, best_of_overlapping, suppression

CARD = "yolox_tiny_humanart"


@pytest.fixture(scope="module")
def images(footage) -> list[np.ndarray]:
    """Frames of two people, of two sizes."""
    reader = cv2.VideoCapture(f"{footage}/Demo_MultiPerson/videos/cam01.mp4")
    frames = [reader.read()[1][..., ::-1].copy() for _ in range(3)]
    return [frames[0], cv2.resize(frames[1], (640, 360)), frames[2]]


@pytest.fixture(scope="module")
def network(weights) -> PersonNetwork:
    return PersonNetwork(read_card(CARD), DetectorConfig(precision="float32", min_box_score=0.05))


def test_boxes_of_many_images_are_those_that_the_whole_graph_chooses_in_each(network, images):
    """Fails if boxes that overlap are kept, other classes counted, or images mixed up."""
    graph = onnxruntime.InferenceSession(locate(read_card(CARD)))
    found = network(images)
    for image, own in zip(images, found, strict=True):
        canvas = np.full((416, 416, 3), 114, np.uint8)
        ratio = 416 / max(image.shape[:2])
        width, height = round(image.shape[1] * ratio), round(image.shape[0] * ratio)
        canvas[:height, :width] = cv2.resize(image, (width, height))
        card = read_card(CARD)
        pixels = canvas[..., ::-1] if card.colour_order == "bgr" else canvas
        normalised = ((pixels - np.array(card.mean)) / np.array(card.std)).astype(np.float32)
        chosen, classes = graph.run(None, {graph.get_inputs()[0].name: normalised.transpose(2, 0, 1)[None]})
        chosen = chosen[0][(classes[0] == 0) & (chosen[0, :, 4] >= 0.05)][:20]
        assert len(own.score) == len(chosen) >= 1
        np.testing.assert_allclose(own.score, chosen[:, 4], atol=1e-5)
        scale = np.tile([width / image.shape[1], height / image.shape[0]], 2)
        np.testing.assert_allclose(own.box, (chosen[:, :4] + 0.5) / scale - 0.5, atol=0.01)


def test_an_image_has_the_same_boxes_whatever_is_beside_it_and_wherever_it_is(network, images):
    alone, beside = network(images[:1])[0], network(images)[0]
    there = network(uploaded(images[:1], torch.device("cpu")))[0]
    for other in (beside, there):
        np.testing.assert_array_equal(other.box, alone.box)
        np.testing.assert_array_equal(other.score, alone.score)
    assert network([]) == []


def test_of_boxes_that_overlap_the_best_is_kept_and_suppresses_only_its_own_neighbours():
    # The third overlaps the second, which is itself suppressed: it stays.
    box = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 4, 10, 8], [20, 0, 30, 10]], dtype=np.float64)
    kept = best_of_overlapping(PersonBoxes(box[[1, 2, 0, 3]], np.array([0.8, 0.7, 0.9, 0.2])), 0.45)
    assert kept.box.tolist() == box[[0, 2, 3]].tolist() and kept.score.tolist() == [0.9, 0.7, 0.2]


def test_a_graph_without_that_step_is_taken_as_it_is(weights):
    graph = onnx.load(locate(read_card("rtmpose_s_halpe26")))
    assert suppression(graph) is None
