"""Plots of a hyperparameter sweep: parallel coordinates of the trials, and the importance of each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mvpose.report.figures import GRID_INK, MIDDLE_INK, SERIES_INK, TEXT_INK, new_figure, show_message
from mvpose.report.page import PageImage, document, page_header, shown

LABELS = 4
"""Approximate number of labels along a scale."""
SPREAD = 0.035
"""Trials with the same option are spread over this share of the scale's height, so that all are visible."""
COLOURS = colormaps["viridis"]


@dataclass(frozen=True, eq=False)
class Scale:
    """One vertical axis of the parallel coordinates."""

    name: str
    values: Sequence[float]
    """One value per trial; indices into `options`, if there are any."""
    logarithmic: bool = False
    options: tuple[str, ...] = ()
    whole: bool = False
    """Integers only."""
    ends: tuple[float, float] | None = None
    """Lower and upper end of the scale; default: those of the trials."""


def parallel_coordinates(scales: Sequence[Scale], errors_m: Sequence[float], whole: Sequence[bool]) -> Figure:
    """Draw each trial as a line across its settings to its error (mm, last axis), coloured by error; the best is thick.

    Trials that were stopped early (`whole` false) are dashed. Trials without an error are left out.
    """
    shown = [i for i, error in enumerate(errors_m) if math.isfinite(error)]
    with new_figure(4.8) as figure:
        axes = figure.subplots()
        if not shown:
            show_message(axes, "No data: no trial has an error.")
            return figure
        errors = 1000 * np.array([errors_m[i] for i in shown])
        kept = [replace(s, values=[s.values[i] for i in shown]) for s in scales]
        kept.append(Scale("MPJPE, mm", errors.tolist()))
        heights = np.stack([_heights(scale) for scale in kept], axis=1)
        _lines(figure, axes, heights, errors, np.array([whole[i] for i in shown]))
        for place, scale in enumerate(kept):
            _scale(axes, place, scale)
        axes.set(xlim=(-0.3, len(kept) - 0.6), ylim=(-0.06, 1.14))
        axes.set_axis_off()
    return figure


def _lines(
    figure: Figure,
    axes: Axes,
    heights: Float[np.ndarray, "n s"],
    errors: Float[np.ndarray, " n"],
    whole: np.ndarray,
) -> None:
    paths = [np.stack([np.arange(heights.shape[1]), row], axis=1) for row in heights]
    best = int(np.argmin(errors))
    # A learning rate that is too high may give 100 times the error of the others: colours end at the 90th percentile.
    tint = Normalize(float(errors.min()), float(max(np.percentile(errors, 90), errors.min() + 1e-6)))
    for number in sorted(range(len(paths)), key=lambda i: -errors[i]):
        ink = COLOURS(0.92 * tint(errors[number]).clip(0, 1))
        lines = LineCollection(
            [paths[number]],
            colors=[ink],
            linewidths=3.2 if number == best else 1.3,
            linestyles="solid" if whole[number] else (0, (4, 2)),
            alpha=0.95,
        )
        axes.add_collection(lines)
    bar = figure.colorbar(ScalarMappable(tint, COLOURS), ax=axes, shrink=0.75, pad=0.03, extend="max")
    bar.set_label("lowest validation MPJPE, mm")
    axes.set_title("Trials; thick: best, dashed: stopped early", color=TEXT_INK)


