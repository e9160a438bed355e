"""Hold what 3D joints say of their uncertainty (`sigma_mm`) against the truth of rendered people.

68 % of joints should be within sigma, for small and for large sigmas, and of joints said to be within 20 mm, as many
should be. `joint_spread.COMMON_M` is calibrated on training people; other people and motions judge it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from mvpose.benchmarks.cut_off import errors_and_sigmas_m, first_views
from mvpose.benchmarks.detected_takes import DetectedTake, detected_takes
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.models.detection.detector import load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.reconstruction.joint_spread import share_within
from mvpose.rendering.takes import TakeConfig

CLASSES_MM = (0.0, 20.0, 30.0, 35.0, 40.0, 50.0, 70.0, np.inf)
SHARE = 0.68


@dataclass(frozen=True, kw_only=True)
class SigmaBenchmark:
    """Reliability of the sigma of 3D joints on rendered people, with all cameras and with fewer."""

    train: int = 40
    """Takes of training people, on which sigma is calibrated."""
    test: int = 20
    """Takes of other people and motions, which judge it."""
    takes: TakeConfig = field(default_factory=TakeConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    within_mm: float = 20.0
    """Distance of which joints say how likely they are within it."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class SigmaFigures:
    """Joints of one class."""

    joints: int
    within_sigma: float
    """Share of joints within their sigma; should be `SHARE`."""
    said: float
    """Share expected within `within_mm`."""
    counted: float
    """Share within it."""


def run(config: SigmaBenchmark) -> None:
    """Print the calibration and tables, write JSON."""
    if min(config.train, config.test) < 1 or config.takes.views < 2:
        raise ConfigError(
            f"train is {config.train}, test is {config.test}, takes.views is {config.takes.views}: give at least 1, 1 "
            "and 2."
        )
    detector = load_detector(config.detector)
    train, test = (
        list(detected_takes(config.takes, split, count, detector))
        for split, count in ((TRAIN, config.train), (TEST, config.test))
    )
    of_views = range(2, config.takes.views + 1)
    error, sigma = _pooled([errors_and_sigmas_mm(train, views) for views in of_views])
    factor = float(np.quantile(error / sigma, SHARE))
    print(f"{len(error)} joints of {config.train} takes: {SHARE:.0%} are within {factor:.3f} sigma (1 if calibrated)")
    found = {views: errors_and_sigmas_mm(test, views) for views in of_views}
    tables = {f"{views} cameras": sigma_figures(*of, config.within_mm) for views, of in found.items()}
    tables["all"] = sigma_figures(*_pooled(list(found.values())), config.within_mm)
    print(f"{config.test} other takes{'sigma':>21}{'joints':>8}{'in sigma':>10}", end="")
    print(f"  within {config.within_mm:g} mm: said{'are':>8}")
    for name, figures in tables.items():
        for of, row in figures.items():
            print(f"{name:12}{of:>24}{row.joints:8}{row.within_sigma:10.2f}{row.said:20.2f}{row.counted:8.2f}")
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            rows = {name: {of: vars(row) for of, row in figures.items()} for name, figures in tables.items()}
            json.dump({"factor": factor, **rows}, file, indent=1)


def errors_and_sigmas_mm(
    takes: Sequence[DetectedTake], views: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Errors and sigmas of all joints found with the first cameras of the takes."""
    pairs = [errors_and_sigmas_m(first_views(take, views), lambda keypoints, _: keypoints) for take in takes]
    error, sigma = (1000.0 * np.concatenate([part.ravel() for part in parts]) for parts in zip(*pairs, strict=True))
    found = np.isfinite(error)
    return error[found], sigma[found]


def sigma_figures(
    error: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], within_mm: float
) -> dict[str, SigmaFigures]:
    """Figures of all joints, and by class of sigma in millimetres."""
    rows = {f"{low:g} to {high:g} mm": (sigma > low) & (sigma <= high) for low, high in pairwise(CLASSES_MM)}
    rows["every sigma"] = sigma > 0
    return {name: _figures(error, sigma, within_mm, these) for name, these in rows.items() if these.any()}


def _figures(
    error: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], within_mm: float, these: Bool[np.ndarray, " n"]
) -> SigmaFigures:
    return SigmaFigures(
        joints=int(these.sum()),
        within_sigma=float((error <= sigma)[these].mean()),
        said=float(share_within(within_mm, sigma[these]).mean()),
        counted=float((error <= within_mm)[these].mean()),
    )


def _pooled(
    parts: Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    error, sigma = (np.concatenate(values) for values in zip(*parts, strict=True))
    return error, sigma
