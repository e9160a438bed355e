"""Fit a detector's confidence scale to rendered people, and judge what it does to 3D joints.

The likelihood of a confidence is the share of joints in the image that are right (`RIGHT_WITHIN`), on takes of training
people and motions; other people and motions show how well it holds. The odds of joints near the border of the image
are fitted next, on all joints, also those that the image cuts off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import isotonic_regression, minimize_scalar

from mvpose.benchmarks.cut_off import Rule, print_run, print_takes
from mvpose.benchmarks.detected_takes import FoundJoints, detected_takes, found_joints, together
from mvpose.confidence import AS_STATED, BORDER, RIGHT_WITHIN, ConfidenceScale
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector import load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.saved import write_confidence
from mvpose.reconstruction.observations import border_distance
from mvpose.records import Keypoints2D
from mvpose.rendering.takes import TakeConfig

KNOTS = np.array([0.0, 0.02, 0.05, *np.linspace(0.1, 1.0, 10)])
"""Confidences between which the likelihood is linear. The peaks of a small bottom-up network are 0.05 in the median."""
MIN_JOINTS = 30
"""A likelihood rests on so many joints about its confidence; beyond the last such confidence it stays the same. Few
joints of a weak network have a peak of 0.6, and that these happened to be right made all such joints certain."""
BORDER_BINS = (-np.inf, 0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, np.inf)
MARGIN = 0.02
"""Of the rule that drops joints, relative to the person's size: about half of the joints there are cut off."""
CUT_OFF_PX = 20
"""True joints this far outside the image are counted."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceBenchmark:
    """Reliability of 2D confidence on rendered people who walk out of images, and its effect on 3D joints."""

    train: int = 40
    """Takes to fit the scale to."""
    test: int = 20
    """Takes of other people and motions, on which the rules are judged."""
    takes: TakeConfig = field(default_factory=TakeConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    right_within: float = RIGHT_WITHIN
    """Error up to which a joint is right, relative to the person's size. Scales of other limits do not fit mvpose."""
    run: str = ""
    """Finished run of real footage, on whose 2D joints the rules are judged too."""
    json: str | None = None
    """Output file for the fitted scale and the figures."""
    write: bool = False
    """Write the fitted scale into the model that detector.detector names: a trained bottom-up network."""


def run(config: ConfidenceBenchmark) -> None:
    """Fit, print tables, write JSON."""
    if min(config.train, config.test) < 1:
        raise ConfigError(f"train is {config.train}, test is {config.test}: both must be at least 1.")
    if config.write and (not config.detector.bottom_up or config.right_within != RIGHT_WITHIN):
        raise ConfigError(
            f"--write needs a trained network as --detector.detector FOLDER/model and --right-within {RIGHT_WITHIN}: "
            "other detectors have their scale in their card or class."
        )
    detector = load_detector(config.detector)
    train, test = (
        list(detected_takes(config.takes, split, count, detector))
        for split, count in ((TRAIN, config.train), (TEST, config.test))
    )
    scale = fitted_scale(together([found_joints(take) for take in train]), config.right_within)
    print(f"fitted to {config.train} takes:\nlikelihood = {[list(point) for point in scale.likelihood]}")
    print(f"border_odds = {scale.border_odds}")
    print_reliability(together([found_joints(take) for take in test]), scale, config.right_within)
    if config.write:
        write_confidence(config.detector.detector, scale)
        print(f"written into {config.detector.detector}: runs of this network are from now on of another detector")
    rules = rules_of(scale)
    figures = print_takes(test, rules)
    if config.run:
        print_run(config.run, rules)
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            json.dump(
                {"likelihood": scale.likelihood, "border_odds": scale.border_odds, "takes": figures}, file, indent=1
            )


def rules_of(scale: ConfidenceScale) -> dict[str, Rule]:
    """The rules that are compared; each changes 2D joints."""

    def scaled(to: ConfidenceScale) -> Rule:
        return lambda keypoints, _: replace(keypoints, scale=to)

    inside = replace(scale, border_odds=1.0)
    return {
        "as stated": scaled(AS_STATED),
        "likelihood": scaled(inside),
        "border: dropped": lambda keypoints, rig: replace(without_border(keypoints, rig), scale=inside),
        "border: likelihood": scaled(scale),
    }


