"""Detection of persons and their 2D joints in images: the detector interface, and the default detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.config import digest, import_named
from mvpose.device_images import AnyImage
from mvpose.errors import ConfigError
from mvpose.models.detection.cards import read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.following import Following
from mvpose.models.detection.joint_network import JointNetwork
from mvpose.models.detection.people import People
from mvpose.models.detection.person_boxes import PersonBoxes
from mvpose.models.detection.person_network import PersonNetwork
from mvpose.models.detection.runtime import with_precision
from mvpose.skeleton import Skeleton


@runtime_checkable
class Detector(Protocol):
    """Detector of the persons in the images of all views. Stateless: equal input gives equal output.

    `DetectorConfig.detector` can name any class with these members that is constructed from a `DetectorConfig`. It may
    also have a `confidence_scale`, see `scale_of`.
    """

    skeleton: Skeleton
    """Joint set of `People.xy`."""
    digest: str
    """Hex digest of everything that the results depend on: weights and settings."""
    chunk_frames: int
    """Preferred number of frames of each view per call."""

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Detect persons in consecutive RGB frames (n, H, W, 3) by view; returns them by view and frame.

        Sizes may differ between views, and so may n: a view may lack frames, or have none.
        """
        ...


SURE = 0.3
"""Minimum likelihood of joints that boxes follow."""


def load_detector(config: DetectorConfig) -> Detector:
    """Construct the detector named by `config.detector`. ConfigError or WeightsError if there is none."""
    if config.bottom_up:
        from mvpose.models.detection.field_detector import FieldDetector

        return FieldDetector(config)
    detector = import_named(config.detector, "detector")(config)
    if not isinstance(detector, Detector):
        raise ConfigError(f"{config.detector} lacks one of skeleton, digest, chunk_frames and __call__")
    return detector


def scale_of(detector: Detector) -> ConfidenceScale:
    """The detector's `confidence_scale`; without one, confidence is taken to be the likelihood."""
    return getattr(detector, "confidence_scale", AS_STATED)


def detector_digest(config: DetectorConfig) -> str:
    """Digest of all that 2D joints depend on except the footage; does not load the default detector's weights."""
    if config.detector == DetectorConfig.detector:
        return _top_down_digest(config)
    detector = load_detector(config)
    scale = scale_of(detector)
    return detector.digest if scale == AS_STATED else digest(detector.digest, scale)


class TopDownDetector:
    """Person boxes by YOLOX, then the joints of each box by RTMPose.

    ConfigError if a card does not fit its part, or the device or precision is unavailable; WeightsError if a file is
    missing. Threads, device and batch size are not part of `digest`: on the CPU any of them gives the same bits
    (measured with batches of 1, 8, 16 and 64 on 1 and 2 threads). With `keep_tokens`, people have the joint network's
    tokens.
    """

    def __init__(self, config: DetectorConfig, *, keep_tokens: bool = False) -> None:
        self.config = config
        self._people = PersonNetwork(read_card(config.person_card), config)
        self._joints = JointNetwork(read_card(config.joint_card), config, keep_tokens=keep_tokens)
        self.skeleton = self._joints.skeleton
        self.crop_size = self._joints.card.input_size
        """(width, height) of the joint network's crops in pixels."""
        self.device = config.device or "cpu"
        self.images_on = torch.device(config.device) if config.device == "cuda" else None
        """Where images are cut; None: in the host's memory."""
        self.chunk_frames = config.chunk_frames
        self.confidence_scale = self._joints.card.confidence
        self.digest = _top_down_digest(config)

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Detect persons by view and frame; see `Detector`."""
        return self.follow([list(frames) for frames in views], [None] * len(views))

    def follow(
        self, views: Sequence[Sequence[AnyImage]], before: Sequence[People | None], step: int = 8
    ) -> list[list[People]]:
        """Detect persons by view and frame, where boxes follow their joints between looks: see `following`.

        Images are RGB, as decoded, or on the device. `before` are the people of each view's last earlier frame, None if
        unknown; `step` is the number of frames between boxes that are interpolated.
        """
        limit = self.config.max_boxes
        return Following(self._people, self._in_boxes, self._sure, limit, step).people(views, before)

    def in_boxes(
        self, images: Sequence[AnyImage], box: Float[np.ndarray, "N 4"], score: Float[np.ndarray, " N"]
    ) -> People:
        """One person for each box (left, top, right, bottom) of its image."""
        joints = self._joints(images, box)
        return People(box.astype(np.float32), score.astype(np.float32), joints.xy, joints.confidence, joints.tokens)

    def _in_boxes(self, images: Sequence[AnyImage], boxes: Sequence[PersonBoxes]) -> list[People]:
        """The people in the boxes of each image."""
        everyone = self.in_boxes(
            [image for image, own in zip(images, boxes, strict=True) for _ in own.score],
            np.concatenate([np.zeros((0, 4)), *(own.box for own in boxes)]),
            np.concatenate([np.zeros(0), *(own.score for own in boxes)]),
        )
        stops = np.cumsum([len(own.score) for own in boxes]).tolist()
        return [everyone.some(slice(stop - len(own.score), stop)) for own, stop in zip(boxes, stops, strict=True)]

    def _sure(self, people: People) -> Bool[np.ndarray, "P J"]:
        return self.confidence_scale.likelihood_of(people.confidence) >= SURE


def _top_down_digest(config: DetectorConfig) -> str:
    """Digest of the settings and of the fields of the cards that affect results."""
    cards = [read_card(name) for name in (config.person_card, config.joint_card)]
    return digest(
        [
            [c.sha256, c.input_size, c.colour_order, c.mean, c.std, c.skeleton, c.bins_per_pixel, c.confidence]
            for c in cards
        ],
        [config.detector, config.max_boxes, config.min_box_score, with_precision(config).precision],
    )
