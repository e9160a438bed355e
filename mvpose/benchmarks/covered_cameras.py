"""What a detector finds in cameras whose images are covered in part, and what is reconstructed from it.

The images of a camera are detected once for each cover, so that every choice of cameras and covers is a choice among
detections. They are reconstructed from the detector's own joints, and from those of fusion without second looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Float, Int, UInt8

from mvpose.confidence import AS_STATED
from mvpose.errors import MvposeError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector import scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.saved import load_model
from mvpose.models.shipped import model_folder
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.detections import detected
from mvpose.pipeline.fusion_stage import FusedJoints, FusionStage
from mvpose.pipeline.network_stage import same_people
from mvpose.pipeline.plan_source import PlanSource
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.records import Keypoints2D, Poses3D

GREY = 128


class Cover(StrEnum):
    """What hides a part of a camera's images: about half of the person, in the middle of the frames."""

    NOTHING = "nothing"
    LOWER = "lower half"
    LEFT = "left half"
    EDGE = "edge of the image"


@dataclass(frozen=True, eq=False)
class CoveredCameras:
    """Detections of a stretch of frames by cover, view and frame."""

    name: str
    rig: CameraRig
    fps: float
    middle: Float[np.ndarray, "V 2"]
    """Where the person is divided, pixels."""
    found: Mapping[Cover, Sequence[list[People]]]
    """A cover need not have all views: a view that is not detected has an empty list."""


class DetectorAndFusion:
    """The default detector, and a network that fuses its tokens."""

    def __init__(self, model: str, detector: DetectorConfig, config: ReconstructionConfig) -> None:
        folder = model_folder(model)
        self._stage = FusionStage(PlanSource("", ""), detector, folder, load_model(folder).sha256, config)
        self.detector, self.config = self._stage.detector, config

    def keypoints(
        self, cameras: CoveredCameras, views: Sequence[int], covers: Mapping[int, Cover], *, fused: bool
    ) -> tuple[Keypoints2D, CameraRig]:
        """2D joints of some views, some of them covered, and their cameras."""
        found, rig = _of_views(cameras, views, covers)
        skeleton = self.detector.skeleton
        seen = stack_people(found, skeleton, scale_of(self.detector))
        if not fused:
            return seen, rig
        places = same_people(seen, rig, self.config).places.numpy()
        return stack_people(self._stage.fused(found, places, rig), skeleton, AS_STATED), rig

    def answers(
        self, cameras: CoveredCameras, views: Sequence[int], covers: Mapping[int, Cover]
    ) -> tuple[Keypoints2D, CameraRig, Int[np.ndarray, "T K V"], FusedJoints]:
        """What the detector sees, by which cameras, who are the same person, and what fusion makes of them."""
        found, rig = _of_views(cameras, views, covers)
        seen = stack_people(found, self.detector.skeleton, scale_of(self.detector))
        places = same_people(seen, rig, self.config).places.numpy()
        return seen, rig, places, self._stage.answers(found, seen, places, rig)

    def poses(
        self, cameras: CoveredCameras, views: Sequence[int], covers: Mapping[int, Cover], people: int, *, fused: bool
    ) -> Poses3D | None:
        """At most `people` people; None if nobody is found."""
        return self.reconstructed(*self.keypoints(cameras, views, covers, fused=fused), cameras.fps, people)

    def reconstructed(self, keypoints: Keypoints2D, rig: CameraRig, fps: float, people: int) -> Poses3D | None:
        """`poses` of 2D joints that are already there."""
        try:
            return reconstruct(keypoints, rig, self.config, fps, people)
        except MvposeError:
            return None

    def detections(
        self,
        chunks: Iterable[Sequence[ViewFrames]],
        middle: Float[np.ndarray, "V 2"],
        covers: Mapping[Cover, Sequence[int]],
    ) -> dict[Cover, list[list[People]]]:
        """People of the views named for each cover, with their tokens, chunk by chunk."""
        found: dict[Cover, list[list[People]]] = {cover: [[] for _ in middle] for cover in covers}
        for chunk in chunks:
            for cover, views in covers.items():
                shown = [
                    ViewFrames(covered(np.asarray(chunk[v].images), middle[v], cover), chunk[v].there) for v in views
                ]
                for view, people in zip(views, detected(self.detector, shown), strict=True):
                    found[cover][view] += people
        return found


def covered(
    images: UInt8[np.ndarray, "n H W 3"], middle: Float[np.ndarray, "2"], cover: Cover
) -> UInt8[np.ndarray, "n h W 3"]:
    """Images with a part behind a grey screen, or cut off by the lower edge."""
    column, row = np.clip(np.round(middle), 1, (images.shape[2] - 1, images.shape[1] - 1)).astype(int)
    if cover == Cover.EDGE:
        return np.ascontiguousarray(images[:, :row])
    images = images.copy()
    if cover == Cover.LOWER:
        images[:, row:] = GREY
    if cover == Cover.LEFT:
        images[:, :, :column] = GREY
    return images


def _of_views(
    cameras: CoveredCameras, views: Sequence[int], covers: Mapping[int, Cover]
) -> tuple[list[list[People]], CameraRig]:
    found = [cameras.found[covers.get(view, Cover.NOTHING)][view] for view in views]
    return found, _cut(cameras, covers).select(tuple(cameras.rig.names[view] for view in views))


def _cut(cameras: CoveredCameras, covers: Mapping[int, Cover]) -> CameraRig:
    """The cameras with the heights of images that are cut off."""
    size = cameras.rig.size.clone()
    for view, cover in covers.items():
        if cover == Cover.EDGE:
            size[view, 1] = int(np.clip(round(cameras.middle[view, 1]), 1, int(size[view, 1]) - 1))
    return replace(cameras.rig, size=size)
