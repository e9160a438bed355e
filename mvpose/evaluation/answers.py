"""Predictions for one choice of cameras, and their table of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mvpose.datasets.origins import pose_digests
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.evaluation.image_people import ImagePeople
from mvpose.evaluation.scoring import METRICS, CommonJoints, score, velocity_errors
from mvpose.evaluation.several_people import PeopleFrames
from mvpose.skeleton import Skeleton

KEYS = (
    "benchmark",
    "dataset",
    "capture",
    "frame",
    "person",
    "subject",
    "action",
    "pose",
    "damaged",
    "cameras",
    "views",
    "unseen",
    "max_views",
)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scoring settings and labels of the rows."""

    benchmark: str = ""
    """Benchmark name in the rows; empty if the user named a table."""
    dataset: str = ""
    """Dataset of the table."""
    unseen: bool = False
    """Whether training saw none of the cameras."""
    joints: tuple[str, ...] | None = None
    """Joints that count; None for all joints that both skeletons have."""
    root: str = "hip"


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of one method for N samples."""

    samples: list[Sample]
    """Samples without their images."""
    joints: Float[np.ndarray, "N K 3"]
    """World, metres; NaN for a joint without an answer."""
    skeleton: Skeleton
    """Skeleton of the predictions."""
    cameras: list[tuple[str, ...]]
    """Cameras used for each sample."""
    max_views: Bool[np.ndarray, " N"]
    """Whether these are the maximum number of views requested for the sample."""
    jdr: Float[np.ndarray, " N"]
    """Joint detection rate in the images; NaN if the method predicts nothing in 2D."""
    notes: tuple[str, ...] = ()
    """Parts of the ground truth that could not be evaluated."""
    people: tuple[PeopleFrames, ...] = ()
    """All people of each capture of a run, for the figures of several at once."""
    images: tuple[ImagePeople, ...] = ()
    """Images of several people with those found in 2D."""
    jdr_occluded: Float[np.ndarray, " N"] | None = None
    """`jdr` of the joints that are in the image and not visible, NaN without any; None without 2D predictions."""


Metric = Callable[[Float[np.ndarray, "N J 3"], Float[np.ndarray, "N J 3"]], Float[np.ndarray, " N"]]
"""A user's own metric: predicted and true joints (world, metres, NaN for a joint without an answer or truth) to one
figure per row. A name that ends in `_m` is in metres, any other is a share of 0..1."""


def metric_names(rows: pd.DataFrame) -> list[str]:
    """The columns of `rows` that are metrics, in order."""
    return [name for name in rows.columns if name not in (*KEYS, "joint_error_m")]


def without_images(sample: Sample) -> Sample:
    """Drop the images of a sample, which are megabytes, once it is answered."""
    return replace(sample, images=())


def rows_of(
    answers: Answers,
    scoring: Scoring,
    centroids: Float[np.ndarray, "k J 3"] | None = None,
    metrics: Sequence[Metric] = (),
) -> pd.DataFrame:
    """One row per sample: `KEYS`, `METRICS`, a column per function of `metrics` under its name, and `joint_error_m` (a
    list in the order of the truth's skeleton).

    ConfigError if the two skeletons have no joint in common, or the samples have several skeletons.
    """
    skeletons = {s.skeleton for s in answers.samples}
    if len(skeletons) != 1:
        raise ConfigError(f"one evaluation needs samples of one skeleton, not {sorted(s.name for s in skeletons)}.")
    (skeleton,) = skeletons
    common = CommonJoints.between(answers.skeleton, skeleton, scoring.joints, scoring.root)
    if not common.counted.any():
        raise ConfigError(f"{answers.skeleton.name} and {skeleton.name} have no joint in common that counts.")
    truth = np.stack([s.xyz for s in answers.samples])
    predicted = common.selected(answers.joints)
    columns = score(predicted, truth, common, centroids)
    track = [(s.capture_id, s.person, c) for s, c in zip(answers.samples, answers.cameras, strict=True)]
    columns["mpjve_m"] = velocity_errors(predicted, truth, track, np.array([s.position for s in answers.samples]))
    columns["jdr"] = answers.jdr
    if answers.jdr_occluded is not None:
        columns["jdr_occluded"] = answers.jdr_occluded
    missing = np.full(len(truth), np.nan)
    return pd.DataFrame(
        {
            **_keys(answers, scoring),
            **{name: columns.get(name, missing).astype(np.float64) for name in METRICS},
            **{metric.__name__: np.asarray(metric(predicted, truth), np.float64) for metric in metrics},
            "joint_error_m": list(columns["joint_error_m"].astype(np.float32)),
        }
    )


def _keys(answers: Answers, scoring: Scoring) -> dict[str, Sequence]:
    samples = answers.samples
    return {
        "benchmark": [scoring.benchmark] * len(samples),
        "dataset": [scoring.dataset] * len(samples),
        "capture": [s.capture_id for s in samples],
        **{name: [getattr(s, name) for s in samples] for name in ("frame", "person", "subject", "action", "damaged")},
        "pose": pose_digests(np.stack([s.xyz for s in samples])),
        "cameras": [list(c) for c in answers.cameras],
        "views": [len(c) for c in answers.cameras],
        "unseen": [scoring.unseen] * len(samples),
        "max_views": answers.max_views.tolist(),
    }
