"""Canonical fusion in the detector's own pass: its tokens of one person in all views, fused and classified again.

The detector runs once, on its own crops. What fusion adds is a few small layers for each person that two views show,
and crops where a view has missed one of them (`second_look`). People seen by only one view keep the detector's joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mvpose.confidence import AS_STATED, RIGHT_WITHIN, ConfidenceScale
from mvpose.errors import ConfigError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.crop_cameras import crop_projections
from mvpose.models.detection.detector import TopDownDetector, scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.joint_network import crop_from_image, to_image
from mvpose.models.detection.people import People
from mvpose.models.network_settings import TokenMethod
from mvpose.models.saved import open_model
from mvpose.pipeline.detect_stage import DetectStage, stack_people
from mvpose.pipeline.network_stage import NetworkStage, same_people
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.second_look import look_again
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import Keypoints2D, Task
from mvpose.tracking.chosen_model import method_of

BATCH = 16
"""People per call of the network. Of four views, 16 take 110 MB in it, and 64 take 180 MB."""
GUESSED = ConfidenceScale(
    likelihood=((0.0, 0.0), (0.3, 0.05), (0.4, 0.09), (0.6, 0.17), (0.75, 0.25), (0.85, 0.33), (0.93, 0.38))
)
"""The likelihood of a joint that its own view did not see, by the likelihood that the network states.

The other views tell the network where the joint is, and so it states too much of what it adds to them: with one other
view that saw the joint, 17, 25 and 33 % are right where it states 60, 75 and 85 %
(`mvpose benchmark fusion --takes 40 --take.seed 11 --take.frames 4`, the table at its end). With more of them more are
right, but then they are not needed."""


@dataclass(frozen=True, eq=False)
class FusedJoints:
    """The network's joints of detected people; NaN of people that it was not asked about."""

    xy: Float[np.ndarray, "V T P J 2"]
    """Pixels of the images."""
    stated: Float[np.ndarray, "V T P J"]
    """Likelihood that the network states."""

    def seen(self, detected: Keypoints2D, min_confidence: float) -> Bool[np.ndarray, "V T P J"]:
        """Whether a joint's own view saw it: the detector found it where the network has it, and neither doubts it."""
        size = (detected.box[..., 2:] - detected.box[..., :2]).max(axis=-1)[..., None]
        near = np.linalg.norm(self.xy - detected.xy, axis=-1) <= RIGHT_WITHIN * size
        sure = detected.scale.likelihood_of(detected.confidence) >= min_confidence
        return near & sure & (self.stated >= min_confidence)


