"""Aggregation of error rows to figures with intervals, as quoted for a model and read by the promotion gate."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mvpose.evaluation.answers import metric_names
from mvpose.metrics.intervals import Estimate, group_mean_estimate, mean_estimates
from mvpose.skeleton import Skeleton
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import join
from mvpose.tracking.registry import SEAL, evaluation_seal

SAMPLES, SUMMARY = "samples.parquet", "summary.json"
MIN_SAMPLES = 20
"""A figure rests on so many samples, or on all of them if there are fewer. Otherwise it is left out: of 300 poses of a
lifter, whose joints are those that one camera sees, one may have every joint, and PSS is 0 or 100 %. The standard error
of a share of 20 samples is at most 11 %."""
NEEDS = {
    "pss": "poses with every joint (PSS is of whole poses)",
    "mpjve_m": "samples whose previous frame has an answer, too",
    "jdr_occluded": "samples with a covered joint",
}
"""What a metric needs in a sample, in words."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was evaluated: two evaluations are comparable if data and protocol are equal."""

    data_sha256: str
    model_sha256: str
    protocol: str
    skeleton: Skeleton
    """Skeleton of the truth."""


def figures(rows: pd.DataFrame, skeleton: Skeleton) -> dict[str, Estimate]:
    """Every figure by name.

    Plain names (`mpjpe_m`, ...) are frame means over all rows with the maximum number of views that the method was
    given. A slash is followed by a part of the rows: `filtered` (without damaged scenes; only if there are any),
    `seen`, `unseen`, `views=3`, `views=3/unseen`, `benchmark=NAME`, `benchmark=NAME/views=3`, `action=NAME`,
    `joint=NAME`; `mpjpe_m/action_mean` is the mean of the actions' means. One that rests on too few samples is left out
    (`MIN_SAMPLES`).
    """
    names = metric_names(rows)
    values, capture = rows[names].to_numpy(np.float64), _texts(rows, "capture")
    found = {}
    for part, chosen in _parts(rows):
        estimates = known_estimates(values[chosen], capture[chosen])
        found |= {f"{m}/{part}" if part else m: e for m, e in zip(names, estimates, strict=True)}
    main = at_max_views(rows)
    for metric in ("mpjpe_m", "mpjpe_relative_m", "pa_mpjpe_m"):
        mean = group_mean_estimate(
            values[main, names.index(metric)], capture[main].tolist(), _texts(rows, "action")[main].tolist()
        )
        found[f"{metric}/action_mean"] = _known(mean, int(main.sum()))
    errors = np.stack(rows.joint_error_m.tolist()).astype(np.float64)[main]
    for joint, estimate in zip(skeleton.joints, known_estimates(errors, capture[main]), strict=True):
        found[f"mpjpe_m/joint={joint}"] = estimate
    return {name: estimate for name, estimate in found.items() if math.isfinite(estimate.mean)}


def known_estimates(values: Float[np.ndarray, "n m"], captures: np.ndarray) -> list[Estimate]:
    """`mean_estimates` of columns of n samples; NaN for one that rests on too few of them (`MIN_SAMPLES`)."""
    return [_known(estimate, len(values)) for estimate in mean_estimates(values, captures.tolist())]


def _known(estimate: Estimate, samples: int) -> Estimate:
    """NaN if it rests on too few of the samples."""
    nan = math.nan
    return estimate if estimate.samples >= min(MIN_SAMPLES, samples) else replace(estimate, mean=nan, low=nan, high=nan)


def left_out(rows: pd.DataFrame) -> tuple[str, ...]:
    """A sentence for each metric that some samples have, but too few for a figure over the maximum number of views."""
    names = metric_names(rows)
    values = rows[names].to_numpy(np.float64)[at_max_views(rows)]
    enough = min(MIN_SAMPLES, len(values))
    return tuple(
        f"{name} is left out: it would rest on {count} of {len(values)} samples, and at least {enough} "
        f"{NEEDS.get(name, 'samples with an answer')} are needed."
        for name, count in zip(names, np.isfinite(values).sum(axis=0).tolist(), strict=True)
        if 0 < count < enough
    )


