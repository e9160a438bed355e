"""Comparison of several methods on the same samples: tables and curves over views."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from mvpose.evaluation.subject_errors import Evaluation
from mvpose.evaluation.summary import at_max_views, by_views
from mvpose.metrics.intervals import Estimate
from mvpose.report.evaluation_plots import error_over_views
from mvpose.report.figures import to_png
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import join

# A benchmark with more numbers of views than this becomes a curve and gets a separate table.
TABLED_COUNTS = 4
ONE_VIEW = {
    "mpjpe_relative_m": "root-relative MPJPE, mm",
    "n_mpjpe_m": "N-MPJPE, mm",
    "pa_mpjpe_m": "PA-MPJPE, mm",
    "pss": "PSS, %",
}

Key = tuple[str, bool]
"""A benchmark, and whether training has seen none of its cameras."""
Cells = Mapping[Key, Mapping[int, Estimate]]


def write_comparison(folder: str, evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """Write `comparison.md`, `comparison.json` and one curve over views per benchmark; returns URIs by file name."""
    errors = {name: by_views(e.rows) for name, e in evaluations.items()}
    found = {name: by_views(e.rows, "found") for name, e in evaluations.items()}
    tables = markdown(errors, found) + one_view_table(evaluations) + several_people_table(evaluations)
    files = {"comparison.md": tables.encode(), "comparison.json": _json(evaluations, errors, found)}
    for benchmark, unseen in _keys(errors):
        series = {n: dict(cells[benchmark, unseen]) for n, cells in errors.items() if (benchmark, unseen) in cells}
        if max(map(len, series.values())) > 1:
            files[f"views{'-' if benchmark else ''}{benchmark}.png"] = to_png(error_over_views(series))
    for file, data in files.items():
        write_whole(join(folder, file), data)
    return {file: join(folder, file) for file in files}


def markdown(errors: Mapping[str, Cells], found: Mapping[str, Cells]) -> str:
    """MPJPE in mm with its 95 % interval: methods as rows, benchmarks by views as columns; curves are transposed.

    Square brackets give the share of joints that have an answer, if not all have one. A dash is a number of views
    that the method does not support.
    """
    columns = [
        (key, sorted({n for cells in errors.values() for n in cells.get(key, {})}, reverse=True))
        for key in _keys(errors)
    ]
    few = [(key, n) for key, counts in columns if len(counts) <= TABLED_COUNTS for n in counts]
    curves = [_curve(key, counts, errors, found) for key, counts in columns if len(counts) > TABLED_COUNTS]
    return "\n".join([*([_table(few, errors, found)] if few else []), *curves])


def one_view_table(evaluations: Mapping[str, Evaluation]) -> str:
    """What one view determines, of the methods that answer from one: errors in mm without the root's position, then
    also without scale (N-), then also without rotation (PA-); PSS in per cent. Empty if there are none.

    Square brackets give the number of samples that a figure rests on, if these are not all."""
    rows = []
    for name, evaluation in evaluations.items():
        main = at_max_views(evaluation.rows)
        if (evaluation.rows["views"].to_numpy()[main] == 1).all():
            found = {metric: evaluation.estimates.get(metric) for metric in ONE_VIEW}
            rows.append([name, *(_in_unit(metric, e) + of_samples(e, int(main.sum())) for metric, e in found.items())])
    return "\n" + _lines(["One view", *ONE_VIEW.values()], rows) if rows else ""


SEVERAL = {
    "ap_2d": "AP (OKS)", "ap_2d@0.5": "AP at 0.5", "recall_2d@0.5": "recall at 0.5", "pckh_2d@0.5": "PCKh at 0.5",
    "pcp_2d": "PCP",
}  # fmt: skip


def several_people_table(evaluations: Mapping[str, Evaluation]) -> str:
    """2D figures of images of several people in per cent (see `image_people`); empty if there are none."""
    found = {name: e.estimates for name, e in evaluations.items() if "ap_2d" in e.estimates}
    rows = [
        [name, str(estimates["ap_2d"].samples), *(_in_unit(figure, estimates.get(figure)) for figure in SEVERAL)]
        for name, estimates in found.items()
    ]
    return "\n" + _lines(["Several people in 2D, %", "people", *SEVERAL.values()], rows) if rows else ""


def of_samples(estimate: Estimate | None, samples: int) -> str:
    """` [12 of 300]` for a figure that does not rest on all samples."""
    return "" if estimate is None or estimate.samples == samples else f" [{estimate.samples} of {samples}]"


def _in_unit(metric: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    scale = 1000 if metric.endswith("_m") else 100
    span = f" ({scale * estimate.low:.1f} to {scale * estimate.high:.1f})" if math.isfinite(estimate.low) else ""
    return f"{scale * estimate.mean:.1f}{span}"


def _keys(errors: Mapping[str, Cells]) -> list[Key]:
    return list(dict.fromkeys(key for cells in errors.values() for key in cells))


def _table(columns: list[tuple[Key, int]], errors: Mapping[str, Cells], found: Mapping[str, Cells]) -> str:
    heads = ["MPJPE, mm", *(f"{_text(key)}, {n} views" for key, n in columns)]
    return _lines(heads, [[name, *(_cell(name, key, n, errors, found) for key, n in columns)] for name in errors])


def _curve(key: Key, counts: list[int], errors: Mapping[str, Cells], found: Mapping[str, Cells]) -> str:
    """Numbers of views as rows, methods as columns: ten numbers of views are unreadable as columns."""
    heads = [f"MPJPE, mm: {_text(key)}", *errors]
    return _lines(heads, [[f"{n} views", *(_cell(name, key, n, errors, found) for name in errors)] for n in counts])


def _lines(heads: list[str], rows: list[list[str]]) -> str:
    rule = f"| --- |{' ---: |' * (len(heads) - 1)}"
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _text(key: Key) -> str:
    benchmark, unseen = key
    return f"{benchmark or 'samples'} ({'un' * unseen}seen)"


def _cell(name: str, key: Key, n: int, errors: Mapping[str, Cells], found: Mapping[str, Cells]) -> str:
    error, share_found = (cells[name].get(key, {}).get(n) for cells in (errors, found))
    if error is None or share_found is None or not math.isfinite(error.mean):
        return "–"
    share = f" [{100 * share_found.mean:.1f} %]" if share_found.mean < 0.9995 else ""
    return f"{_in_unit('mpjpe_m', error)}{share}"


def _json(evaluations: Mapping[str, Evaluation], errors: Mapping[str, Cells], found: Mapping[str, Cells]) -> bytes:
    records = []
    for name, evaluation in evaluations.items():
        for (benchmark, unseen), counts in errors[name].items():
            for n, e in counts.items():
                finite = {
                    k: v for k, v in (("mpjpe_m", e.mean), ("low_m", e.low), ("high_m", e.high)) if math.isfinite(v)
                }
                records.append(
                    {
                        "method": name,
                        "model_sha256": evaluation.subject.model_sha256,
                        "data_sha256": evaluation.subject.data_sha256,
                        "benchmark": benchmark,
                        "unseen": unseen,
                        "views": n,
                        "found": found[name][benchmark, unseen][n].mean,
                        **finite,
                    }
                )
    return json.dumps(records, indent=1, allow_nan=False).encode()
