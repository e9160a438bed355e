"""Detection of persons and their 2D joints in images: the detector interface, and the default detector.

The joint network predicts by SimCC: two classifications per joint, one over columns and one over rows (Li et al.,
"SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022; Jiang et al., "RTMPose:
Real-Time Multi-Person Pose Estimation based on MMPose", 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8

from mvpose.config import digest, import_named
from mvpose.errors import ConfigError
from mvpose.models.detection.cards import ModelCard, locate, read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.person_boxes import PersonBoxes, best, boxes_between, from_letterbox, letterboxed
from mvpose.skeleton import SKELETONS, Skeleton

# RTMPose's own rule: the box grows by this factor before it is cropped.
PADDING = 1.25


def crop_from_image(box: Float[np.ndarray, "N 4"], size: tuple[int, int]) -> Float[np.ndarray, "N 2 3"]:
    """Affine maps from pixels of the image to pixels of the crop, one per box (left, top, right, bottom).

    The box grows by `PADDING` about its centre, then on its shorter side to the aspect ratio of `size` (width, height),
    and is scaled to it; its centre goes to (width, height) / 2. No rotation (RTMPose's rule).
    """
    width, height = size
    centre = (box[:, :2] + box[:, 2:]) / 2
    extent = (box[:, 2:] - box[:, :2]) * PADDING
    scale = width / np.maximum(extent[:, 0], extent[:, 1] * width / height)
    affine = np.zeros((len(box), 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = np.array([width / 2, height / 2]) - scale[:, None] * centre
    return affine


def cropped(
    image: UInt8[np.ndarray, "H W 3"], affine: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Warp the image through `affine` to `size` (width, height), bilinear; black beyond the image's edge."""
    return cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR)


def to_image(xy: Float[np.ndarray, "N J 2"], affine: Float[np.ndarray, "N 2 3"]) -> Float[np.ndarray, "N J 2"]:
    """Map positions in crops back to pixels of the original images."""
    scale = affine[:, None, [0, 1], [0, 1]]
    return (xy - affine[:, None, :, 2]) / scale


def decode_simcc(
    columns: Float[np.ndarray, "N J W"], rows: Float[np.ndarray, "N J H"], bins_per_pixel: float
) -> tuple[Float[np.ndarray, "N J 2"], Float[np.ndarray, "N J"]]:
    """Positions in pixels of the network's input, and confidences in 0 .. 1.

    Bin i of an axis is at i / bins_per_pixel. Confidence is RTMPose's rule: the smaller of the two peaks of the
    raw outputs, which were trained towards Gaussians of height 1; the few values above 1 are clipped.
    """
    x, x_peak = peaks(columns)
    y, y_peak = peaks(rows)
    return np.stack([x, y], axis=-1) / bins_per_pixel, np.clip(np.minimum(x_peak, y_peak), 0, 1)


def peaks(scores: Float[np.ndarray, "*batch n"]) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Peak position of each row, interpolated by a parabola through the peak and its neighbours, and the highest score.

    The parabola moves a peak by at most half a bin. On the single-person demo it lowers the reprojection error from
    8.75 to 8.72 px and the second difference of the 2D tracks from 3.65 to 3.41 px. A peak on the border stays.
    """
    peak = scores.argmax(axis=-1)
    middle = np.clip(peak, 1, scores.shape[-1] - 2)
    before, at, after = (np.take_along_axis(scores, (middle + k)[..., None], axis=-1)[..., 0] for k in (-1, 0, 1))
    curvature = before - 2 * at + after
    refined = (peak == middle) & (curvature < 0)
    shift = np.where(refined, (before - after) / (2 * np.where(refined, curvature, 1)), 0)
    return peak + shift, scores.max(axis=-1)


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


@runtime_checkable
class Detector(Protocol):
    """Detector of the persons in the images of all views. Stateless: equal input gives equal output.

    `DetectorConfig.detector` can name any class with these members that is constructed from a `DetectorConfig`.
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


def detector_digest(config: DetectorConfig) -> str:
    """`load_detector(config).digest`; for the default detector, computed without loading it or its weights."""
    return _top_down_digest(config) if config.detector == DetectorConfig.detector else load_detector(config).digest


