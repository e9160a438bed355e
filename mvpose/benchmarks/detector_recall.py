"""Recall and accuracy of the default detector on the people of a table of samples.

Rendered people should be as detectable as real ones: on a table of renders and on one of footage
(`mvpose dataset convert run`), the same detector should have the same recall, confidence and accuracy.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from mvpose.datasets.detector_noise import DetectorNoise
from mvpose.datasets.noise_measurement import fitted, sightings
from mvpose.datasets.sample import Sample
from mvpose.datasets.sample_table import read_samples
from mvpose.errors import ConfigError
from mvpose.models.detection.detector import Detector, load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.skeleton import BODY_JOINTS

MIN_SEEN = 8
"""Number of the twelve body joints: views that show fewer are skipped."""
FOUND_WITHIN = 0.25
"""Relative to the box: a person is found if the median body joint distance to a detection is below this."""


@dataclass(frozen=True, kw_only=True)
class DetectionBenchmark:
    """Recall, joint error relative to the box, and confidence on each table of crops."""

    tables: tuple[str, ...]
    """Tables of samples with crops."""
    count: int = 100
    """Samples of each table, every n-th as set by `every`."""
    every: int = 1
    """Use every n-th sample."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    json: str | None = None
    """Output file for the figures."""
    noise: str | None = None
    """Output file for the detector's error model on all samples; see `mvpose.datasets.detector_noise`."""


@dataclass(frozen=True, eq=False)
class Found:
    """Detection result for one view of a person."""

    found: bool
    error: Float[np.ndarray, " J"]
    """By body joint, relative to the side of the box about the joints; NaN if hidden or the person was not found."""
    confidence: Float[np.ndarray, " J"]


def run(config: DetectionBenchmark) -> dict[str, dict[str, Any]]:
    """Print the figures of each table side by side, and return them."""
    if config.count < 1 or config.every < 1:
        raise ConfigError(f"count is {config.count}, every is {config.every}: both must be at least 1.")
    detector = load_detector(config.detector)
    figures = {}
    for table in config.tables:
        figures[table] = summary([f for sample in _samples(config, table) for f in found_in(sample, detector)])
    for name in next(iter(figures.values()), {}):
        print(f"{name:28}" + "".join(f"{_shown(f[name]):>42}" for f in figures.values()))
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    if config.noise:
        with open(config.noise, "w") as file:
            file.write(measured(config, detector).to_json())
    return figures


def measured(config: DetectionBenchmark, detector: Detector) -> DetectorNoise:
    """The detector's errors on the samples of all tables together."""
    seen = sightings((sample for table in config.tables for sample in _samples(config, table)), detector)
    cards = f"{config.detector.person_card} and {config.detector.joint_card}"
    tables = f"{', '.join(config.tables)} ({config.count} samples of each, every {config.every})"
    return fitted(seen, f"{cards} on {len(seen.truth)} views of {tables}, {date.today()}")


def _samples(config: DetectionBenchmark, table: str) -> Iterator[Sample]:
    return itertools.islice(read_samples(table), 0, config.count * config.every, config.every)


def found_in(sample: Sample, detector: Detector) -> Iterator[Found]:
    """Detection results of each view that shows most of the person."""
    own, theirs = sample.skeleton.indices(*BODY_JOINTS), detector.skeleton.indices(*BODY_JOINTS)
    pixels, _ = sample.rig.project(torch.from_numpy(np.nan_to_num(sample.xyz)))
    for view, image in enumerate(sample.images):
        visible = sample.visible[view, own] & sample.valid[own]
        if image.crop is None:
            raise ConfigError(f"{sample.capture_id} has no crops: convert with --crops.side 256.")
        if visible.sum() >= MIN_SEEN:
            box = float((sample.box[view, 2:] - sample.box[view, :2]).max())
            crop = np.asarray(cv2.imdecode(np.frombuffer(image.crop, np.uint8), cv2.IMREAD_COLOR_RGB))
            people = detector([crop[None]])[0][0]
            yield _nearest(people, theirs, pixels[view, own].numpy(), visible, box)


def _nearest(
    people: People,
    joints: list[int],
    pixels: Float[np.ndarray, "J 2"],
    visible: Bool[np.ndarray, " J"],
    box: float,
) -> Found:
    """The detection nearest to the person, if near enough."""
    error = np.linalg.norm(people.xy[:, joints] - pixels, axis=-1) / box
    error[:, ~visible] = np.nan
    middle = np.nanmedian(error, axis=1)
    if not len(middle) or middle.min() > FOUND_WITHIN:
        return Found(False, np.full(len(joints), np.nan), np.full(len(joints), np.nan))
    best = int(middle.argmin())
    return Found(True, error[best], np.where(visible, people.confidence[best, joints].astype(np.float64), np.nan))


def summary(found: list[Found]) -> dict[str, Any]:
    """Figures over all views. ConfigError if no view shows enough of a person."""
    if not found:
        raise ConfigError(f"no view shows {MIN_SEEN} body joints of its person.")
    error, confidence = (np.stack([getattr(f, name) for f in found]) for name in ("error", "confidence"))
    known = np.isfinite(error)
    histogram, _ = np.histogram(confidence[known], bins=10, range=(0, 1))
    by_joint = {
        part: float(np.nanmedian(error[:, [BODY_JOINTS.index(f"{s}_{part}") for s in ("left", "right")]]))
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    }
    return {
        "views": len(found),
        "found": float(np.mean([f.found for f in found])),
        "median error": float(np.median(error[known])),
        "90th percentile": float(np.quantile(error[known], 0.9)),
        **{f"median error, {part}": value for part, value in by_joint.items()},
        "mean confidence": float(confidence[known].mean()),
        "confidence histogram": (histogram / max(histogram.sum(), 1)).round(3).tolist(),
    }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{100 * share:.0f}" for share in value) + " %"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
