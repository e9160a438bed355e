"""Promotion gate: paired errors of two models on the same held-out samples, bootstrapped over sequences."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mvpose.datasets.origins import TRAINED_ON, VALIDATED_ON, origins_in, origins_of, recordings_of, shared_origins
from mvpose.errors import ConfigError
from mvpose.metrics.intervals import mean_estimates
from mvpose.tracking.tracking_config import Gate, Metric

KEYS = ["dataset", "capture", "frame", "person", "unseen"]
# Percentile intervals over fewer sequences than this are far too narrow: for normal errors, a 95 % interval over
# 5 sequences contains the true value in 84 of 100 cases, over 3 in 73, over 20 in 92 (simulated).


@dataclass(frozen=True, kw_only=True)
class PromotionVerdict:
    """Figures and decision of the gate."""

    passed: bool
    reason: str
    metric: str
    samples: int = 0
    sequences: int = 0
    candidate_m: float = float("nan")
    rival_m: float = float("nan")
    improvement_m: float = float("nan")
    """Mean of the rival's errors minus the candidate's; positive if the candidate is better."""
    low_m: float = float("nan")
    high_m: float = float("nan")
    """95 % interval of the improvement."""


def decide_promotion(candidate: str, rival: str, gate: Gate) -> PromotionVerdict:
    """Decide whether the evaluation in local folder `candidate` is significantly better than the one in `rival`.

    Errors are subtracted per sample, so that samples that are hard for both cancel out, and whole recordings are drawn
    with replacement (`mvpose.datasets.origins.recordings_of`). Only each sample's rows with the maximum number of views
    count, and only joints that both networks have. A joint without an answer has no error, so the candidate must find
    at least as many as its rival.
    """
    summaries = [_summary(folder) for folder in (candidate, rival)]
    for key, name in (("data_sha256", "data"), ("protocol", "protocol")):
        if summaries[0][key] != summaries[1][key]:
            which = f"{summaries[0][key][:60]} and {summaries[1][key][:60]}"
            return _refusal(gate, f"the {name} of the evaluations differ ({which}): evaluate both on one held-out set")
    new, old = (_rows(folder, gate.metric) for folder in (candidate, rival))
    if not new.index.equals(old.index):
        return _refusal(gate, "the two evaluations contain different samples: evaluate both with the same settings")
    if (unlike := _unlike_cameras(new, old)) is not None:
        return _refusal(gate, unlike)
    errors, found, joints = _paired(new, old, gate.metric)
    if gate.metric != "mpjpe_m" and (joints[:, 0] != joints[:, 1]).any():
        return _refusal(gate, f"the two networks have different joints, of which {gate.metric} is not comparable")
    if found[0] < found[1]:
        return _refusal(gate, f"of the joints that both networks have, it finds {found[0]}, its rival {found[1]}")
    both = np.isfinite(errors).all(axis=1)
    recordings = recordings_of(new)[both].tolist()
    sequences = len(set(recordings))
    if sequences < gate.min_sequences:
        return _refusal(gate, f"{sequences} held-out sequences are too few; {gate.min_sequences} are needed")
    errors = errors[both]
    columns = np.concatenate([errors, errors[:, 1:] - errors[:, :1]], axis=1)
    mine, theirs, gain = mean_estimates(columns, recordings)
    passed = gain.low > gate.margin_m
    share = f"improvement {1000 * gain.mean:.2f} mm ({1000 * gain.low:.2f} to {1000 * gain.high:.2f})"
    return PromotionVerdict(
        passed=passed,
        reason=f"{gate.metric} {1000 * mine.mean:.2f} mm against {1000 * theirs.mean:.2f} mm "
        f"over {joints.all(axis=1).sum()} joints: {share}, "
        f"{'above' if passed else 'not significantly above'} the margin of {1000 * gate.margin_m:g} mm",
        metric=gate.metric,
        samples=len(recordings),
        sequences=sequences,
        candidate_m=mine.mean,
        rival_m=theirs.mean,
        improvement_m=gain.mean,
        low_m=gain.low,
        high_m=gain.high,
    )


def require_held_out(evaluation: str, lineage: Mapping[str, Any], gate: Gate) -> PromotionVerdict | None:
    """The refusal of a version whose lineage does not exclude that it has seen the samples of its evaluation, or None.

    Samples that chose the best step of its training count as seen.
    """
    judged = origins_of(_read(evaluation, ["dataset", "capture", "subject", "action", "pose"]))
    for key, done in ((TRAINED_ON, "trained on"), (VALIDATED_ON, "selected by")):
        seen = origins_in(lineage, key)
        if seen is None:
            return _refusal(gate, f"its lineage does not name what it was {done}: train it with this version of mvpose")
        if common := shared_origins(seen, judged):
            return _refusal(gate, f"it was {done} {common}: evaluate it on samples that it has not seen")
    return None


def no_rival(default: str, gate: Gate) -> PromotionVerdict:
    """The refusal of a first holder that is compared with nothing."""
    return _refusal(
        gate,
        "no version has passed the gate, so it must beat the default pipeline on the same samples: evaluate "
        f"{default} like it (mvpose evaluate) and name the result in --rival-evaluation",
    )


def without_rival(reason: str, gate: Gate) -> PromotionVerdict:
    """The verdict on a version that has nothing to beat."""
    return PromotionVerdict(passed=True, reason=reason, metric=gate.metric)


def _refusal(gate: Gate, reason: str) -> PromotionVerdict:
    return PromotionVerdict(passed=False, reason=reason, metric=gate.metric)


def _summary(folder: str) -> dict[str, str]:
    with open(os.path.join(folder, "summary.json"), encoding="utf-8") as file:
        return json.load(file)


def _rows(folder: str, metric: Metric) -> pd.DataFrame:
    """The row of each sample, in the order of `KEYS`, at its maximum number of views."""
    rows = _read(folder, [*KEYS, "action", "pose", "views", "cameras", metric, "joint_error_m"])
    if (twice := rows[rows.duplicated([*KEYS, "views"])]).size:
        which = tuple(twice.iloc[0][KEYS])
        raise ConfigError(f"the evaluation in {folder} has {which} more than once: evaluate on one benchmark.")
    if not np.isfinite(rows[metric]).any():
        raise ConfigError(f"the evaluation in {folder} has no {metric}.")
    if copies := _copied_recordings(rows):
        raise ConfigError(f"the evaluation in {folder} has the same poses in {copies}: evaluate on each sample once.")
    rows = rows.sort_values([*KEYS, "views"]).drop_duplicates(KEYS, keep="last")
    return rows.set_index(KEYS, drop=False)


def _copied_recordings(rows: pd.DataFrame) -> str:
    """Two recordings that have a pose in common, in words: they would count as two sequences. Empty without any."""
    first: dict[str, str] = {}
    for pose, recording in zip(rows["pose"].tolist(), recordings_of(rows).tolist(), strict=True):
        if pose and first.setdefault(pose, recording) != recording:
            return f"{first[pose]} and {recording}"
    return ""


def _unlike_cameras(new: pd.DataFrame, old: pd.DataFrame) -> str | None:
    """Why two evaluations do not compare like with like: one camera with several, or other choices of as many."""
    views = np.stack([rows["views"].to_numpy(np.int64) for rows in (new, old)])
    if ((views == 1).any(axis=0) & (views > 1).any(axis=0)).any():
        return "one network was evaluated with one camera, the other with several: compare it with one of its kind"
    names = [rows["cameras"].map(tuple).to_numpy() for rows in (new, old)]
    if ((views[0] == views[1]) & (names[0] != names[1])).any():
        return "the two evaluations chose other cameras: evaluate both with the same settings"
    return None


def _paired(
    new: pd.DataFrame, old: pd.DataFrame, metric: Metric
) -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " 2"], Bool[np.ndarray, "J 2"]]:
    """Errors of the two networks, how many of the joints that both have they find, and which joints they have.

    MPJPE is over the joints that both find in a sample; the other metrics cannot be split into joints.
    """
    joints = np.stack([np.stack(rows["joint_error_m"].tolist()) for rows in (new, old)], axis=-1).astype(np.float64)
    known = np.isfinite(joints)
    networks = np.asarray(known.any(axis=0))
    found = known[:, networks.all(axis=-1)].sum(axis=(0, 1))
    if metric != "mpjpe_m":
        return np.stack([new[metric], old[metric]], axis=-1).astype(np.float64), found, networks
    both = np.asarray(known.all(axis=-1))
    total = np.where(both[..., None], joints, 0.0).sum(axis=1)
    count = both.sum(axis=1)[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), found, networks


def _read(folder: str, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(os.path.join(folder, "samples.parquet"), columns=columns)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the samples of the evaluation in {folder} cannot be read, so evaluate again: {error}"
        ) from error
