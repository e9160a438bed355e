"""Numbers and failures in words."""

from __future__ import annotations

import math

from mvpose.errors import FailureReason

_UNITS = {"px": "px", "mm": "mm", "m": "m", "s": "s", "fps": "frames/s", "share": "%", "percent": "%"}

REASONS = {
    FailureReason.CONFIG: "A setting did not fit these inputs. Correct the setting named and run again.",
    FailureReason.CALIBRATION: "The calibration could not be used. Correct or replace it and run again.",
    FailureReason.VIDEO_UNREADABLE: "A video could not be decoded. Copy it again from its source and run again.",
    FailureReason.VIDEO_TOO_SHORT: (
        "A video ends before the frame that it promises; its copy was probably cut off. Copy it again and run again."
    ),
    FailureReason.EXCEPTION: "The detector or the network raised an error on the clip; its traceback is in the run.",
    FailureReason.NO_PERSON: "Nobody was seen by enough cameras. If somebody is there, look at the 2D detections.",
    FailureReason.TOO_FEW_VIEWS: "Fewer than two cameras had footage; 3D needs two.",
    FailureReason.WEIGHTS: "The detector's weights are missing or are not the expected file. Fetch them again.",
    FailureReason.STORAGE: "A result could not be written or read. Look at space and permissions and run again.",
    FailureReason.WORKER_DIED: (
        "The process that worked on the clip died several times, mostly for want of memory. "
        "Run again with fewer workers or shorter clips."
    ),
    FailureReason.TIMEOUT: (
        "The clip took longer than it may: a decoder or a storage that hangs, or a machine with too much to do. "
        "Look at its videos, or allow more time, and run again with --retry-failed."
    ),
    FailureReason.OUT_OF_MEMORY: (
        "Memory did not suffice for the clip. Run again with --retry-failed and shorter clips or fewer workers."
    ),
}

MEANINGS = (
    (
        "Reprojection error, px",
        "The 3D joint is projected back into an image; the error is its distance from the joint that was "
        "detected there. Means are over the views that the triangulation used, and over the twelve body "
        "joints: shoulders, elbows, wrists, hips, knees, ankles. The size of a pixel on the person depends on "
        "the camera: with a focal length of 1700 px and the person 4 m away, 1 px is 2.4 mm. A low error "
        "alone does not prove a good result: with two views left, a wrong joint can reproject well. Read it "
        "together with the views and the limb lengths.",
    ),
    (
        "Error limit, px",
        "A view farther than this from the joint that the others agree on is left out. The setting "
        "reconstruction.max_error is a share of the person's size in each frame; this is what it was in pixels, in "
        "the mean over frames, people and views.",
    ),
    (
        "Joints reconstructed, %",
        "The share of body joints that have a 3D position, from the first to the last frame of each person. A "
        "joint that could not be reconstructed is missing; it is never filled in or frozen at its last place.",
    ),
    (
        "Views",
        "How many cameras a reconstructed body joint rests on, in the mean. Two is the least; with two, one "
        "wrong detection goes unnoticed.",
    ),
    (
        "Limb spread, %",
        "Standard deviation of a limb's length over its median, in time. True limbs do not change their "
        "length, so this is error in 3D that needs no ground truth. The table gives the median over limbs and "
        "persons.",
    ),
    (
        "Detected and rejected",
        "White rings are the 2D joints that were used, magenta crosses those of the same person that were "
        "not: unsure, or in contradiction to the other views. Grey rings are people who were detected but not "
        "reconstructed.",
    ),
    (
        "World",
        "Metres, z up, in the frame of the calibration. The floor drawn in the viewer is the plane z = 0.",
    ),
)


def label_and_value(name: str, value: int | float | str) -> tuple[str, str]:
    """A figure as people read it: its name without underscores and unit, its value with the unit.

    The unit is the name's last word where that is px, mm, m, s, fps, share or percent; a share 0.07 is told as 7.0 %.
    """
    stem, _, suffix = name.rpartition("_")
    unit = _UNITS.get(suffix, "") if stem else ""
    label = (stem if unit else name).replace("_", " ")
    if isinstance(value, str):
        return label, value
    value_text = number(100.0 * value if suffix == "share" and stem else value)
    return label, f"{value_text} {unit}" if unit and value_text != "–" else value_text


def number(value: int | float) -> str:
    """Whole numbers with thin spaces between thousands, others to three figures or one decimal; a dash for NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return "–"
    if float(value).is_integer() and (isinstance(value, int) or abs(value) >= 1000):
        return f"{int(value):,}".replace(",", "\u2009")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u2009")
    return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