def _limits(scale: Scale) -> tuple[float, float]:
    if scale.options:
        return 0.0, float(len(scale.options) - 1)
    low, high = scale.ends or (min(scale.values), max(scale.values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _height(scale: Scale, value: float) -> float:
    low, high = _limits(scale)
    if scale.logarithmic:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _heights(scale: Scale) -> Float[np.ndarray, " n"]:
    """0..1 for each trial; trials with the same option or integer are spread around it."""
    heights = np.array([_height(scale, value) for value in scale.values])
    if scale.options or scale.whole:
        for option in set(scale.values):
            (same,) = np.nonzero(np.array(scale.values) == option)
            heights[same] += SPREAD * np.linspace(-1, 1, len(same)) if len(same) > 1 else 0.0
    return heights


def _scale(axes: Axes, place: int, scale: Scale) -> None:
    axes.plot([place, place], [0, 1], color=MIDDLE_INK, linewidth=1.2, zorder=3)
    axes.text(place, 1.07, scale.name.replace(".", ".\n", 1), ha="center", va="bottom", fontsize=9, fontweight="bold")
    for value, label in _labels(scale):
        at = _height(scale, value)
        axes.plot([place - 0.015, place + 0.015], [at, at], color=MIDDLE_INK, linewidth=1.2, zorder=3)
        box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(place - 0.03, at, label, ha="right", va="center", fontsize=8.5, bbox=box, zorder=4)


def _labels(scale: Scale) -> list[tuple[float, str]]:
    if scale.options:
        return [(float(i), option) for i, option in enumerate(scale.options)]
    low, high = _limits(scale)
    if scale.logarithmic:
        decades = 10.0 ** np.arange(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        at = decades if len(decades) > 1 else np.geomspace(low, high, LABELS + 1)
    else:
        at = np.linspace(low, high, LABELS + 1)
        if scale.whole:
            at = np.unique(at.round())
        # Errors may differ only in the third decimal: labels show two digits of their step.
        digits = max(0, 1 - math.floor(math.log10((high - low) / LABELS))) if not scale.whole else 0
        return [(float(v), f"{v:.{digits}f}") for v in at]
    return [(float(v), f"{v:.3g}") for v in at]


def error_curves(curves: Sequence[Sequence[tuple[float, float]]], limit_m: float) -> Figure:
    """Draw the lowest error so far (mm) of each trial over the share of its training, coloured by the last; the best,
    which is the first, is thick. Errors from `limit_m` on are left out.
    """
    drawn = [[(share, 1000 * error) for share, error in curve if error < limit_m] for curve in curves]
    drawn = [curve for curve in drawn if curve]
    with new_figure(3.2) as figure:
        axes = figure.subplots()
        if not drawn:
            show_message(axes, "No data: no trial has an error.")
            return figure
        lasts = [curve[-1][1] for curve in drawn]
        tint = Normalize(min(lasts), max(float(np.percentile(lasts, 90)), min(lasts) + 1e-6))
        for curve, last in reversed(list(zip(drawn, lasts, strict=True))):
            best = curve is drawn[0]
            ink = COLOURS(0.92 * min(float(tint(last)), 1.0))
            axes.plot(*zip(*curve, strict=True), color=ink, linewidth=3.2 if best else 1.3, marker="o", markersize=3)
        axes.set(xlabel="share of the training", ylabel="lowest validation MPJPE, mm", yscale="log")
        axes.set_title("Trials over time; thick: best", color=TEXT_INK)
    return figure


def sweep_page(
    title: str, figures: Mapping[str, int | float | str], images: Sequence[PageImage], rows: Sequence[Sequence[str]],
    recipe: str,
) -> str:  # fmt: skip
    """Return the page of a sweep as HTML: summary figures, plots, the best trial's recipe, and the table of trials,
    whose first row is its headings."""
    head, *others = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows))
    body = "".join(f"<tr>{cells}</tr>" for cells in others)
    parts = [
        page_header(title, "Trials of a sweep, best first", figures),
        "<main><section><h2>Plots</h2>",
        *(shown(image) for image in images),
        "</section><section><h2>Recipe of the best trial</h2>",
        '<p class="note">best.toml beside this page: mvpose train --config best.toml --output OUT</p>',
        f"<details><summary>Settings</summary><pre>{escape(recipe)}</pre></details></section>",
        f"<section><h2>Trials</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></section></main>",
    ]
    return document(title, "\n".join(parts))


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("td" if i else "th", row) for i, row in enumerate(rows)]


def importance_bars(shares: Mapping[str, float], trials: int) -> Figure:
    """Share of the error's variance explained by each setting (%), largest first."""
    with new_figure(1.2 + 0.36 * max(3, len(shares))) as figure:
        axes = figure.subplots()
        if not shares:
            show_message(axes, f"{trials} trials are too few or too similar to estimate importance.")
            return figure
        names = sorted(shares, key=lambda name: -shares[name])
        places, values = np.arange(len(names)), 100 * np.array([shares[name] for name in names])
        axes.barh(places, values, color=SERIES_INK[0], height=0.62)
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.0f} %", (value, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * float(values.max()))
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=GRID_INK)
        axes.set_xlabel(f"share of the error's variance over {trials} trials, % (fANOVA)")
    return figure
