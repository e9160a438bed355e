"""Texts of the report: formatted numbers, failure reasons and definitions of terms."""

from __future__ import annotations

import math

from mvpose.errors import FailureReason

_UNITS = {"px": "px", "mm": "mm", "m": "m", "s": "s", "fps": "frames/s", "share": "%", "percent": "%"}

REASONS = {
    FailureReason.CONFIG: "A setting does not fit these inputs. Correct the named setting and rerun.",
    FailureReason.CALIBRATION: "The calibration could not be used. Correct or replace it and rerun.",
    FailureReason.VIDEO_UNREADABLE: "A video could not be decoded. Copy it again from its source and rerun.",
    FailureReason.VIDEO_TOO_SHORT: (
        "A video ends before its stated last frame. The copy was probably cut off. Copy it again and rerun."
    ),
    FailureReason.EXCEPTION: "The detector or the network raised an error on the clip. The run contains its traceback.",
    FailureReason.NO_PERSON: "No person was seen by enough cameras. If people are visible, check the 2D detections.",
    FailureReason.TOO_FEW_VIEWS: "Fewer than two cameras had footage. 3D needs at least two.",
    FailureReason.WEIGHTS: "The detector's weights are missing or not the expected file. Fetch them again.",
    FailureReason.STORAGE: "A result could not be written or read. Check free space and permissions and rerun.",
    FailureReason.WORKER_DIED: (
        "The worker process died several times on this clip, usually because it ran out of memory. "
        "Rerun with fewer workers or shorter clips."
    ),
    FailureReason.TIMEOUT: (
        "The clip exceeded its time limit: the decoder or the storage hangs, or the machine is overloaded. "
        "Check its videos, or allow more time, and rerun with --retry-failed."
    ),
    FailureReason.OUT_OF_MEMORY: (
        "The clip ran out of memory. Rerun with --retry-failed and shorter clips or fewer workers."
    ),
    FailureReason.BAD_DATA: (
        "The capture was judged bad, and the job was strict. Its poses exist but cannot be trusted. Correct what the "
        "message names and rerun with --replan."
    ),
}

MEANINGS = (
    (
        "Reprojection error, px",
        "The 3D joint is projected back into an image. The error is the distance between the projection and the "
        "joint detected there. Means are over the views used in triangulation and over the twelve body "
        "joints: shoulders, elbows, wrists, hips, knees, ankles. The size of a pixel at the person depends on "
        "the camera: with a focal length of 1700 px and the person 4 m away, 1 px is 2.4 mm. A low error "
        "alone does not prove a good result: with only two views, a wrong joint can reproject well. Check "
        "the number of views and the limb lengths too.",
    ),
    (
        "Sigma, mm",
        "68 % of joints with this sigma are this near to their true place. It follows from the likelihoods of the 2D "
        "joints used, from the angles and distances of the cameras, and from how well the views agree; the figures are "
        "medians. It was calibrated on rendered people, and is as good as the confidence scale of the 2D joints: for "
        "imported joints without a scale of their own it is a guide only.",
    ),
    (
        "Error limit, px",
        "A view farther than this from the joint that the others agree on is left out. The setting "
        "reconstruction.max_error is a share of the person's size in each frame; this is what it was in pixels, in "
        "the mean over frames, people and views.",
    ),
    (
        "Joints reconstructed, %",
        "The share of body joints that have a 3D position, from the first to the last frame of each person. "
        "Joints that could not be reconstructed are missing; they are never filled in or frozen.",
    ),
    (
        "Views",
        "Mean number of cameras used to triangulate a body joint. The minimum is two; with two, one "
        "wrong detection goes unnoticed.",
    ),
    (
        "Limb spread, %",
        "Standard deviation of a limb's length over its median, in time. True limbs have a constant "
        "length, so this measures 3D error without ground truth. The table gives the median over limbs and "
        "persons.",
    ),
    (
        "Detected and rejected",
        "White rings are the 2D joints that were used. Magenta crosses are joints of the same person that were "
        "rejected: low confidence, or inconsistent with the other views. Grey rings are people who were detected but "
        "not reconstructed.",
    ),
    (
        "Views found by second look, %",
        "The share of the 2D detections, over all views, that the person detector missed and a second look found. With "
        "a fusing network, a view that lacks a person seen by two others is looked at again, at the place that they "
        "give.",
    ),
    (
        "World",
        "Metres, z up, in the frame of the calibration. The floor drawn in the viewer is the plane z = 0.",
    ),
)


def label_and_value(name: str, value: int | float | str) -> tuple[str, str]:
    """Format a figure for people: its name without underscores and unit, its value with the unit.

    The unit is the name's last word if that is px, mm, m, s, fps, share or percent; a share of 0.07 becomes 7.0 %.
    """
    stem, _, suffix = name.rpartition("_")
    unit = _UNITS.get(suffix, "") if stem else ""
    label = (stem if unit else name).replace("_", " ")
    if isinstance(value, str):
        return label, value
    value_text = number(100.0 * value if suffix == "share" and stem else value)
    return label, f"{value_text} {unit}" if unit and value_text != "–" else value_text


def number(value: int | float) -> str:
    """Format a number: integers with thin spaces, others to three digits or one decimal, NaN as a dash."""
    if isinstance(value, float) and not math.isfinite(value):
        return "–"
    if float(value).is_integer() and (isinstance(value, int) or abs(value) >= 1000):
        return f"{int(value):,}".replace(",", "\u2009")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u2009")
    return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
