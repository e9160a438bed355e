"""Figures of runs where the ground truth has several people at once: average precision, recall, and PCP of each actor.

Unlike the rows of an evaluation, which pair people and tracks one to one, these count people who are not there: average
precision falls with every track too many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets.sample import Sample
from mvpose.evaluation.scoring import CommonJoints
from mvpose.metrics.intervals import Estimate
from mvpose.metrics.joint_errors import multi_person_score
from mvpose.metrics.part_scores import part_score, scored_parts
from mvpose.records import Poses3D


@dataclass(frozen=True, eq=False)
class PeopleFrames:
    """The annotated frames of one capture: tracks of a run and true people, in the joints of the truth."""

    predicted: Float[np.ndarray, "T P J 3"]
    score: Float[np.ndarray, "T P"]
    """Mean confidence over the joints."""
    truth: Float[np.ndarray, "T Q J 3"]
    """NaN for a person who is not annotated."""
    common: CommonJoints

    @staticmethod
    def of(poses: Poses3D, paired: Sequence[tuple[Sample, int]], joints: Sequence[str] | None) -> PeopleFrames:
        """From the samples of a capture and the run's frame of each; frames before and after the run have no tracks."""
        skeleton = paired[0][0].skeleton
        common = CommonJoints.between(poses.skeleton, skeleton, joints)
        frames = sorted({frame for _, frame in paired})
        people = sorted({sample.person for sample, _ in paired})
        truth = np.full((len(frames), len(people), len(skeleton.joints), 3), np.nan)
        for sample, frame in paired:
            truth[frames.index(frame), people.index(sample.person)] = sample.xyz
        inside = np.array([0 <= frame < len(poses.xyz) for frame in frames])
        at = np.where(inside, frames, 0)
        predicted = np.where(inside[:, None, None, None], poses.xyz[at], np.nan).astype(np.float64)
        predicted = np.where(common.counted[:, None], predicted[:, :, common.source], np.nan)
        return PeopleFrames(predicted, poses.confidence[at].mean(axis=-1).astype(np.float64), truth, common)

    @property
    def together(self) -> bool:
        """Whether any frame has two people or more."""
        return bool(np.isfinite(self.truth).any(axis=(2, 3)).sum(axis=1).max() > 1)


def people_figures(captures: Sequence[PeopleFrames], *, all_people: bool) -> dict[str, Estimate]:
    """`ap@25mm` to `ap@150mm`, `recall@500mm` and `pcp3d`, with `pcp3d/actor=...` of a single capture; no intervals.

    Nothing unless some frame has several people. Without `all_people`, the truth leaves people out on purpose, and
    their tracks would count as false: no average precision. PCP is of the parts whose joints run and truth both have.
    """
    if not any(capture.together for capture in captures):
        return {}
    found = _precision(captures) if all_people else {}
    people = sum(int(np.isfinite(capture.truth).any(axis=(2, 3)).sum()) for capture in captures)
    return {name: Estimate(value, math.nan, math.nan, people) for name, value in (found | _parts(captures)).items()}


def _precision(captures: Sequence[PeopleFrames]) -> dict[str, float]:
    predicted, score, truth = (
        _stacked([getattr(capture, name) for capture in captures]) for name in ("predicted", "score", "truth")
    )
    counted = torch.from_numpy(captures[0].common.counted)
    known = truth.isfinite().all(dim=-1) & counted
    scored = multi_person_score(
        predicted, score, predicted.isfinite().all(dim=-1).any(dim=-1), truth, known.any(dim=-1), known
    )
    names = [f"ap@{round(1000 * threshold)}mm" for threshold in scored.thresholds_m[:-1]]
    figures = dict(zip(names, scored.average_precision[:-1].tolist(), strict=True))
    return figures | {"recall@500mm": float(scored.recall[-1])}


def _parts(captures: Sequence[PeopleFrames]) -> dict[str, float]:
    actors: list[float] = []
    for capture in captures:
        skeleton, counted = capture.common.skeleton, capture.common.counted
        parts = scored_parts([joint for joint, kept in zip(skeleton.joints, counted, strict=True) if kept])
        if not parts:
            return {}
        predicted, truth = (torch.from_numpy(values) for values in (capture.predicted, capture.truth))
        there, present = (values.isfinite().all(dim=-1).any(dim=-1) for values in (predicted, truth))
        actors += part_score(predicted, there, truth, present, skeleton, parts).by_actor.tolist()
    figures = {"pcp3d": float(np.nanmean(actors))}
    if len(captures) == 1:
        figures |= {f"pcp3d/actor={number}": value for number, value in enumerate(actors, 1)}
    return figures


def _stacked(values: Sequence[np.ndarray]) -> torch.Tensor:
    """Frames of all captures (T P *rest), padded with NaN to the largest number of people."""
    people = max(part.shape[1] for part in values)
    rest = [(0, 0)] * (values[0].ndim - 2)
    padded = [np.pad(part, ((0, 0), (0, people - part.shape[1]), *rest), constant_values=np.nan) for part in values]
    return torch.from_numpy(np.concatenate(padded))
