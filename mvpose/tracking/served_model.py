"""A registered network as MLflow runs it: this file is logged as code, and executed where the model is loaded.

One row of the input is one person in one frame, as V cameras see it:

| column | |
| --- | --- |
| crops | V texts: JPEG or PNG in base64, upright RGB pictures of the network's size, lens distortion removed |
| projections | V matrices 3 x 4: world metres to pixels of the crop (top-left pixel centre is (0, 0)) |
| present | V flags, may be left out: false for a view whose crop is to be ignored |

One row of the answer: `joints` (J x 3, world metres; null where there is no answer), `valid` (J), `confidence` (J, 0 to
1). Joint names are in the model's metadata. Nothing is unpickled, and weights of another digest are refused.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mvpose.errors import WeightsError
from mvpose.models.saved import load_model

# Crops of 8 people by 4 views in 256 x 256 are 25 MB as floats; more at once is no faster on a CPU.
BATCH = 8


class ServedModel(PythonModel):
    """A multi-view network behind MLflow's `predict`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights; WeightsError where they are not those that were registered."""
        self.model = load_model(context.artifacts["model"], "cuda" if torch.cuda.is_available() else "cpu")
        registered = (context.model_config or {})["weights_sha256"]
        if self.model.sha256 != registered:
            raise WeightsError(
                f"the weights have SHA-256 {self.model.sha256}, the registered version {registered}: they were altered"
            )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers in the order of the rows; ValueError says which row cannot be read."""
        rows = model_input.to_dict("records")
        alike: dict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            alike[_views(row, i)].append(i)
        answers: list[dict[str, Any]] = [{} for _ in rows]
        for indices in alike.values():
            for start in range(0, len(indices), BATCH):
                some = indices[start : start + BATCH]
                for i, answer in zip(some, self._answers([(i, rows[i]) for i in some]), strict=True):
                    answers[i] = answer
        return pd.DataFrame(answers)

    def _answers(self, rows: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
        device = next(self.model.network.parameters()).device
        crops = np.stack([[_decoded(text, self.model.config.size, i) for text in row["crops"]] for i, row in rows])
        projections = np.stack([_matrices(row, i) for i, row in rows])
        present = np.stack([_flags(row, i) for i, row in rows])
        with torch.inference_mode():
            found = self.model.network(
                torch.from_numpy(crops).movedim(-1, 2).contiguous().to(device),
                torch.from_numpy(projections).to(device),
                torch.from_numpy(present).to(device),
            )
        joints, valid, confidence = (
            x.cpu().numpy() for x in (found.joints.double(), found.valid, found.confidence.double())
        )
        return [
            {
                "joints": [point.tolist() if known else [None] * 3 for point, known in zip(xyz, mask, strict=True)],
                "valid": mask.tolist(),
                "confidence": sure.tolist(),
            }
            for xyz, mask, sure in zip(joints, valid, confidence, strict=True)
        ]


def _views(row: dict[str, Any], i: int) -> int:
    crops = row.get("crops")
    if not isinstance(crops, (list, tuple, np.ndarray)) or not len(crops):
        raise ValueError(f"row {i}: `crops` is {type(crops).__name__}, and a list of pictures is needed")
    return len(crops)


def _decoded(text: str, size: tuple[int, int], row: int) -> np.ndarray:
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"row {row}: a crop is not base64 text ({error})") from error
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:  # above OpenCV's limit of pixels
        raise ValueError(f"row {row}: a crop cannot be decoded ({error.err})") from error
    if picture is None:
        raise ValueError(f"row {row}: a crop is neither JPEG nor PNG")
    if picture.shape[1::-1] != tuple(size):
        raise ValueError(f"row {row}: a crop is {picture.shape[1]}x{picture.shape[0]}, the network takes {size}")
    return picture[..., ::-1].copy()


def _matrices(row: dict[str, Any], i: int) -> np.ndarray:
    try:
        found = np.array([[list(line) for line in matrix] for matrix in row["projections"]], np.float32)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"row {i}: `projections` are not 3 x 4 matrices of numbers ({error})") from error
    if found.shape != (len(row["crops"]), 3, 4):
        raise ValueError(f"row {i}: {len(row['crops'])} crops need as many 3 x 4 matrices, these are {found.shape}")
    return found


def _flags(row: dict[str, Any], i: int) -> np.ndarray:
    flags, views = row.get("present"), len(row["crops"])
    if flags is None or flags is np.nan:
        return np.ones(views, bool)
    if np.shape(flags) != (views,):
        raise ValueError(f"row {i}: {views} crops need as many flags in `present`, these are {np.shape(flags)}")
    return np.array([bool(flag) for flag in flags])


set_model(ServedModel())