class FusionStage(DetectStage):
    """Footage to 2D joints, each view corrected by the others.

    Confidences are likelihoods: the detector's of joints that their own view saw, else those of `GUESSED`.
    ConfigError if the detector is not the one whose tokens the network fuses.
    """

    def __init__(
        self,
        source: PlanSource,
        detector: DetectorConfig,
        model: str,
        weights_sha256: str,
        config: ReconstructionConfig,
    ) -> None:
        self.source, self.config = source, config
        self.model = open_model(model, weights_sha256, detector.device or "cpu")
        card = self.model.config.backbone.weights
        if (detector.detector, detector.joint_card) != (DetectorConfig.detector, card):
            raise ConfigError(
                f"the model fuses tokens of {card}, but the detector is {detector.detector} with "
                f"{detector.joint_card}: use --detector.joint-card {card}, or train a model on that detector's tokens"
            )
        self.detector = TopDownDetector(detector, keep_tokens=True)
        self.skeleton, self.scale = self.detector.skeleton, AS_STATED

    def refined(self, chunk: Sequence[ViewFrames], found: list[list[People]], task: Task) -> list[list[People]]:
        """The detected people, corrected by all views that show them, by view and frame."""
        return self.seen_again(chunk, found, self.source.setup(task).rig)

    def seen_again(
        self, chunk: Sequence[ViewFrames], detected: list[list[People]], rig: CameraRig
    ) -> list[list[People]]:
        """Correct people detected in consecutive frames of all views of a rig; by view and frame."""
        return self.fused(*self.matched(chunk, detected, rig), rig)

    def matched(
        self, chunk: Sequence[ViewFrames], found: list[list[People]], rig: CameraRig
    ) -> tuple[list[list[People]], Int[np.ndarray, "T K V"]]:
        """Detected and second looks' people by view and frame, and who are the same person (-1: not seen)."""
        people = same_people(stack_people(found, self.skeleton, scale_of(self.detector)), rig, self.config)
        return look_again(found, people, rig, chunk, self.detector, self.config)

    def fused(self, found: list[list[People]], places: Int[np.ndarray, "T K V"], rig: CameraRig) -> list[list[People]]:
        """People in these places, with their tokens, to corrected people without them; by view and frame."""
        seen = stack_people(found, self.skeleton, scale_of(self.detector))
        answers = self.answers(found, seen, places, rig)
        asked = np.isfinite(answers.stated)
        own = seen.scale.likelihood_of(seen.confidence)
        # A corrected joint repeats what the other views know, so it counts by what its own view saw.
        known = np.where(answers.seen(seen, self.config.min_confidence), own, GUESSED.likelihood_of(answers.stated))
        xy = np.where(asked[..., None], answers.xy, seen.xy)
        confidence = np.where(asked, known, own).astype(np.float32)
        return [
            [
                People(
                    p.box,
                    p.score,
                    xy[v, t, : len(p.score)],
                    confidence[v, t, : len(p.score)],
                    detected=replace(p, tokens=None),
                )
                for t, p in enumerate(view)
            ]
            for v, view in enumerate(found)
        ]

    def answers(
        self, found: list[list[People]], seen: Keypoints2D, places: Int[np.ndarray, "T K V"], rig: CameraRig
    ) -> FusedJoints:
        """What the network says of the people in these places that two views or more show; `seen`: `found`, stacked."""
        frames, which = np.nonzero((places >= 0).sum(axis=2) >= 2)
        boxes = np.where(seen.box_score[..., None] > 0, seen.box, (0.0, 0.0, 1.0, 1.0))
        crops = crop_from_image(boxes.reshape(-1, 4), self.detector.crop_size).reshape(*boxes.shape[:3], 2, 3)
        people = _Found(_stacked_tokens(found, seen), _cameras(rig, boxes, crops), crops)
        xy, stated = np.full_like(seen.xy, np.nan), np.full_like(seen.confidence, np.nan)
        for start in range(0, len(frames), BATCH):
            some = slice(start, start + BATCH)
            self._answer(people, frames[some], places[frames[some], which[some]], xy, stated)
        return FusedJoints(xy, stated)

    def stacked(self, people: Sequence[Sequence[People]]) -> Keypoints2D:
        """The corrected 2D joints, with those of the detector."""
        own = [[found.detected or found for found in view] for view in people]
        detected = stack_people(own, self.skeleton, scale_of(self.detector))
        return replace(super().stacked(people), detected=detected)

    def _answer(
        self,
        people: _Found,
        frames: Int[np.ndarray, " n"],
        places: Int[np.ndarray, "n V"],
        xy: Float[np.ndarray, "V T P J 2"],
        stated: Float[np.ndarray, "V T P J"],
    ) -> None:
        """Write the network's joints of n people, found at these places in each view, and their likelihoods."""
        there = places >= 0
        index = (np.arange(places.shape[1])[None], frames[:, None], np.maximum(places, 0))
        device = next(self.model.network.parameters()).device
        inputs = (people.tokens[index], people.cameras[index].astype(np.float32), there)
        with torch.inference_mode():
            answer = self.model.network(*(torch.from_numpy(values).to(device) for values in inputs))
        person, view = np.nonzero(there)
        slot = (view, frames[person], places[person, view])
        xy[slot] = to_image(answer.joints_2d.cpu().numpy()[person, view], people.crops[slot])
        stated[slot] = answer.confidence_2d.cpu().numpy()[person, view]


def network_stage(
    source: PlanSource, detector: DetectorConfig, model: str, weights_sha256: str, config: ReconstructionConfig
) -> FusionStage | NetworkStage:
    """The stage that runs the network in the folder `model`, by its method."""
    make = FusionStage if method_of(model) == TokenMethod.method else NetworkStage
    return make(source, detector, model, weights_sha256, config)


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections of a chunk, as the network takes them; undefined where there is no person."""

    tokens: Float[np.ndarray, "V T P J d"]
    cameras: Float[np.ndarray, "V T P 3 4"]
    """World (metres) to pixels of the crops."""
    crops: Float[np.ndarray, "V T P 2 3"]
    """Pixels of the images to those of the crops."""


def _stacked_tokens(found: list[list[People]], seen: Keypoints2D) -> Float[np.ndarray, "V T P J d"]:
    width = max((p.tokens.shape[-1] for view in found for p in view if p.tokens is not None), default=0)
    tokens = np.zeros((*seen.confidence.shape, width), np.float32)
    for v, view in enumerate(found):
        for t, people in enumerate(view):
            if people.tokens is not None and len(people.score):
                tokens[v, t, : len(people.score)] = people.tokens
    return tokens


def _cameras(
    rig: CameraRig, boxes: Float[np.ndarray, "V T P 4"], crops: Float[np.ndarray, "V T P 2 3"]
) -> Float[np.ndarray, "V T P 3 4"]:
    views = len(boxes)
    flat = crop_projections(rig, boxes.reshape(views, -1, 4), crops.reshape(views, -1, 2, 3))
    return flat.numpy().reshape(*boxes.shape[:3], 3, 4)