def write_evaluation(folder: str, rows: pd.DataFrame, estimates: dict[str, Estimate], subject: Subject) -> None:
    """Write `samples.parquet` (one row per sample and choice of cameras) and `summary.json` below a location."""
    sink = io.BytesIO()
    rows.to_parquet(sink, compression="zstd", index=False)
    write_whole(join(folder, SAMPLES), sink.getvalue())
    summary = {
        "data_sha256": subject.data_sha256,
        "model_sha256": subject.model_sha256,
        "protocol": subject.protocol,
        "skeleton": subject.skeleton.name,
        "samples": int(at_max_views(rows).sum()),
        "sequences": len(set(_texts(rows, "capture")[at_max_views(rows)].tolist())),
        "metrics": {name: e.mean for name, e in estimates.items()},
        "intervals": {name: [e.low, e.high] for name, e in estimates.items() if math.isfinite(e.low)},
        "counts": {name: e.samples for name, e in estimates.items()},
    }
    summary[SEAL] = evaluation_seal(summary, sink.getvalue())
    write_whole(join(folder, SUMMARY), json.dumps(summary, indent=1, allow_nan=False).encode())


def by_views(rows: pd.DataFrame, metric: str = "mpjpe_m") -> dict[tuple[str, bool], dict[int, Estimate]]:
    """A figure by (benchmark, unseen cameras), then by number of views, descending."""
    keys = list(zip(rows.benchmark, rows.unseen, strict=True))
    views, capture = rows["views"].to_numpy(np.int64), _texts(rows, "capture")
    values = rows[[metric]].to_numpy(np.float64)
    found = {}
    for key in dict.fromkeys(keys):
        mine = np.array([k == key for k in keys])
        counts = sorted(set(views[mine].tolist()), reverse=True)
        chosen = {count: mine & (views == count) for count in counts}
        found[str(key[0]), bool(key[1])] = {
            count: known_estimates(values[part], capture[part])[0] for count, part in chosen.items()
        }
    return found


def by_action(rows: pd.DataFrame, metric: str = "mpjpe_m") -> dict[str, Estimate]:
    """A figure of each action, at the maximum number of views."""
    main, actions = at_max_views(rows), _texts(rows, "action")
    values, capture = rows[[metric]].to_numpy(np.float64), _texts(rows, "capture")
    chosen = {action: main & (actions == action) for action in sorted(set(actions[main].tolist()))}
    found = {action: known_estimates(values[part], capture[part])[0] for action, part in chosen.items()}
    return {action: estimate for action, estimate in found.items() if math.isfinite(estimate.mean)}


def at_max_views(rows: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """The rows that plain figures are computed over."""
    return rows.max_views.to_numpy(bool)


def _texts(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows[column].to_numpy(str)


def _parts(rows: pd.DataFrame) -> Iterator[tuple[str, Bool[np.ndarray, " n"]]]:
    """Non-empty parts of the rows by name."""
    main, damaged, unseen = (rows[name].to_numpy(bool) for name in ("max_views", "damaged", "unseen"))
    views = rows["views"].to_numpy(np.int64)
    named = {"": main, "seen": main & ~unseen, "unseen": main & unseen}
    if (main & damaged).any():
        named["filtered"] = main & ~damaged
    for count in sorted(set(views.tolist())):
        mine = views == count
        named |= {f"views={count}": mine, f"views={count}/seen": mine & ~unseen, f"views={count}/unseen": mine & unseen}
    benchmark, action = _texts(rows, "benchmark"), _texts(rows, "action")
    for text in filter(None, dict.fromkeys(benchmark.tolist())):
        mine = benchmark == text
        named[f"benchmark={text}"] = main & mine
        named |= {f"benchmark={text}/views={n}": mine & (views == n) for n in sorted(set(views[mine].tolist()))}
    named |= {f"action={text}": main & (action == text) for text in dict.fromkeys(action[main].tolist())}
    yield from ((name, chosen) for name, chosen in named.items() if chosen.any())
