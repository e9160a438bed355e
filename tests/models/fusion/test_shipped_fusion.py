"""The shipped canonical fusion on real footage: the covered half of a view is found where it is, by the other views."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.benchmarks.covered_cameras import Cover, CoveredCameras, DetectorAndFusion, covered
from mvpose.footage.catalogue import CatalogueConfig, find_captures
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.fusion import canonical_tokens
from mvpose.models.shipped import FUSION
from mvpose.pipeline.detections import chunks_of_views
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import Clip
from mvpose.skeleton import BODY_JOINTS

pytestmark = pytest.mark.footage
VIEW = 1
SURE = 0.6
GAIN = 0.38
"""Of the distance of covered joints: 0.27 with fusion, 0.49 with one camera for all views."""


@pytest.fixture(scope="module")
def fusion(weights) -> DetectorAndFusion:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MVPOSE_WEIGHTS", weights)
        return DetectorAndFusion(FUSION, DetectorConfig(), ReconstructionConfig())


@pytest.fixture(scope="module")
def athlete(footage, fusion) -> CoveredCameras:
    """Four frames of one person by four cameras, the lower half of the person hidden from one of them."""
    config = CatalogueConfig(calibration="Calib_scene.toml")
    capture = find_captures(os.path.join(footage, "Demo_SinglePerson"), config).captures[0]
    middle = np.zeros((len(capture.rig), 2))
    chunk = next(chunks_of_views(capture.videos, Clip(capture.capture_id, 40, 44), 4))
    uncovered = fusion.detections([chunk], middle, {Cover.NOTHING: range(len(middle))})[Cover.NOTHING]
    hips = fusion.detector.skeleton.indices("left_hip", "right_hip")
    for v, view in enumerate(uncovered):
        middle[v] = np.mean([people.xy[0, hips].mean(axis=0) for people in view], axis=0)
    hidden = covered(chunk[VIEW].images, middle[VIEW], Cover.LOWER)
    # In the box of the whole person: the detector's own box would end at the screen, and no joint can be beyond it.
    box, score = (
        np.concatenate([getattr(people, name)[:1] for people in uncovered[VIEW]]) for name in ("box", "score")
    )
    seen = fusion.detector.in_boxes(list(hidden), box.astype(np.float64), score.astype(np.float64))
    half: list[list[People]] = [[] for _ in middle]
    half[VIEW] = [seen.some(slice(t, t + 1)) for t in range(len(hidden))]
    return CoveredCameras("athlete", capture.rig, capture.fps, middle, {Cover.NOTHING: uncovered, Cover.LOWER: half})


def found(fusion: DetectorAndFusion, cameras: CoveredCameras, *, fused: bool) -> np.ndarray:
    """Distances of the covered joints from where they are detected uncovered, by frame, in pixels."""
    keypoints, _ = fusion.keypoints(cameras, range(len(cameras.rig)), {VIEW: Cover.LOWER}, fused=fused)
    legs = fusion.detector.skeleton.indices(*(joint for joint in BODY_JOINTS if "knee" in joint or "ankle" in joint))
    apart = []
    for t, people in enumerate(cameras.found[Cover.NOTHING][VIEW]):
        sure = people.confidence[0, legs] > SURE
        there = keypoints.xy[VIEW, t][:, legs][:, sure]
        distance = np.linalg.norm(there - people.xy[0, legs][sure], axis=-1).mean(axis=-1)
        apart.append(float(np.nanmin(distance)))
    return np.array(apart)


def test_covered_joints_are_found_by_the_other_views_and_trusted_less(fusion, athlete) -> None:
    alone = found(fusion, athlete, fused=False)
    said = []
    hook = fusion._stage.model.network.register_forward_hook(lambda _, __, answer: said.append(answer.confidence_2d))
    together = found(fusion, athlete, fused=True)
    hook.remove()
    assert together.mean() < GAIN * alone.mean()
    legs = fusion.detector.skeleton.indices("left_knee", "right_knee", "left_ankle", "right_ankle")
    likelihood = torch.cat(said)[:, :, legs].mean(dim=(0, 2))
    others = [view for view in range(len(athlete.rig)) if view != VIEW]
    assert likelihood[VIEW] < 0.85 * likelihood[others].mean()


@pytest.mark.parametrize("wrong", ["one camera for all", "cameras in another order"])
def test_without_its_cameras_fusion_does_not_find_them(fusion, athlete, monkeypatch, wrong) -> None:
    """The feature transform layer carries the views' information: it is lost with cameras that are not the views'."""
    alone = found(fusion, athlete, fused=False)
    exchanged = canonical_tokens.canonically_exchanged

    def without_cameras(latents, views, fuse):
        own = views.frame.projections
        other = own[:, :1].expand_as(own) if wrong == "one camera for all" else own.roll(1, dims=1)
        return exchanged(latents, replace(views, frame=replace(views.frame, projections=other)), fuse)

    monkeypatch.setattr(canonical_tokens, "canonically_exchanged", without_cameras)
    together = found(fusion, athlete, fused=True)
    assert together.mean() > GAIN * alone.mean()
