"""Small networks on disk, evaluations of given errors, and inputs of a registered model."""

import base64
import json
import os

import cv2
import numpy as np
import pandas as pd
import torch

from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.fusion.canonical_fusion import FusionConfig
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import FusionMethod
from mvpose.models.saved import save_model
from mvpose.tracking.registry import evaluation_seal

SMALL = FusionMethod(
    method="canonical_fusion",
    skeleton="coco17",
    size=(64, 64),
    backbone=ResNetBackbone(depth=18, width=8),
    fusion=FusionConfig(views=3, fusion="pooling", points=8, head_width=8),
)
JOINTS = 17


SEEN = {
    "trained_on": [{"dataset": "held", "recordings": ["walk"], "people": ["A"]}],
    "validated_on": [{"dataset": "held", "recordings": ["run"], "people": []}],
}
"""What the networks here were trained on, and selected by."""


def saved(folder: str, seed: int = 0, margin: float = MARGIN, seen: dict = SEEN) -> str:
    """A network of random weights whose maps have peaks, so that it answers what it sees; the digest of its weights."""
    torch.manual_seed(seed)
    network = build_method(SMALL)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == JOINTS:
                layer.weight.normal_(0.0, 5.0 / layer.in_channels**0.5)
        network.train()(*question(seed)[:2])
    lineage = {"data_digest": "abc", "metrics": {"mpjpe_m": 0.05}, **seen}
    return save_model(folder, network, input_rule(SMALL, margin), SMALL, lineage)


def evaluated(folder: str, model_sha256: str, errors_m: np.ndarray, data: str = "held-out", **columns) -> str:
    """An evaluation with these errors (captures x frames) of two joints; the folder. `columns` replace others."""
    os.makedirs(folder, exist_ok=True)
    captures, frames = np.indices(errors_m.shape)
    rows = pd.DataFrame(
        {
            "dataset": "held",
            "capture": [f"c{c}" for c in captures.ravel()],
            "frame": frames.ravel(),
            "person": 0,
            "subject": "s",
            "action": "a",
            "pose": [f"{c:06x}{f:06x}" for c, f in zip(captures.ravel(), frames.ravel(), strict=True)],
            "views": 3,
            "cameras": [["a", "b", "c"]] * captures.size,
            "unseen": False,
            **dict.fromkeys(("mpjpe_m", "mpjpe_relative_m", "pa_mpjpe_m"), errors_m.ravel()),
            "joint_error_m": [[e, e] for e in errors_m.ravel().astype(np.float32)],
            **columns,
        }
    )
    if (rows["views"] == 1).all():
        rows.to_parquet(os.path.join(folder, "samples.parquet"), index=False)
        return _summarised(folder, model_sha256, errors_m, data)
    worse = [[e + 1.0 for e in joints] for joints in rows.joint_error_m]
    fewer = rows.assign(views=2, mpjpe_m=rows.mpjpe_m + 1.0, joint_error_m=worse)
    pd.concat([fewer, rows]).to_parquet(os.path.join(folder, "samples.parquet"), index=False)
    return _summarised(folder, model_sha256, errors_m, data)


def _summarised(folder: str, model_sha256: str, errors_m: np.ndarray, data: str) -> str:
    summary = {
        "data_sha256": data,
        "model_sha256": model_sha256,
        "protocol": "every sample",
        "metrics": {"mpjpe_m": float(np.nanmean(errors_m))},
        "intervals": {},
    }
    with open(os.path.join(folder, "samples.parquet"), "rb") as file:
        summary["seal"] = evaluation_seal(summary, file.read())
    with open(os.path.join(folder, "summary.json"), "w") as file:
        json.dump(summary, file)
    return folder


def question(seed: int = 1, people: int = 3) -> tuple[torch.Tensor, torch.Tensor, list[dict]]:
    """Crops (B V 3 H W), projections (B V 3 4), and the same as rows of a registered model's input (PNG)."""
    rng = np.random.default_rng(seed)
    crops = rng.integers(0, 256, (people, 3, 64, 64, 3), dtype=np.uint8)
    crops = np.stack([[cv2.blur(view, (9, 9)) for view in views] for views in crops])
    matrices = []
    for angle in (0.0, 2.0, 4.0):
        c, s = np.cos(angle), np.sin(angle)
        camera = np.array([[-s, c, 0, 0], [0, 0, -1, 0], [-c, -s, 0, 3.0]])
        matrices.append(np.array([[80, 0, 31.5], [0, 80, 31.5], [0, 0, 1.0]]) @ camera)
    projections = np.broadcast_to(np.array(matrices, np.float32), (people, 3, 3, 4)).copy()
    rows = [
        {
            "crops": [base64.b64encode(cv2.imencode(".png", v[..., ::-1])[1].tobytes()).decode() for v in views],
            "projections": matrices_of.tolist(),
        }
        for views, matrices_of in zip(crops, projections, strict=True)
    ]
    return torch.from_numpy(crops).movedim(-1, 2), torch.from_numpy(projections), rows
