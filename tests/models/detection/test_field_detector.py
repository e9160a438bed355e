"""The detector of a bottom-up network: where its people are in images of any shape, and which of them count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.errors import WeightsError
from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.detection.detector import load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.field_detector import FieldDetector
from mvpose.models.input_rule import input_rule
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.affinity_fields import affinity_targets, limb_tree
from mvpose.models.single_view.field_network import PartMaps
from mvpose.skeleton import HALPE20, SKELETONS

METHOD = FieldsMethod(skeleton="halpe20", size=(256, 256))
GRID = (128, 128)
RNG = np.random.default_rng(0)
PERSON = RNG.uniform(0.0, 1.0, (20, 2))
"""A person's joints as shares of a box."""


class BrightBoxes(torch.nn.Module):
    """The maps of a person in every rectangle, by its red; joints of green rectangles have lower peaks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> list[PartMaps]:
        assert images.dtype == torch.uint8 and images.shape == (1, 3, 256, 256)
        self.seen.append(images)
        points, heights = [], []
        for red, height in ((200, 0.9), (100, 0.5)):
            rows, columns = ((images[0, 0].int() - red).abs() < 20).nonzero(as_tuple=True)
            if len(rows) > 400:
                low, high = (torch.tensor([f(columns), f(rows)]).double() for f in (torch.min, torch.max))
                points.append(low - 0.5 + torch.from_numpy(PERSON) * (high - low + 1.0))
                heights.append(height)
        if not points:
            return [PartMaps(torch.zeros(1, 20, 128, 128), torch.zeros(1, 19, 2, 128, 128))]
        shown = resized_points(torch.stack(points).float(), METHOD.size, GRID)
        heatmaps = gaussian_targets(shown, GRID, 1.5) * torch.tensor(heights)[:, None, None, None]
        there = torch.ones(shown.shape[:2], dtype=torch.bool)
        there[:, 3] = False
        heatmaps[:, 3] = 0.0
        return [PartMaps(heatmaps.amax(0)[None], affinity_targets(shown, there, limb_tree(HALPE20), GRID, 1.0)[None])]


def detector(max_boxes: int = 20) -> FieldDetector:
    made = FieldDetector.__new__(FieldDetector)
    made.model = SavedModel(BrightBoxes(), input_rule(METHOD, 1.4), METHOD, "", {})
    made.method, made.max_people, made.skeleton = METHOD, max_boxes, SKELETONS["halpe20"]
    return made


def image(width: int, height: int, *boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    """Rectangles (left, top, right, bottom, red), whose last pixels are left out."""
    made = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom, red in boxes:
        made[top:bottom, left:right] = red
    return made


@pytest.mark.parametrize("size", [(512, 512), (768, 320), (300, 500), (128, 96)])
def test_joints_are_in_pixels_of_the_image_whatever_its_shape(size):
    """Fails if the image is stretched, its margin is left out, or a pixel's centre is at its corner."""
    width, height = size
    left, top, right, bottom = width // 4, height // 8, width * 3 // 4, height * 7 // 8
    ((found,),) = detector()([image(*size, (left, top, right, bottom, 200))[None]])
    true = np.array([left, top]) - 0.5 + PERSON * np.array([right - left, bottom - top])
    scale = max(width, height) / 256
    apart = np.linalg.norm(found.xy - true, axis=-1)
    known = found.confidence[0] > 0
    assert known.sum() == 19 and not known[3] and found.xy.dtype == np.float32
    # Exact where the image is shrunk by a whole number; else the rectangles have blurred edges.
    assert np.median(apart[0, known]) < (0.01 if size == (512, 512) else scale)
    np.testing.assert_allclose(found.confidence[0, known], 0.9, atol=0.1)
    np.testing.assert_array_equal(found.box[0], [*found.xy[0, known].min(axis=0), *found.xy[0, known].max(axis=0)])


def test_the_best_people_of_each_image_are_kept_in_its_place():
    both = image(512, 256, (20, 20, 240, 240, 100), (270, 20, 500, 240, 200))
    views = [np.stack([both, image(512, 256)]), np.zeros((0, 256, 512, 3), np.uint8)]
    ((found, nobody), nothing) = detector()(views)
    assert found.xy.shape == (2, 20, 2) and nobody.xy.shape == (0, 20, 2) and nothing == []
    assert found.xy[0, 0, 0] > 256 > found.xy[1, 0, 0] and found.score[0] > found.score[1] > 0
    ((best, _), _) = detector(max_boxes=1)(views)
    np.testing.assert_array_equal(best.xy, found.xy[:1])
    np.testing.assert_array_equal(best.confidence, found.confidence[:1])


def test_a_folder_without_a_network_is_named():
    with pytest.raises(WeightsError, match=r"no model in \./nowhere"):
        load_detector(replace(DetectorConfig(), detector="./nowhere"))
