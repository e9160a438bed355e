"""The style of all plots, and their export as PNG. Plots are 1600 px wide and designed to be read at 1200."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from mvpose.skeleton import Skeleton

RGB = tuple[int, int, int]

# On footage: bright enough against clothes and floor, drawn over a dark casing.
LEFT: RGB = (86, 190, 255)
RIGHT: RGB = (255, 140, 26)
MIDDLE: RGB = (255, 255, 255)
CASING: RGB = (20, 24, 30)
DETECTED: RGB = (255, 255, 255)
REJECTED: RGB = (255, 60, 200)
UNRELATED: RGB = (170, 170, 170)

# On a light page.
LEFT_INK = "#0072b2"
RIGHT_INK = "#d55e00"
MIDDLE_INK = "#4d5660"
GRID_INK = "#d9dee4"
PANE_INK = "#f6f8fa"
TEXT_INK = "#1f2933"
SERIES_INK = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d5660")


def sides(skeleton: Skeleton) -> list[str]:
    """Return left, right or middle for each joint, from the prefix of its name."""
    prefixes = [joint.split("_")[0] for joint in skeleton.joints]
    return [prefix if prefix in ("left", "right") else "middle" for prefix in prefixes]


FOOTAGE = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
INK = {"left": LEFT_INK, "right": RIGHT_INK, "middle": MIDDLE_INK}


INCHES_WIDE = 10.0
DOTS_PER_INCH = 160

_STYLE: dict[RcKeyType, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": TEXT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes3d.xaxis.panecolor": PANE_INK,
    "axes3d.yaxis.panecolor": PANE_INK,
    "axes3d.zaxis.panecolor": PANE_INK,
    "grid.color": GRID_INK,
    "grid.linewidth": 0.7,
    "text.color": TEXT_INK,
    "text.parse_math": False,
    "xtick.color": TEXT_INK,
    "ytick.color": TEXT_INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@contextmanager
def new_figure(inches_high: float) -> Iterator[Figure]:
    """A figure in the house style without a window or global state. Names from archives are not parsed as math text."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(INCHES_WIDE, inches_high), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def show_message(axes: Axes, why: str) -> None:
    """Show a message in the middle of an empty plot."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
