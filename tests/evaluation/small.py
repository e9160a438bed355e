"""A table of a person walking before four small cameras, and networks small enough to answer in milliseconds."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from mvpose.config import structure, without_other_kinds
from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.datasets.sample_table import write_samples
from mvpose.geometry.camera import CameraRig
from mvpose.models.backbones.simple_baselines import HeatmapHead
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method
from mvpose.models.saved import save_model
from mvpose.scenes import ring4
from mvpose.skeleton import HALPE26

SIDE = 128


def small_rig() -> CameraRig:
    rig = ring4(num_frames=1).rig.to(torch.float64)
    scale = torch.full((4, 2), 0.1, dtype=torch.float64)
    return rig.resized(scale, (rig.size * 0.1).long())


def some_samples(frames: int = 6, captures: tuple[str, ...] = ("a", "b", "c")) -> list[Sample]:
    """Images are noise; capture c is damaged."""
    rng = np.random.default_rng(0)
    rig, found = small_rig(), []
    for number, name in enumerate(captures):
        scene = ring4(num_frames=frames, seed=number)
        whole = SampleScene(
            capture_id=name, subject=f"S{number}", action="walk" if number % 2 else "sit", split="test", rig=rig,
            skeleton=HALPE26, damaged=name == "c",
        )  # fmt: skip
        labels = Labels(frame=np.arange(frames), position=np.arange(frames), xyz=scene.joints[:, 0])
        for sample in scene_samples(whole, labels, lambda f: dict.fromkeys(rig.names, SampleImage())):
            images = [rng.integers(0, 255, (int(h), int(w), 3), np.uint8) for w, h in rig.size.tolist()]
            crops = tuple(SampleImage(crop=cv2.imencode(".jpg", p)[1].tobytes()) for p in images)
            found.append(replace(sample, images=crops))
    return found


def write_table(folder: str, samples: list[Sample]) -> str:
    write_samples(f"{folder}/part.parquet", samples, HALPE26, "rendered")
    return folder


def small_method(method: str, **fusion) -> Method:
    values = {
        "method": method,
        "skeleton": "halpe26",
        "size": (SIDE, SIDE),
        "backbone": {"depth": 18, "width": 8},
        "fusion": {"points": 4, "head_width": 8, **fusion},
        "algebraic": {"head_width": 8, "confidence_widths": (8, 8)},
    }
    return structure(without_other_kinds(values, Method), Method, "test")


def write_model(folder: str, method: str, margin: float = MARGIN, **fusion) -> str:
    torch.manual_seed(0)
    config = small_method(method, **fusion)
    network = build_method(config)
    for head in (m for m in network.modules() if isinstance(m, HeatmapHead)):
        for weight in (p for p in head.parameters() if p.ndim == 4):
            torch.nn.init.normal_(weight, std=0.3)
    save_model(folder, network, input_rule(config, margin), config, {})
    return folder
