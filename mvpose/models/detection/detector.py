"""Detection of persons and their 2D joints in images: the detector interface, and the default detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.config import digest, import_named
from mvpose.errors import ConfigError
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.joint_network import JointNetwork, network_input, run_network, session
from mvpose.models.detection.person_boxes import PersonBoxes, best, boxes_between, from_letterbox, letterboxed
from mvpose.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class People:
    """The persons found in one image, best first. Index p has no meaning beyond this image."""

    box: Float[np.ndarray, "P 4"]
    """left, top, right, bottom in pixels; may reach beyond the image."""
    score: Float[np.ndarray, " P"]
    """Box score, 0 .. 1."""
    xy: Float[np.ndarray, "P J 2"]
    """Pixels of the image; may be outside it. Raw predictions: finite even if the confidence is low."""
    confidence: Float[np.ndarray, "P J"]
    """0 .. 1."""
    tokens: Float[np.ndarray, "P J d"] | None = None
    """The joints before the joint network classifies them; None if not kept."""
    detected: People | None = None
    """The detector's joints of the same persons, if these are corrected by other views."""

    def some(self, which: slice) -> People:
        """Some of the persons."""
        tokens = None if self.tokens is None else self.tokens[which]
        return People(self.box[which], self.score[which], self.xy[which], self.confidence[which], tokens)

    def followed_by(self, others: People) -> People:
        """These persons, then the others; both with tokens, or both without."""
        both = (self, others)
        box, score, xy, confidence = (
            np.concatenate([getattr(people, name) for people in both]) for name in ("box", "score", "xy", "confidence")
        )
        tokens = [people.tokens for people in both if people.tokens is not None]
        return People(box, score, xy, confidence, np.concatenate(tokens) if tokens else None)


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


def load_detector(config: DetectorConfig) -> Detector:
    """Construct the detector named by `config.detector`. ConfigError if there is none."""
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
    """Person boxes by YOLOX, then the joints of each box by RTMPose, both through ONNX Runtime.

    ConfigError if a card does not fit its part or the device is unavailable, WeightsError if a file is missing.
    Threads, device and batch size are not part of `digest`: on the CPU any of them gives the same bits (measured with
    batches of 1, 8, 16 and 64 on 1 and 2 threads). With `keep_tokens`, people have the joint network's tokens.
    """

    def __init__(self, config: DetectorConfig, *, keep_tokens: bool = False) -> None:
        self._config = config
        self._person_card = read_card(config.person_card)
        self._person_network = session(locate(self._person_card), config)
        self._joints = JointNetwork(read_card(config.joint_card), config, keep_tokens=keep_tokens)
        self.skeleton = self._joints.skeleton
        self.crop_size = self._joints.card.input_size
        """(width, height) of the joint network's crops in pixels."""
        self.device = config.device or "cpu"
        self.chunk_frames = config.chunk_frames
        self.confidence_scale = self._joints.card.confidence
        self.digest = _top_down_digest(config)

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Detect persons by view and frame; see `Detector`."""
        boxes = [boxes for frames in views for boxes in self._boxes(frames)]
        images = [image for frames in views for image in frames]
        box = np.concatenate([np.zeros((0, 4)), *(b.box for b in boxes)])
        score = np.concatenate([np.zeros(0), *(b.score for b in boxes)])
        box_images = [image for image, b in zip(images, boxes, strict=True) for _ in b.box]
        everyone = self.in_boxes(box_images, box, score)
        stops = np.cumsum([len(b.box) for b in boxes])
        own = (slice(stop - len(b.box), stop) for b, stop in zip(boxes, stops, strict=True))
        return [[everyone.some(next(own)) for _ in frames] for frames in views]

    def in_boxes(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        box: Float[np.ndarray, "N 4"],
        score: Float[np.ndarray, " N"],
    ) -> People:
        """One person for each box (left, top, right, bottom) of its RGB image."""
        joints = self._joints(images, box)
        return People(box.astype(np.float32), score.astype(np.float32), joints.xy, joints.confidence, joints.tokens)

    def _boxes(self, frames: UInt8[np.ndarray, "n H W 3"]) -> list[PersonBoxes]:
        """Boxes of every frame of one view: detected at both ends, interpolated linearly in between."""
        if len(frames) == 0:
            return []
        first = self._boxes_of(frames[0])
        last = self._boxes_of(frames[-1]) if len(frames) > 1 else first
        return boxes_between(first, last, len(frames), self._config.max_boxes)

    def _boxes_of(self, image: UInt8[np.ndarray, "H W 3"]) -> PersonBoxes:
        """Boxes detected in one image (the network's graph has batch size 1)."""
        canvas, scale = letterboxed(image, self._person_card.input_size)
        found = run_network(self._person_network, network_input(canvas[None], self._person_card))[0][0].astype(
            np.float64
        )
        boxes = PersonBoxes(from_letterbox(found[:, :4], scale), found[:, 4])
        return best(boxes, self._config.min_box_score, self._config.max_boxes)


def _top_down_digest(config: DetectorConfig) -> str:
    """Digest of the settings and of the fields of the cards that affect results."""
    cards = [read_card(name) for name in (config.person_card, config.joint_card)]
    return digest(
        [
            [c.sha256, c.input_size, c.colour_order, c.mean, c.std, c.skeleton, c.bins_per_pixel, c.confidence]
            for c in cards
        ],
        [config.detector, config.chunk_frames, config.max_boxes, config.min_box_score],
    )
