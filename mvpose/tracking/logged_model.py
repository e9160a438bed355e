"""Log a network as an MLflow model that loads with MLflow and its requirements only.

Weights are safetensors and ONNX, and the model is code (`mvpose.serving.served_model`): nothing is pickled, neither on
saving nor on loading.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import distributions
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

import numpy as np
from packaging.version import Version

import mvpose
from mvpose.datasets.origins import TRAINED_ON, VALIDATED_ON
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.network_settings import LiftingMethod, Method, TokenMethod
from mvpose.models.saved import SavedModel
from mvpose.skeleton import SKELETONS
from mvpose.tracking.tracking_config import TrackingConfig, connection

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

# Distributions that a registered network imports up to its first answer; a test checks the list.
REQUIREMENTS = (
    "av", "botocore", "cattrs", "fsspec", "h5py", "jaxtyping", "numba", "numpy", "onnx", "opencv-python-headless",
    "openvino", "pandas", "psutil", "pyarrow", "safetensors", "scipy", "torch",
)  # fmt: skip
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""One of them is installed, as the extras `cpu` and `gpu` have it."""
EXAMPLE_VIEWS = 4
"""Of a network that accepts any number."""


def log_network(model: SavedModel, folder: str, run: str) -> ModelInfo:
    """Log the model folder with code, signature, example and requirements to the store of `global_stores`."""
    import mlflow

    package = os.path.dirname(os.path.abspath(mvpose.__file__))
    detector = registered_detector(model.config)
    with tempfile.TemporaryDirectory() as weights, mlflow.start_run(run_id=run):
        for card in (detector.person_card, detector.joint_card):
            shutil.copy(locate(read_card(card)), weights)
        return mlflow.pyfunc.log_model(
            name="network",
            python_model=os.path.join(package, "serving", "served_model.py"),
            artifacts={"model": folder, "weights": weights},
            code_paths=[package],
            pip_requirements=requirements(),
            signature=signature(),
            input_example=example(model),
            model_config={"weights_sha256": model.sha256, "detector": asdict(detector)},
            metadata={
                "input": json.loads(json.dumps(asdict(model.rule))),
                "weights_sha256": model.sha256,
                "detector": [detector.person_card, detector.joint_card],
                "joints": list(SKELETONS[model.rule.skeleton].joints),
                "config": json.loads(json.dumps(asdict(model.config))),
                # The names of all recordings would make the description slow to read; the model folder has them.
                "lineage": {k: v for k, v in model.lineage.items() if k not in (TRAINED_ON, VALIDATED_ON)},
            },
        )


def registered_detector(config: Method) -> DetectorConfig:
    """The detector that a version brings for whole images: that of a job by default, or whose tokens it fuses."""
    card = config.backbone.weights if isinstance(config, TokenMethod) else ""
    return DetectorConfig(joint_card=card) if card else DetectorConfig()


def example(model: SavedModel) -> pd.DataFrame:
    """Two input rows of noise, with cameras 3 m away: crops, but whole images for a lifter."""
    import cv2
    import pandas as pd

    rng, views = np.random.default_rng(0), model.rule.max_views or EXAMPLE_VIEWS
    width, height = model.rule.crop.size
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    rows = []
    for _ in range(2):
        matrices, crops = [], []
        for v in range(views):
            angle = 2 * np.pi * v / (views + 1)
            rotation = np.array([[-np.sin(angle), np.cos(angle), 0], [0, 0, -1], [-np.cos(angle), -np.sin(angle), 0]])
            camera = np.concatenate([rotation, [[0.0], [0.0], [3.0]]], axis=1)
            matrices.append(camera)
            noise = cv2.blur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (9, 9))
            crops.append(base64.b64encode(cv2.imencode(".jpg", noise)[1].tobytes()).decode())
        if isinstance(model.config, LiftingMethod):
            cameras = {"intrinsics": [intrinsics.tolist()], "camera_from_world": [m.tolist() for m in matrices]}
            rows.append({"images": crops, **cameras})
        else:
            projections = [(intrinsics @ m).tolist() for m in matrices]
            rows.append({"crops": crops, "projections": projections, "present": [True] * views})
    return pd.DataFrame(rows)


def signature() -> ModelSignature:
    """Input and output columns; see `mvpose.serving.served_model`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    numbers, texts, flags = (Array(kind) for kind in (DataType.double, DataType.string, DataType.boolean))
    matrices = Array(Array(numbers))
    return ModelSignature(
        Schema(
            [
                ColSpec(kind, name, required=False)
                for name, kind in (
                    ("images", texts),
                    ("intrinsics", matrices),
                    ("camera_from_world", matrices),
                    ("distortion", Array(numbers)),
                    ("lens", texts),
                    ("boxes", matrices),
                    ("crops", texts),
                    ("projections", matrices),
                    ("present", flags),
                )
            ]
        ),
        Schema([ColSpec(matrices, "joints"), ColSpec(Array(flags), "valid"), ColSpec(Array(numbers), "confidence")]),
    )


def requirements() -> list[str]:
    """Requirements of a registered network besides MLflow, as installed here, without local build tags (`+cpu`)."""
    here = {distribution.name for distribution in distributions()}
    runtime = next(name for name in RUNTIMES if name in here)
    return [f"{name}=={Version(installed(name)).public}" for name in (*REQUIREMENTS, runtime)]


@contextmanager
def global_stores(config: TrackingConfig) -> Iterator[None]:
    """Set the stores of `config` for MLflow calls that support only one store per process."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(connection(config))
    try:
        yield
    finally:
        # MLflow sets the environment variable itself; without this, the process-wide value would outlive this block.
        mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
