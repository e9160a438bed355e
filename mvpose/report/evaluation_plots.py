"""Plots of errors against ground truth: by joint or action, over the number of views, cumulative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mvpose.metrics.intervals import Estimate
from mvpose.report.figures import MIDDLE_INK, SERIES_INK, new_figure, show_message

MARKERS = "os^Dvphd"
LOGARITHMIC_FROM = 8
"""Cameras."""


def error_bars(estimates: Mapping[str, Estimate], inks: Sequence[str] | None = None, max_bars: int = 40) -> Figure:
    """Mean errors (mm) as bars with intervals, one per name, in the given order; keeps the `max_bars` largest."""
    if len(estimates) > max_bars:
        kept = set(sorted(estimates, key=lambda name: -estimates[name].mean)[:max_bars])
        estimates = {name: e for name, e in estimates.items() if name in kept}
        inks = None
    with new_figure(1.0 + 0.27 * max(4, len(estimates))) as figure:
        axes = figure.subplots()
        if not estimates:
            show_message(axes, "No data.")
            return figure
        places = np.arange(len(estimates))
        mean, low, high = (1000 * np.array([getattr(e, end) for e in estimates.values()]) for end in _ENDS)
        axes.barh(places, mean, color=list(inks) if inks else SERIES_INK[0], height=0.64)
        known = np.isfinite(low)
        axes.hlines(places[known], low[known], high[known], color=MIDDLE_INK, linewidth=1.6)
        right = np.where(known, high, mean)
        for place, value, end in zip(places, mean, right, strict=True):
            axes.annotate(f"{value:.1f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(places, [name.replace("_", " ") for name in estimates])
        axes.set_xlim(0, 1.1 * float(right.max()))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("MPJPE, mm")
    return figure


_ENDS = ("mean", "low", "high")


def error_over_views(series: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """Mean error (mm) over the number of views: one line per name, with intervals as bands.

    A benchmark with many cameras gets a logarithmic scale, because the error mostly changes over the first few.
    """
    with new_figure(4.6) as figure:
        axes = figure.subplots()
        highest = 0.0
        for i, (name, by_views) in enumerate(series.items()):
            views = np.array(sorted(by_views))
            mean, low, high = (1000 * np.array([getattr(by_views[v], end) for v in views]) for end in _ENDS)
            ink = SERIES_INK[i % len(SERIES_INK)]
            axes.plot(views, mean, color=ink, marker=MARKERS[i % len(MARKERS)], markersize=5, label=name)
            axes.fill_between(views, low, high, color=ink, alpha=0.15, linewidth=0)
            highest = max(highest, float(np.nanmax(np.fmax(mean, high), initial=0.0)))
        _finish_views(axes, sorted({v for by_views in series.values() for v in by_views}), highest)
    return figure


def _finish_views(axes: Axes, views: list[int], highest: float) -> None:
    if not views:
        show_message(axes, "No data.")
        return
    axes.set_ylim(0, 1.05 * highest if highest else 1.0)
    if max(views) > LOGARITHMIC_FROM:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    if len(views) <= 16:
        axes.set_xticks(views, [str(n) for n in views])
    axes.set(xlabel="number of cameras", ylabel="MPJPE with 95 % interval, mm")
    axes.legend(fontsize=9)


def cumulative_errors(errors_m: Mapping[str, Float[np.ndarray, " n"]], limit_m: float = 0.15) -> Figure:
    """Share of joints (%) whose error is below x, for x from 0 to `limit_m`; NaN errors count as larger."""
    with new_figure(4.0) as figure:
        axes = figure.subplots()
        at = np.linspace(0.0, limit_m, 301)
        for i, (name, errors) in enumerate(errors_m.items()):
            below = np.searchsorted(np.sort(errors[np.isfinite(errors)]), at, side="right")
            axes.plot(1000 * at, 100 * below / max(1, len(errors)), color=SERIES_INK[i % len(SERIES_INK)], label=name)
        axes.set_xlim(0, 1000 * limit_m)
        axes.set_ylim(0, 101)
        axes.set(xlabel="error, mm", ylabel="joints, %")
        axes.legend(fontsize=9, loc="lower right")
    return figure