def without_border(keypoints: Keypoints2D, rig: CameraRig) -> Keypoints2D:
    """Without joints nearer to the border of the image than `MARGIN`, or beyond it."""
    return replace(keypoints, confidence=np.where(border_distance(keypoints, rig) < MARGIN, 0.0, keypoints.confidence))


def fitted_scale(found: FoundJoints, right_within: float) -> ConfidenceScale:
    """Likelihood at `KNOTS` by least squares, made monotone, and the factor on the odds that is most likely.

    ConfigError if hardly anybody was found.
    """
    right, inside = found.error < right_within, found.outside_px == 0
    enough = _between(KNOTS, found.confidence[inside]).sum(axis=0) >= MIN_JOINTS
    if not enough[1:].any():
        raise ConfigError(f"{inside.sum()} joints of people found in the images are too few to fit a scale to.")
    knots = np.append(0.0, KNOTS[1:][enough[1:]])
    weights = _between(knots, found.confidence[inside])
    share = np.linalg.lstsq(weights, right[inside].astype(float), rcond=None)[0]
    share = np.clip(isotonic_regression(share, weights=weights.sum(axis=0) + 1.0).x, 0.0, 1.0)
    last = int(np.flatnonzero(np.append(True, np.diff(share) > 0)).max())
    points = [(0.0, 0.0), *zip(knots[1 : last + 1], share[1 : last + 1], strict=True)]
    scale = ConfidenceScale(likelihood=tuple((round(float(c), 3), round(float(p), 3)) for c, p in points))
    near = (found.border < BORDER) & (found.confidence > 0)

    def surprise(log_odds: float) -> float:
        made = replace(scale, border_odds=float(np.exp(log_odds)))
        likelihood = np.clip(made.likelihood_near(found.confidence[near], found.border[near]), 1e-3, 1.0 - 1e-3)
        return -float(np.log(np.where(right[near], likelihood, 1.0 - likelihood)).sum())

    best: Any = minimize_scalar(surprise, bounds=(np.log(0.01), 0.0), method="bounded")
    return replace(scale, border_odds=round(float(np.exp(best.x)), 2))


def _between(knots: Float[np.ndarray, " K"], confidence: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n K"]:
    """Weights of linear interpolation between knots; beyond the last, its own."""
    return np.stack([np.interp(confidence, knots, unit) for unit in np.eye(len(knots))], axis=-1)


def print_reliability(found: FoundJoints, scale: ConfidenceScale, right_within: float) -> None:
    """Joints right by confidence and by distance from the border, and as the scale has it."""
    right, inside = found.error < right_within, found.outside_px == 0
    far = found.outside_px > CUT_OFF_PX
    stated = scale.likelihood_of(found.confidence)
    kept = far & (stated >= 0.3)
    print(
        f"{far.sum()} of {len(far)} joints are more than {CUT_OFF_PX} px outside the image: "
        f"{kept.sum() / max(far.sum(), 1):.0%} have a likelihood of 0.3 or more by their confidence, "
        f"off by {np.median(found.error_px[kept]) if kept.any() else np.nan:.0f} px (median)"
    )
    print(f"{'confidence, joints in images':32}{'joints':>8}{'right':>8}{'scale':>8}")
    for low, high in pairwise(KNOTS):
        _print_row(
            f"{low:.1f} to {high:.1f}", inside & (found.confidence > low) & (found.confidence <= high), right, stated
        )
    near = scale.likelihood_near(found.confidence, found.border)
    print(f"{'distance to border, all joints':32}{'joints':>8}{'right':>8}{'scale':>8}{'border':>8}{'outside':>9}")
    for low, high in pairwise(BORDER_BINS):
        these = (found.border >= low) & (found.border < high) & (stated >= 0.3)
        _print_row(f"{low:.2f} to {high:.2f}", these, right, stated, near, ~inside)


def _print_row(name: str, these: Bool[np.ndarray, " n"], *columns: np.ndarray) -> None:
    if these.any():
        print(f"{name:32}{these.sum():8}" + "".join(f"{column[these].mean():8.2f}" for column in columns))
