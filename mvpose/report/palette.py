"""Colours that colour-blind eyes tell apart (Okabe and Ito, "Color Universal Design", 2008)."""

from __future__ import annotations

from mvpose.skeleton import Skeleton

RGB = tuple[int, int, int]

# On footage: light enough to stand out from clothes and floor, drawn over a dark casing.
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
    """left, right or middle for each joint, from the prefix of its name."""
    prefixes = [joint.split("_")[0] for joint in skeleton.joints]
    return [prefix if prefix in ("left", "right") else "middle" for prefix in prefixes]


FOOTAGE = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
INK = {"left": LEFT_INK, "right": RIGHT_INK, "middle": MIDDLE_INK}
