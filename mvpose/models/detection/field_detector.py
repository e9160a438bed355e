"""A network of part affinity fields as the detector: everyone in an image with their joints in one pass (bottom-up)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.config import digest
from mvpose.errors import ConfigError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.pinhole_crops import affine_crop, crop_about
from mvpose.models.saved import open_model, require_model
from mvpose.models.single_view.field_network import grouped_people
from mvpose.skeleton import SKELETONS

USED = ("detector", "chunk_frames", "max_boxes", "device", "threads")
"""Settings of `DetectorConfig` that apply; any other must have its default."""


class FieldDetector:
    """The people of an image by a trained network, whose folder `DetectorConfig.detector` names; see `Detector`.

    Images are scaled to the size that the network was trained on, and keep their lens distortion: 2D joints depend on
    the footage alone, and a new calibration keeps them. A joint's confidence is the height of its peak in the heatmap;
    what that means is fitted by `mvpose benchmark confidence --write`, and taken to be the likelihood without it. A
    person's box is the extent of the joints found, and its score half of the grouping's. Images are computed one by
    one: bits do not depend on the others in memory.

    ConfigError if it is another network, or settings of the default detector are changed; WeightsError if there is no
    network.
    """

    def __init__(self, config: DetectorConfig) -> None:
        _require_defaults(config)
        require_model(config.detector)
        self.model = open_model(config.detector, device=config.device or "cpu")
        method = self.model.config
        if not isinstance(method, FieldsMethod):
            raise ConfigError(
                f"--detector.detector {config.detector} is a network of {method.method}, not one that finds people: "
                "name it as --model, or one of a single camera as --monocular."
            )
        self.method, self.max_people = method, config.max_boxes
        self.skeleton = SKELETONS[method.skeleton]
        self.chunk_frames = config.chunk_frames
        self.confidence_scale = self.model.confidence
        self.digest = digest("part affinity fields", self.model.sha256, method, config.max_boxes)

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Detect persons by view and frame; see `Detector`."""
        return [[self._people(image) for image in frames] for frames in views]

    def _people(self, image: UInt8[np.ndarray, "h w 3"]) -> People:
        height, width = image.shape[:2]
        rule = self.model.rule.crop
        change = crop_about(np.array([-0.5, -0.5, width - 0.5, height - 0.5]), rule)
        crop = torch.from_numpy(affine_crop(image, change, rule.size).transpose(2, 0, 1).copy())
        (found,) = grouped_people(self.model.network, crop[None], self.method)
        back = np.linalg.inv(change)
        there = found.found.numpy()[: self.max_people]
        points = found.points.double().numpy()[: self.max_people] @ back[:2, :2].T + back[:2, 2]
        confidence = found.heights.numpy()[: self.max_people].clip(0.0, 1.0)
        score = (found.scores / 2).numpy()[: self.max_people].clip(0.0, 1.0)
        xy = np.where(there[..., None], points, 0.0).astype(np.float32)
        return People(_boxes(xy, there), score, xy, confidence)


def _boxes(xy: Float[np.ndarray, "P J 2"], there: np.ndarray) -> Float[np.ndarray, "P 4"]:
    """Extents of the joints found; grouping leaves nobody without one."""
    low = np.where(there[..., None], xy, np.inf).min(axis=1)
    high = np.where(there[..., None], xy, -np.inf).max(axis=1)
    return np.concatenate([low, high], axis=1)


def _require_defaults(config: DetectorConfig) -> None:
    for setting in fields(DetectorConfig):
        if setting.name not in USED and getattr(config, setting.name) != setting.default:
            raise ConfigError(
                f"--detector.{setting.name.replace('_', '-')} is of the default detector, but --detector.detector "
                f"{config.detector} is a network that finds people and joints bottom-up: leave out one of them."
            )
