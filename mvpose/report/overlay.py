"""Overlay of the reconstructed skeleton on the images of all cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mvpose.records import Poses3D
from mvpose.report.drawing import cross, dot, ring, shade, stroke, text_width, write_text
from mvpose.report.figures import CASING, DETECTED, FOOTAGE, LEFT, MIDDLE, REJECTED, RGB, RIGHT, UNRELATED, sides
from mvpose.report.mosaic import Mosaic
from mvpose.report.reprojection import Reprojection
from mvpose.report.subject import body_indices, mean_known
from mvpose.skeleton import Skeleton

HEADER_ROWS = 40
BACKGROUND: RGB = (24, 28, 34)
LABEL: RGB = (240, 243, 246)
TITLE_SIZE, LEGEND_SIZE, EDGE, APART = 17, 15, 12, 24
"""Of the header, in pixels: text, and space before the title and between title and legend."""
LEGEND = (("left", LEFT), ("right", RIGHT), ("middle", MIDDLE), ("detected", DETECTED), ("rejected", REJECTED))


@dataclass(frozen=True, eq=False)
class Marks:
    """Marks drawn over one camera's image, in its pixels; NaN points are not drawn."""

    projected: Float[np.ndarray, "P J 2"]
    detected: Float[np.ndarray, "P J 2"]
    used: Bool[np.ndarray, "P J"]
    unrelated: Float[np.ndarray, "Q J 2"]
    track_id: Int[np.ndarray, " P"]
    skeleton: Skeleton
    error_px: float
    """Mean error of the body joints in this camera; NaN if the camera was not used."""


def marks_of_row(reprojection: Reprojection, row: int, poses: Poses3D) -> list[Marks]:
    """Return the marks of one row of a reprojection, one per camera."""
    r, body = reprojection, body_indices(poses.skeleton)
    errors = mean_known(r.error_px[:, row][:, :, body], axis=(1, 2))
    return [
        Marks(projected, detected, used, unrelated, poses.track_id, poses.skeleton, float(error))
        for projected, detected, used, unrelated, error in zip(
            r.projected[:, row], r.detected[:, row], r.used[:, row], r.unrelated[:, row], errors, strict=True
        )
    ]


def overlay_frame(
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    names: Sequence[str],
    mosaic: Mosaic,
    marks: Sequence[Marks] | None,
    title: str,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw all cameras of one frame below a title, with their marks; without marks, label the frame as no result."""
    width, height = mosaic.size
    canvas = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    for view, image in enumerate(images):
        mosaic.paste(canvas, view, image)
        tile = mosaic.tiles[view].cut(canvas)
        if marks is not None:
            _draw_marks(tile, _in_tile(marks[view], mosaic, view))
        _label(tile, names[view], "no result" if marks is None else _caption(marks[view]))
    draw_header(canvas[:HEADER_ROWS], title)
    return canvas


def header_width(title: str) -> int:
    """The columns that a header needs to show a title and the legend in full."""
    return EDGE + text_width(title, TITLE_SIZE) + APART + _legend_width()


def draw_header(header: UInt8[np.ndarray, "H W 3"], title: str) -> None:
    """Draw the title on the left, and the legend of colours and marks on the right if there is room."""
    middle = header.shape[0] // 2
    stop = write_text(header, title, EDGE, middle, TITLE_SIZE, LABEL)
    left = header.shape[1] - _legend_width()
    if left < stop + APART:
        return
    for name, colour in LEGEND:
        centre = np.array([left + 12.0, middle])
        if name == "detected":
            ring(header, centre, 5.0, colour)
        elif name == "rejected":
            cross(header, centre, 4.0, colour)
        else:
            reach = np.array([9.0, 0.0])
            stroke(header, centre - reach, centre + reach, colour, 4)
        left = write_text(header, name, left + 26, middle, LEGEND_SIZE, LABEL) + 20


def _legend_width() -> int:
    return sum(text_width(name, LEGEND_SIZE) + 46 for name, _ in LEGEND)


def _in_tile(marks: Marks, mosaic: Mosaic, view: int) -> Marks:
    moved = {name: mosaic.to_tile(view, getattr(marks, name)) for name in ("projected", "detected", "unrelated")}
    return replace(marks, **moved)


def _draw_marks(tile: UInt8[np.ndarray, "H W 3"], marks: Marks) -> None:
    # A body fills a third to a half of most images: 1/260 of the diagonal is about the width of its wrist.
    width = max(2, round(float(np.hypot(*tile.shape[:2])) / 260))
    for joint in marks.unrelated.reshape(-1, 2):
        ring(tile, joint, max(1.5, 0.6 * width), UNRELATED)
    for person in range(len(marks.projected)):
        _draw_skeleton(tile, marks.projected[person], marks.skeleton, width)
        for joint, used in zip(marks.detected[person], marks.used[person], strict=True):
            if used:
                ring(tile, joint, max(2.0, 0.9 * width), DETECTED)
            else:
                cross(tile, joint, max(2.0, 0.8 * width), REJECTED)
    if len(marks.projected) > 1:
        _draw_track_ids(tile, marks)


def _draw_skeleton(
    tile: UInt8[np.ndarray, "H W 3"], joints: Float[np.ndarray, "J 2"], skeleton: Skeleton, width: int
) -> None:
    """Draw bones over a dark casing; joint discs as wide as the bones close the gaps at bends."""
    side = sides(skeleton)
    bones = skeleton.bone_indices
    for a, b in bones:
        stroke(tile, joints[a], joints[b], CASING, width + 2)
    for joint in joints:
        dot(tile, joint, 0.75 * width + 1.0, CASING)
    for a, b in bones:
        stroke(tile, joints[a], joints[b], FOOTAGE[side[b]], width)
    for joint, tint in zip(joints, side, strict=True):
        dot(tile, joint, 0.75 * width, FOOTAGE[tint])


def _draw_track_ids(tile: UInt8[np.ndarray, "H W 3"], marks: Marks) -> None:
    for joints, track in zip(marks.projected, marks.track_id, strict=True):
        known = joints[np.isfinite(joints).all(axis=1)]
        if len(known):
            left, middle = round(float(known[:, 0].mean())) - 10, round(float(known[:, 1].min())) - 18
            if 0 <= left < tile.shape[1] and 0 <= middle < tile.shape[0]:
                write_text(tile, f"#{track}", left, middle, 18, LABEL)


def _label(tile: UInt8[np.ndarray, "H W 3"], name: str, caption: str) -> None:
    size = min(18, max(10, tile.shape[1] // 18))
    rows = min(2 * size, tile.shape[0])
    columns = min(text_width(f"{name}  {caption}", size) + 2 * size, tile.shape[1])
    shade(tile[:rows, :columns], CASING, 0.72)
    write_text(tile, f"{name}  {caption}", size // 2 + 2, rows // 2, size, LABEL)


def _caption(marks: Marks) -> str:
    return f"{marks.error_px:.1f} px" if np.isfinite(marks.error_px) else "not used"
