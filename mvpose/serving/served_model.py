"""The MLflow model of a registered network: this file is logged as code and executed where the model is loaded.

One row of the input is one moment, in one of two ways. Whole images, whose people are found and matched:

| column | |
| --- | --- |
| images | V strings: JPEG or PNG in base64, as the cameras recorded them |
| intrinsics | V matrices K, 3 x 3, in pixels (the centre of the top-left pixel is (0, 0)) |
| camera_from_world | V matrices 3 x 4: `x_camera = R x_world + t`, metres, camera axes as OpenCV's |
| distortion | V lists of up to 12 coefficients in OpenCV's order, optional: none by default |
| lens | V times brown_conrady (default) or kannala_brandt (OpenCV's `fisheye`), optional |
| boxes | V lists of people's boxes (left, top, right, bottom in pixels), optional: without it people are looked for |

Of a network of one camera the lists have one entry: everybody in its image gets the network's pose, whose depth and
size are guesses. Or, the fast way (but not for a lifter, which takes no images), crops of one person:

| column | |
| --- | --- |
| crops | V strings: JPEG or PNG in base64, upright RGB images, cut by the rule under `input` in the metadata |
| projections | V matrices 3 x 4: world metres to pixels of the crop (top-left pixel centre is (0, 0)) |
| present | V flags, optional: false for a view whose crop is to be ignored |

One row of the output has P people (of crops: one): `joints` (P x J x 3, world metres; null if there is no answer),
`valid` (P x J), `confidence` (P x J, 0 to 1). The metadata names the joints and, under `input`, states the crop's size
and margin (crop over box about the joints, once lens distortion is removed) and the accepted numbers of views;
`mvpose.models.pinhole_crops.cut_crops` cuts such crops. Whole images take the path of `mvpose reconstruct`: the same
detector, matching, network and triangulation with rejection of views, for this moment alone. Nothing is unpickled, and
weights with another digest are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mvpose.config import structure
from mvpose.errors import ConfigError, MvposeError, NoPersonError, WeightsError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.cards import weights_in
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.detection.runtime import runs_on_cuda
from mvpose.models.network_settings import LIFTING, MonocularMethod
from mvpose.models.saved import open_model
from mvpose.pipeline.detect_stage import DetectStage
from mvpose.pipeline.detections import detected
from mvpose.pipeline.fusion_stage import FusionStage, network_stage
from mvpose.pipeline.monocular_stage import MonocularStage
from mvpose.pipeline.network_stage import NetworkStage
from mvpose.pipeline.plan_source import PlanSource
from mvpose.reconstruction.clip import MAX_TRACKS, ReconstructionConfig, reconstruct
from mvpose.reconstruction.lifted_people import TrackLifter, lift_people
from mvpose.serving.request_rows import CropRow, ImageRow, crop_row, image_row
from mvpose.tracking.chosen_model import method_of

# Crops of 8 people by 4 views in 256 x 256 are 25 MB as floats; larger batches are no faster on a CPU.
BATCH = 8
MOMENT_FPS = 1.0
"""So few frames per second that views are judged by the moment alone (`joints.WINDOW_S`)."""


class LifterStage(DetectStage):
    """The detector before a lifter, which takes its 2D joints."""

    as_decoded = False

    def __init__(self, source: PlanSource, detector: DetectorConfig, model: str, weights_sha256: str) -> None:
        super().__init__(source, detector)
        self.model = open_model(model, weights_sha256)
        self.lift = TrackLifter.of(self.model)

    def seen_again(self, _: Sequence[ViewFrames], detected: list[list[People]], rig: CameraRig) -> list[list[People]]:
        """The detected people. ConfigError for several cameras."""
        self.model.rule.require_views(len(rig))
        return detected


class ServedModel(PythonModel):
    """A network behind MLflow's `predict`."""

    stage: FusionStage | NetworkStage | MonocularStage | LifterStage

    def load_context(self, context: PythonModelContext) -> None:
        """Load network and detector; WeightsError if the network's weights are not the registered ones."""
        stated = context.model_config or {}
        device = "cuda" if torch.cuda.is_available() and runs_on_cuda() else None
        detector = structure(stated["detector"] | {"device": device}, DetectorConfig, "detector")
        with weights_in(context.artifacts["weights"]):
            self.stage = _stage(detector, context.artifacts["model"])
        found, registered = self.stage.model.sha256, stated["weights_sha256"]
        if found != registered:
            raise WeightsError(
                f"the weights have SHA-256 {found}, the registered version {registered}: they were changed"
            )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return answers in the order of the rows; ValueError names the row that cannot be read."""
        answers: list[dict[str, Any]] = [{} for _ in range(len(model_input))]
        alike: dict[int, list[tuple[int, CropRow]]] = defaultdict(list)
        for i, row in enumerate(model_input.to_dict("records")):
            try:
                if isinstance(row.get("images"), (list, tuple, np.ndarray)):
                    answers[i] = self._people(image_row(row))
                else:
                    read = crop_row(row, self.stage.model.rule)
                    alike[len(read.crops)].append((i, read))
            except (MvposeError, ValueError) as error:
                raise ValueError(f"row {i}: {error}") from error
        for rows in alike.values():
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                for (i, _), answer in zip(some, self._persons([row for _, row in some]), strict=True):
                    answers[i] = answer
        return pd.DataFrame(answers)

    def _people(self, row: ImageRow) -> dict[str, Any]:
        """Everyone in the view of two cameras, or of the only one, by the path of the job."""
        rule, config = self.stage.model.rule, ReconstructionConfig()
        rule.require_views(len(row.images))
        chunk = [ViewFrames(image[None], np.ones(1, bool)) for image in row.images]
        found = detected(self.stage.detector, chunk) if row.boxes is None else self._in_boxes(row.images, row.boxes)
        keypoints = self.stage.stacked(self.stage.seen_again(chunk, found, row.rig))
        lift = self.stage.lift if isinstance(self.stage, LifterStage) else None
        try:
            if rule.one_view:
                poses = lift_people(keypoints, row.rig, lift, config, MOMENT_FPS, MAX_TRACKS)
            else:
                poses = reconstruct(keypoints, row.rig, config, MOMENT_FPS)
        except NoPersonError:
            nothing = np.zeros((0, len(self.stage.skeleton.joints), 3))
            return _answer(nothing, nothing[..., 0])
        return _answer(poses.xyz[0].astype(np.float64), poses.confidence[0].astype(np.float64))

    def _in_boxes(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[list[People]]:
        """The people in given boxes, by view and frame."""
        detector = self.stage.detector
        assert isinstance(detector, TopDownDetector)  # of `registered_detector`
        return [
            [detector.in_boxes([image] * len(own), own, np.ones(len(own)))]
            for image, own in zip(images, boxes, strict=True)
        ]

    def _persons(self, rows: list[CropRow]) -> list[dict[str, Any]]:
        """One person for each row; rows have the same number of views. ConfigError for a lifter."""
        if isinstance(self.stage, LifterStage):
            raise ConfigError("a lifter takes no crops: send whole images.")
        device = next(self.stage.model.network.parameters()).device
        crops, projections, present = (
            torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(device)
            for name in ("crops", "projections", "present")
        )
        with torch.inference_mode():
            found = self.stage.model.network(crops.movedim(-1, 2).contiguous(), projections, present)
        joints = torch.where(found.valid[..., None], found.joints.double(), torch.nan).cpu().numpy()
        confidence = found.confidence.double().cpu().numpy()
        return [_answer(xyz[None], sure[None]) for xyz, sure in zip(joints, confidence, strict=True)]


def _stage(detector: DetectorConfig, model: str) -> FusionStage | NetworkStage | MonocularStage | LifterStage:
    """The stage of the network in a folder, by its method."""
    source, method = PlanSource("", ""), method_of(model)
    if method in LIFTING:
        return LifterStage(source, detector, model, "")
    if method == MonocularMethod.method:
        return MonocularStage(source, detector, model, "")
    return network_stage(source, detector, model, "", ReconstructionConfig())


def _answer(joints: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Joints (P J 3, NaN if unknown) and confidence (P J) as an output row."""
    valid = np.isfinite(joints).min(axis=-1)
    return {
        "joints": [
            [point.tolist() if known else [None] * 3 for point, known in zip(xyz, mask, strict=True)]
            for xyz, mask in zip(joints, valid, strict=True)
        ],
        "valid": valid.tolist(),
        "confidence": confidence.tolist(),
    }


set_model(ServedModel())
