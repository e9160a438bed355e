"""A network of one image as the source of 3D joints: what captures of one camera get in place of a second view.

The detector finds people, and each of them is cut out by the crop rule of the network's training. The network gives
their joints in the axes of the camera: a pose up to scale, placed by the rule of `models.single_view.monocular`. They
are stored beside the detector's 2D joints, which track the people, and against which the poses are judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.pinhole_crops import CropRule, cut_crops
from mvpose.models.saved import open_model
from mvpose.pipeline.detect_stage import DetectStage
from mvpose.pipeline.plan_source import PlanSource
from mvpose.records import Keypoints2D, Task
from mvpose.skeleton import SKELETONS

BATCH = 8


class MonocularStage(DetectStage):
    """Footage of one camera to the detector's 2D joints, and to the network's 3D joints of the same people.

    Both have the detector's joint set: a joint that the network does not know is NaN.
    """

    as_decoded = False

    def __init__(self, source: PlanSource, detector: DetectorConfig, model: str, weights_sha256: str) -> None:
        super().__init__(source, detector)
        self.model = open_model(model, weights_sha256, detector.device or "cpu")

    def refined(self, chunk: Sequence[ViewFrames], found: list[list[People]], task: Task) -> list[list[People]]:
        """The detected people with their poses, by view and frame."""
        return self.seen_again(chunk, found, self.source.setup(task).rig)

    def seen_again(
        self, chunk: Sequence[ViewFrames], detected: list[list[People]], rig: CameraRig
    ) -> list[list[People]]:
        """Give people detected in consecutive frames their poses; by view and frame. ConfigError for several views."""
        self.model.rule.require_views(len(rig))
        ((view,), (people,)) = chunk, detected
        poses = [np.full((*own.xy.shape[:2], 3), np.nan, np.float32) for own in people]
        boxes = [_joint_boxes(own, rig) for own in people]
        places = ((t, p) for t, own in enumerate(boxes) for p in np.flatnonzero(np.isfinite(own[:, 0])))
        while some := list(itertools.islice(places, BATCH)):
            cuts = [_cut(view, t, boxes[t][p], rig, self.model.rule.crop) for t, p in some]
            for (t, p), pose in zip(some, self._poses(cuts, rig), strict=True):
                poses[t][p] = pose
        return [[replace(own, lifted=pose) for own, pose in zip(people, poses, strict=True)]]

    def stacked(self, people: Sequence[Sequence[People]]) -> Keypoints2D:
        """The 2D joints with the poses."""
        keypoints = super().stacked(people)
        lifted = np.full((*keypoints.xy.shape[:-1], 3), np.nan, np.float32)
        for v, view in enumerate(people):
            for t, found in enumerate(view):
                lifted[v, t, : len(found.score)] = found.lifted
        return replace(keypoints, lifted=lifted)

    def _poses(self, cuts: list[tuple[np.ndarray, np.ndarray]], rig: CameraRig) -> Float[np.ndarray, "n J 3"]:
        """Joints of the detector's joint set in the axes of the camera, metres."""
        device = next(self.model.network.parameters()).device
        crops, projections = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*cuts, strict=True))
        with torch.inference_mode():
            answer = self.model.network(crops[:, None], projections[:, None].float())
        world = torch.where(answer.valid[..., None], answer.joints, torch.nan).double().cpu()
        pose = rig.to(torch.float64).camera_from_world
        in_camera = (world @ pose.rotation[0].T + pose.translation[0]).numpy()
        source, known = SKELETONS[self.model.rule.skeleton].remap(self.skeleton)
        return np.where(known[:, None], in_camera[:, source], np.nan)


def _joint_boxes(people: People, rig: CameraRig) -> Float[np.ndarray, "P 4"]:
    """Boxes about the found joints in the image, as `datasets.sample.observed` has them; NaN for nobody."""
    inside = rig.inside(torch.from_numpy(people.xy)[None].double())[0].numpy()
    known = (inside & (people.confidence > 0))[..., None]
    low, high = np.where(known, people.xy, np.inf).min(axis=1), np.where(known, people.xy, -np.inf).max(axis=1)
    box = np.concatenate([low, high], axis=1).astype(np.float64)
    return np.where(np.isfinite(box), box, np.nan)


def _cut(
    view: ViewFrames, t: int, box: Float[np.ndarray, "4"], rig: CameraRig, rule: CropRule
) -> tuple[np.ndarray, np.ndarray]:
    """A person's crop (3 H W), and its projection matrix (3 4)."""

    def image(_: int) -> np.ndarray:
        found = view.image(t)
        assert isinstance(found, np.ndarray)  # RGB was asked for, and a frame that a view lacks has no detections
        return found

    ((_, crop, change),) = cut_crops(image, rig, box[None], [0], rule)
    return crop.transpose(2, 0, 1), change @ rig.projections[0].double().numpy()
