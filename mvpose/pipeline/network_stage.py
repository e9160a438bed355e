"""A multi-view network as the source of 2D joints: it processes all views of a person at once.

The detector finds people in each view, association matches the boxes of one person across views, and the network gets
their crops and cameras. Its joints in each view become the 2D joints of the run. Later stages do not change:
triangulation with rejection of views, tracks, quality figures. 2D and 3D remain separate results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mvpose.confidence import AS_STATED
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector import scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.pinhole_crops import CropRule, cut_crops
from mvpose.models.saved import SavedModel, open_model
from mvpose.pipeline.detect_stage import DetectStage, stack_people
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.worker import Outcome
from mvpose.reconstruction.association import Association, associate
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.joints import WIDEST
from mvpose.reconstruction.observations import observe
from mvpose.records import Keypoints2D, Task
from mvpose.skeleton import SKELETONS

BATCH = 8


@dataclass(frozen=True, eq=False)
class _Question:
    """The network's input for one person in one frame, and the mapping of its output back to the images."""

    crops: UInt8[np.ndarray, "V 3 H W"]
    projections: Float[np.ndarray, "V 3 4"]
    present: Bool[np.ndarray, " V"]
    pinhole_from_crop: Float[np.ndarray, "V 3 3"]
    box: Float[np.ndarray, "V 4"]
    score: Float[np.ndarray, " V"]


class NetworkStage(DetectStage):
    """Footage to 2D joints from a multi-view network, for everyone seen in at least two views."""

    as_decoded = False

    def __init__(
        self,
        source: PlanSource,
        detector: DetectorConfig,
        model: str,
        weights_sha256: str,
        config: ReconstructionConfig,
    ) -> None:
        super().__init__(source, detector)
        self.model = open_model(model, weights_sha256, detector.device or "cpu")
        self.skeleton, self.scale = SKELETONS[self.model.rule.skeleton], AS_STATED
        self.config = config

    def refined(self, chunk: Sequence[ViewFrames], found: list[list[People]], task: Task) -> list[list[People]]:
        """The detected people refined by the network, by view and frame."""
        return self.seen_again(chunk, found, self.source.setup(task).rig)

    def seen_again(
        self, chunk: Sequence[ViewFrames], detected: list[list[People]], rig: CameraRig
    ) -> list[list[People]]:
        """Refine people detected in consecutive frames of all views of a rig; by view and frame.

        ConfigError if the network does not accept the rig's number of views.
        """
        self.model.rule.require_views(len(rig))
        seen = stack_people(detected, self.detector.skeleton, scale_of(self.detector))
        places = same_people(seen, rig, self.config).places.numpy()
        found: list[list[list[People]]] = [[[] for _ in view.there] for view in chunk]
        questions = [
            (t, _request(chunk, seen, t, member, rig, self.model.rule.crop))
            for t, members in enumerate(places)
            for member in members
            if (member >= 0).sum() >= 2
        ]
        for start in range(0, len(questions), BATCH):
            some = questions[start : start + BATCH]
            for (t, question), views in zip(some, _answers(self.model, [q for _, q in some], rig), strict=True):
                for v in np.flatnonzero(question.present):
                    found[v][t].append(views[v])
        return [[_together(people, len(self.skeleton.joints)) for people in view] for view in found]