class TopDownDetector:
    """Person boxes by YOLOX, then the joints of each box by RTMPose, both through ONNX Runtime.

    ConfigError if a card does not fit its part or the device is unavailable, WeightsError if a file is missing.
    Threads, device and batch size are not part of `digest`: on the CPU any of them gives the same bits (measured with
    batches of 1, 8, 16 and 64 on 1 and 2 threads).
    """

    def __init__(self, config: DetectorConfig) -> None:
        self._config = config
        self._person_card, self._joint_card = read_card(config.person_card), read_card(config.joint_card)
        self.skeleton, self._bins_per_pixel = _joint_set(self._joint_card)
        self._person_network = _session(self._person_card, config)
        self._joint_network = _session(self._joint_card, config)
        self.device = config.device or "cpu"
        self.chunk_frames = config.chunk_frames
        self.digest = _top_down_digest(config)

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Detect persons by view and frame; see `Detector`."""
        boxes = [boxes for frames in views for boxes in self._boxes(frames)]
        images = [image for frames in views for image in frames]
        box = np.concatenate([np.zeros((0, 4)), *(b.box for b in boxes)])
        box_images = [image for image, b in zip(images, boxes, strict=True) for _ in b.box]
        xy, confidence = self._joints(box_images, box)
        ends = np.cumsum([len(b.box) for b in boxes])[:-1]
        people = (
            People(b.box.astype(np.float32), b.score.astype(np.float32), x, c)
            for b, x, c in zip(boxes, np.split(xy, ends), np.split(confidence, ends), strict=True)
        )
        return [[next(people) for _ in frames] for frames in views]

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
        found = _run(self._person_network, network_input(canvas[None], self._person_card))[0][0].astype(np.float64)
        boxes = PersonBoxes(from_letterbox(found[:, :4], scale), found[:, 4])
        return best(boxes, self._config.min_box_score, self._config.max_boxes)

    def _joints(
        self, images: list[UInt8[np.ndarray, "_ _ 3"]], box: Float[np.ndarray, "N 4"]
    ) -> tuple[Float[np.ndarray, "N J 2"], Float[np.ndarray, "N J"]]:
        """Joints in each box of its image, in batches: at most one batch of crops is held in memory."""
        card, step = self._joint_card, self._config.batch_size
        affine = crop_from_image(box, card.input_size)
        xy = np.zeros((len(box), len(self.skeleton.joints), 2), dtype=np.float32)
        confidence = np.zeros(xy.shape[:2], dtype=np.float32)
        for start in range(0, len(box), step):
            batch = slice(start, start + step)
            crops = [cropped(i, a, card.input_size) for i, a in zip(images[batch], affine[batch], strict=True)]
            columns, rows = _run(self._joint_network, network_input(np.stack(crops), card))
            if columns.shape[1] != xy.shape[1]:
                raise ConfigError(
                    f"{card.name} gives {columns.shape[1]} joints, but skeleton {self.skeleton.name} "
                    f"of its card has {xy.shape[1]}: correct the card"
                )
            in_crop, confidence[batch] = decode_simcc(columns, rows, self._bins_per_pixel)
            xy[batch] = to_image(in_crop, affine[batch])
        return xy, confidence


def network_input(images: UInt8[np.ndarray, "N h w 3"], card: ModelCard) -> Float[np.ndarray, "N 3 h w"]:
    """Convert RGB images to the input format of the card's network: colour order, mean and standard deviation."""
    ordered = images if card.colour_order == "rgb" else images[..., ::-1]
    normalised = (ordered - np.array(card.mean, np.float32)) / np.array(card.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def _joint_set(card: ModelCard) -> tuple[Skeleton, float]:
    if card.skeleton not in SKELETONS or card.bins_per_pixel is None:
        raise ConfigError(
            f"the card of {card.name} must name a skeleton ({', '.join(SKELETONS)}) and its bins_per_pixel "
            f"to serve as joint_card; it has {card.skeleton!r} and {card.bins_per_pixel!r}"
        )
    return SKELETONS[card.skeleton], card.bins_per_pixel


def _top_down_digest(config: DetectorConfig) -> str:
    """Digest of the settings and of the fields of the cards that affect results."""
    cards = [read_card(name) for name in (config.person_card, config.joint_card)]
    return digest(
        [[c.sha256, c.input_size, c.colour_order, c.mean, c.std, c.skeleton, c.bins_per_pixel] for c in cards],
        [config.detector, config.chunk_frames, config.max_boxes, config.min_box_score],
    )


def _session(card: ModelCard, config: DetectorConfig) -> onnxruntime.InferenceSession:
    """Session of the card's network on the requested device; ONNX Runtime alone would silently fall back to the CPU."""
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[config.device or "cpu"]
    advice = "install onnxruntime-gpu instead of onnxruntime, with its CUDA and cuDNN libraries, or set device to cpu"
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"device {config.device} was requested, but this ONNX Runtime is built without it: {advice}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(locate(card), options, providers=[provider])
    if provider not in session.get_providers():
        raise ConfigError(f"device {config.device} was requested, but ONNX Runtime could not start it: {advice}")
    return session


def _run(session: onnxruntime.InferenceSession, images: Float[np.ndarray, "N 3 h w"]) -> list[np.ndarray]:
    return [np.asarray(output) for output in session.run(None, {session.get_inputs()[0].name: images})]
