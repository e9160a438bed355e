"""The persons in pictures and their 2D joints: what a detector is, and the one that works out of the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8

from mvpose.config import digest, nearest
from mvpose.errors import ConfigError
from mvpose.models.cards import ModelCard, locate, read_card
from mvpose.models.crops import crop_from_image, cropped, to_image
from mvpose.models.person_boxes import PersonBoxes, best, boxes_between, from_letterbox, letterboxed
from mvpose.models.simcc import decode_simcc
from mvpose.skeleton import SKELETONS, Skeleton


@dataclass(frozen=True, eq=False)
class People:
    """The persons found in one picture, best first. Place p means nothing beyond this picture."""

    box: Float[np.ndarray, "P 4"]
    """left, top, right, bottom in pixels; may reach beyond the picture."""
    score: Float[np.ndarray, " P"]
    """How sure the box is, 0 .. 1."""
    xy: Float[np.ndarray, "P J 2"]
    """Pixels of the picture; may lie beyond it. The raw answer: finite even where the confidence is low."""
    confidence: Float[np.ndarray, "P J"]
    """0 .. 1."""


@runtime_checkable
class Detector(Protocol):
    """Pictures of all views to the persons in them. Stateless between calls: equal input gives equal output.

    Any class that is made from a `DetectorConfig` and has these members can be named in `DetectorConfig.detector`.
    """

    skeleton: Skeleton
    """Joint set of `People.xy`."""
    digest: str
    """Hex digest of all that the results depend on: weights, settings."""
    chunk_frames: int
    """How many frames of each view a call is best given."""

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Consecutive RGB frames (n, H, W, 3) by view to persons by view and frame.

        Sizes may differ between views, and n too: a view may lack frames, or have none.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `TopDownDetector`; a detector of a user's own reads what it can use of them."""

    detector: str = "mvpose.models.detector:TopDownDetector"
    """`package.module:Class`, a class that is made from this config and follows `Detector`."""
    person_card: str = "yolox_tiny_humanart"
    """Card of the network that finds person boxes: the name of one that comes with mvpose, or a local .toml file."""
    joint_card: str = "rtmpose_s_halpe26"
    """Card of the network that finds the joints of one person."""
    chunk_frames: int = 8
    """Frames that go through together; boxes are looked for in the first and the last of them.

    On the single-person demo (60 fps) 4, 8 and 16 reproject alike (8.65, 8.57 and 8.70 px). 16 runs 1.3 times as fast
    as 8; 8 holds half as many pictures, and persons may move twice as fast before their boxes are lost.
    """
    max_people: int = 4
    """Boxes a view, best first."""
    min_box_score: float = 0.3
    """A box less sure than this is none."""
    batch_size: int = 16
    """Crops that go through the joint network together; from 8 to 32 make no difference in speed on a CPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Threads within one operator of a network on the CPU; one, where as many workers run as there are cores."""

    def __post_init__(self) -> None:
        for name in ("chunk_frames", "max_people", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the detector is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.min_box_score <= 1:
            raise ConfigError(f"min_box_score of the detector is {self.min_box_score}; it must lie in 0 .. 1")


def load_detector(config: DetectorConfig) -> Detector:
    """The detector that `config.detector` names, made from `config`. ConfigError where there is none."""
    module_name, _, class_name = config.detector.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"no detector {config.detector!r} ({error}): name a class as package.module:Class, "
            f"and see that the package is installed where the job runs. The one of mvpose is {DetectorConfig.detector}"
        ) from error
    if not hasattr(module, class_name):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        classes = [name for name in own if isinstance(getattr(module, name), type)]
        raise ConfigError(
            f"no detector {config.detector!r}: name a class as package.module:Class ({nearest(class_name, classes)})"
        )
    detector_class = getattr(module, class_name)
    detector = detector_class(config)
    if not isinstance(detector, Detector):
        raise ConfigError(f"{config.detector} lacks one of skeleton, digest, chunk_frames and __call__")
    return detector


def detector_digest(config: DetectorConfig) -> str:
    """`load_detector(config).digest`; for the detector that comes with mvpose neither it nor its weights are needed."""
    return _top_down_digest(config) if config.detector == DetectorConfig.detector else load_detector(config).digest


class TopDownDetector:
    """Person boxes by YOLOX, then the joints of each box by RTMPose, both through ONNX Runtime.

    ConfigError where a card does not fit its part or the device cannot be had, WeightsError where a file is missing.
    Threads, device and batch size are no part of `digest`: on the CPU any of them gives the same bits (measured with
    batches of 1, 8, 16 and 64 on 1 and 2 threads).
    """

    def __init__(self, config: DetectorConfig) -> None:
        self._config = config
        self._person_card, self._joint_card = read_card(config.person_card), read_card(config.joint_card)
        self.skeleton, self._bins_per_pixel = _joint_set(self._joint_card)
        self._person_network = _session(self._person_card, config)
        self._joint_network = _session(self._joint_card, config)
        self.device = config.device
        self.chunk_frames = config.chunk_frames
        self.digest = _top_down_digest(config)

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """Persons by view and frame; see `Detector`."""
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
        """Boxes of every frame of one view: looked for at both ends, moved linearly in between."""
        if len(frames) == 0:
            return []
        first = self._boxes_of(frames[0])
        last = self._boxes_of(frames[-1]) if len(frames) > 1 else first
        return boxes_between(first, last, len(frames), self._config.max_people)

    def _boxes_of(self, image: UInt8[np.ndarray, "H W 3"]) -> PersonBoxes:
        """What the person network sees in one picture (its graph takes one at a time)."""
        canvas, scale = letterboxed(image, self._person_card.input_size)
        found = _run(self._person_network, network_input(canvas[None], self._person_card))[0][0].astype(np.float64)
        boxes = PersonBoxes(from_letterbox(found[:, :4], scale), found[:, 4])
        return best(boxes, self._config.min_box_score, self._config.max_people)

    def _joints(
        self, images: list[UInt8[np.ndarray, "_ _ 3"]], box: Float[np.ndarray, "N 4"]
    ) -> tuple[Float[np.ndarray, "N J 2"], Float[np.ndarray, "N J"]]:
        """Joints in each box of its picture, batch by batch: no more than a batch of crops is held."""
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
    """RGB pictures as the card's network takes them: its colour order, its mean and standard deviation."""
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
    """Digest of the settings and of what of the cards decides results."""
    cards = [read_card(name) for name in (config.person_card, config.joint_card)]
    return digest(
        [[c.sha256, c.input_size, c.colour_order, c.mean, c.std, c.skeleton, c.bins_per_pixel] for c in cards],
        [config.detector, config.chunk_frames, config.max_people, config.min_box_score],
    )


def _session(card: ModelCard, config: DetectorConfig) -> onnxruntime.InferenceSession:
    """The card's network on the device that was asked for; ONNX Runtime alone would fall back to the CPU in silence."""
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[config.device]
    advice = "install onnxruntime-gpu in place of onnxruntime, with its CUDA and cuDNN libraries, or ask for device cpu"
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"device {config.device} was asked for, but this ONNX Runtime is built without it: {advice}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(locate(card), options, providers=[provider])
    if provider not in session.get_providers():
        raise ConfigError(f"device {config.device} was asked for, but ONNX Runtime could not start it: {advice}")
    return session


def _run(session: onnxruntime.InferenceSession, pictures: Float[np.ndarray, "N 3 h w"]) -> list[np.ndarray]:
    return [np.asarray(output) for output in session.run(None, {session.get_inputs()[0].name: pictures})]