class OneOrMoreCameras:
    """Footage to 2D joints: of several cameras by the stage that `several` makes, of one by that of `alone`."""

    def __init__(
        self, source: PlanSource, several: Callable[[], Callable[[Task], Outcome]], alone: Callable[[], DetectStage]
    ) -> None:
        self.source, self.make_alone = source, alone
        self.several = several()

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip."""
        return (self.several if len(self.source.footage(task).videos) > 1 else self.alone)(task)

    @cached_property
    def alone(self) -> DetectStage:
        """Loads the detector again, for the first capture of one camera."""
        return self.make_alone()


def same_people(seen: Keypoints2D, rig: CameraRig, config: ReconstructionConfig) -> Association:
    """The people of each frame, by the rule of the reconstruction."""
    observed = observe(seen, rig, config.min_confidence)
    if not observed.weight.any():
        frames, joints, views = seen.xy.shape[1], seen.xy.shape[3], len(rig)
        known = torch.empty(frames, 0, joints, dtype=torch.bool)
        support, bodies = torch.empty(frames, 0, views), torch.empty(frames, 0, joints, 3)
        return Association(torch.empty(frames, 0, views, dtype=torch.int64), support, bodies, known)
    return associate(observed, rig, config.expected_error, WIDEST * config.max_error)


def _request(
    chunk: Sequence[ViewFrames], seen: Keypoints2D, t: int, member: np.ndarray, rig: CameraRig, rule: CropRule
) -> _Question:
    (width, height), views = rule.size, len(rig)
    crops = np.zeros((views, 3, height, width), np.uint8)
    projections, back = np.zeros((views, 3, 4)), np.zeros((views, 3, 3))
    place = np.maximum(member, 0)
    box = np.where((member >= 0)[:, None], _joint_boxes(seen, t, place), np.nan)
    cameras = rig.projections.double().numpy()

    def image(v: int) -> UInt8[np.ndarray, "h w 3"]:
        found = chunk[v].image(t)
        assert isinstance(found, np.ndarray)  # RGB was asked for, and a frame that a view lacks has no detections
        return found

    for v, crop, change in cut_crops(image, rig, box, np.flatnonzero(member >= 0).tolist(), rule):
        crops[v] = crop.transpose(2, 0, 1)
        projections[v], back[v] = change @ cameras[v], np.linalg.inv(change)
    row = np.arange(views)
    return _Question(crops, projections, member >= 0, back, seen.box[row, t, place], seen.box_score[row, t, place])


def _joint_boxes(seen: Keypoints2D, t: int, place: np.ndarray) -> Float[np.ndarray, "V 4"]:
    """Boxes around the joints of a person in each view, the input of the crop rule."""
    row = np.arange(len(place))
    xy = seen.xy[row, t, place]
    known = np.isfinite(xy)
    low, high = np.where(known, xy, np.inf).min(axis=1), np.where(known, xy, -np.inf).max(axis=1)
    return np.concatenate([low, high], axis=1).astype(np.float64)


def _answers(model: SavedModel, questions: list[_Question], rig: CameraRig) -> list[list[People]]:
    """For each question one person per view; the result of a view that is not present is meaningless."""
    device = next(model.network.parameters()).device
    crops, projections, present = (
        torch.from_numpy(np.stack([getattr(q, name) for q in questions])).to(device)
        for name in ("crops", "projections", "present")
    )
    with torch.inference_mode():
        found = model.network(crops, projections.float(), present)
    # Joints that the network marks as invalid get no confidence in any view.
    confidence = (found.confidence_2d * found.valid[:, None]).float().cpu().numpy()
    points = found.joints_2d.double().cpu().numpy()
    answers = []
    for question, xy, sure in zip(questions, points, confidence, strict=True):
        pixels = _in_images(xy, question.pinhole_from_crop, rig).astype(np.float32)
        views = zip(question.box, question.score, pixels, sure, strict=True)
        answers.append([People(*(part[None] for part in view)) for view in views])
    return answers


def _in_images(
    xy: Float[np.ndarray, "V J 2"], pinhole_from_crop: Float[np.ndarray, "V 3 3"], rig: CameraRig
) -> Float[np.ndarray, "V J 2"]:
    """Crop pixels to pixels of the decoded images, with lens distortion."""
    ideal = torch.from_numpy(xy @ pinhole_from_crop[:, :2, :2].swapaxes(1, 2) + pinhole_from_crop[:, None, :2, 2])
    rig = rig.to(torch.float64)
    plane = (ideal - rig.centre[:, None]) / rig.focal[:, None]
    return (rig.lens.distort(plane) * rig.focal[:, None] + rig.centre[:, None]).numpy()


def _together(people: list[People], num_joints: int) -> People:
    """Merge people into one record per image."""
    if people:
        box, score, xy, confidence = (
            np.concatenate([getattr(p, part) for p in people]) for part in ("box", "score", "xy", "confidence")
        )
        return People(box, score, xy, confidence)
    joints = np.zeros((0, num_joints, 2), np.float32)
    return People(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), joints, joints[..., 0])
