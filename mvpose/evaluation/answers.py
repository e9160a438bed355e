"""Predictions of one choice of cameras beside their truth, and the table of errors they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.evaluation.judging import METRICS, Judged, judge, velocity_errors
from mvpose.skeleton import Skeleton

KEYS = ("benchmark", "capture", "frame", "person", "subject", "action", "damaged", "cameras", "views", "unseen", "most")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How rows are judged and named."""

    benchmark: str = ""
    """Name in the rows; empty where the user named a table."""
    unseen: bool = False
    """Whether training saw none of the cameras."""
    joints: tuple[str, ...] | None = None
    """Joints that count; None for all that both skeletons have."""
    root: str = "hip"


@dataclass(frozen=True, eq=False)
class Answers:
    """N samples as one method answered them."""

    samples: list[Sample]
    """Without their pictures."""
    joints: Float[np.ndarray, "N K 3"]
    """World, metres; NaN for a joint without an answer."""
    skeleton: Skeleton
    """Of the answers."""
    cameras: list[tuple[str, ...]]
    """Used for each sample."""
    most: Bool[np.ndarray, " N"]
    """Whether these are the most views that the method was asked to use of the sample."""
    jdr: Float[np.ndarray, " N"]
    """Joint detection rate in the pictures; NaN where the method tells nothing in 2D."""
    notes: tuple[str, ...] = ()
    """What of the truth could not be asked for."""


def without_pictures(sample: Sample) -> Sample:
    """What is kept of a sample once it is answered: megabytes less."""
    return replace(sample, pictures=())


def rows_of(
    answers: Answers, judgement: Judgement, centroids: Float[np.ndarray, "k J 3"] | None = None
) -> pd.DataFrame:
    """One row a sample: `KEYS`, `METRICS` and `joint_error_m` (a list in the order of the truth's skeleton).

    ConfigError where the two skeletons have no joint in common, or the samples are of several skeletons.
    """
    skeletons = {s.skeleton for s in answers.samples}
    if len(skeletons) != 1:
        raise ConfigError(f"one evaluation needs samples of one skeleton, not {sorted(s.name for s in skeletons)}.")
    (skeleton,) = skeletons
    judged = Judged.between(answers.skeleton, skeleton, judgement.joints, judgement.root)
    if not judged.counted.any():
        raise ConfigError(f"{answers.skeleton.name} and {skeleton.name} have no joint in common that counts.")
    truth = np.stack([s.xyz for s in answers.samples])
    predicted = judged.told(answers.joints)
    columns = judge(predicted, truth, judged, centroids)
    track = [(s.capture_id, s.person, c) for s, c in zip(answers.samples, answers.cameras, strict=True)]
    columns["mpjve_m"] = velocity_errors(predicted, truth, track, np.array([s.position for s in answers.samples]))
    columns["jdr"] = answers.jdr
    missing = np.full(len(truth), np.nan)
    return pd.DataFrame(
        {
            **_keys(answers, judgement),
            **{name: columns.get(name, missing).astype(np.float64) for name in METRICS},
            "joint_error_m": list(columns["joint_error_m"].astype(np.float32)),
        }
    )


def _keys(answers: Answers, judgement: Judgement) -> dict[str, Sequence]:
    samples = answers.samples
    return {
        "benchmark": [judgement.benchmark] * len(samples),
        "capture": [s.capture_id for s in samples],
        **{name: [getattr(s, name) for s in samples] for name in ("frame", "person", "subject", "action", "damaged")},
        "cameras": [list(c) for c in answers.cameras],
        "views": [len(c) for c in answers.cameras],
        "unseen": [judgement.unseen] * len(samples),
        "most": answers.most.tolist(),
    }
