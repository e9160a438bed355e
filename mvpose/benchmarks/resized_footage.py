"""The law of resizing on real footage: images of another size give the same poses, up to the resampling.

Every frame is decoded, resized and detected again at each scale, and reconstructed with the default settings and the
cameras resized alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from mvpose.capture import Capture
from mvpose.errors import ConfigError
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.footage.catalogue import find_captures
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.models.detection.detector import Detector, load_detector, scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.detections import chunks_of_views, detected
from mvpose.quality.quality import quality
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.records import Clip, Keypoints2D


@dataclass(frozen=True, kw_only=True)
class ResizeBenchmark:
    """Share of joints, bone spread and error of a left-out camera on footage resized by several factors."""

    archive: str
    """Folder or s3:// URI with the captures."""
    frames: int = 150
    """Maximum number of frames of each capture."""
    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    json: str | None = None
    """Output file for the figures."""


def run(config: ResizeBenchmark) -> dict[str, dict[str, dict[str, float]]]:
    """Print the figures of each capture by scale, and return them."""
    captures = find_captures(config.archive, config.catalogue).captures
    if not captures:
        raise ConfigError(f"{config.archive} has no capture that can be used: see mvpose index.")
    detector, rows = load_detector(config.detector), {}
    for capture in captures:
        rows[capture.capture_id] = {}
        for scale in config.scales:
            figures = resized_figures(capture, scale, config.frames, detector)
            rows[capture.capture_id][f"{scale:g}"] = figures
            shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"{capture.capture_id} x {scale:g}: {shown}", flush=True)
    if config.json:
        with open(config.json, "w") as file:
            json.dump(rows, file, indent=1)
    return rows


def resized_figures(capture: Capture, scale: float, frames: int, detector: Detector) -> dict[str, float]:
    """The figures of the law for a capture whose images are scaled by `scale`, as shares.

    The error of a left-out camera is relative to the larger side of the people's boxes.
    """
    clip = Clip(capture.capture_id, 0, min(frames, capture.num_frames))
    people: list[list[People]] = [[] for _ in capture.videos]
    for chunk in chunks_of_views(capture.videos, clip, detector.chunk_frames):
        for view, found in zip(people, detected(detector, list(_resized(chunk, scale))), strict=True):
            view.extend(found)
    keypoints, config = stack_people(people, detector.skeleton, scale_of(detector)), ReconstructionConfig()
    scales = torch.full((len(capture.rig), 2), scale, dtype=torch.float64)
    rig = capture.rig.resized(scales, (capture.rig.size * scale).round().long())
    poses = reconstruct(keypoints, rig, config, capture.fps)
    found = quality(poses, keypoints, rig, capture.fps, config)
    return {
        "body joints": found.body_reconstructed_share,
        "bone spread": found.body_bone_spread,
        "left-out camera": found.body_left_out.mean_px / _person_px(keypoints),
    }


def _person_px(keypoints: Keypoints2D) -> float:
    """Mean of the larger side of the boxes in which a person was found."""
    side = (keypoints.box[..., 2:] - keypoints.box[..., :2]).max(axis=-1)
    return float(side[keypoints.box_score > 0].mean())


def _resized(chunk: list[ViewFrames], scale: float) -> Iterator[ViewFrames]:
    """The images scaled, averaging over areas where they become smaller."""
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    for view in chunk:
        images = [
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=method) for image in np.asarray(view.images)
        ]
        yield ViewFrames(np.stack(images) if images else view.images, view.there)
