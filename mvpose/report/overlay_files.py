"""Overlay files of a capture: a video of all cameras, and a close-up sheet of a few frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from mvpose.capture import Capture
from mvpose.footage.video.capture_frames import frames_of_views
from mvpose.footage.video.video_writer import write_video
from mvpose.report.mosaic import Mosaic, Region, lay_out
from mvpose.report.overlay import HEADER_ROWS, header_width, marks_of_row, overlay_frame
from mvpose.report.reprojection import reproject
from mvpose.report.subject import CaptureReport, mean_known

LARGEST_FRAME = (1920, 1080)
POSTER_SIZE = (1280, 720)
SHEET_WIDTH = 1920
MOMENT_HEIGHT = 620
COMPARED = 3
"""Moments of a comparison."""


def write_overlay(subject: CaptureReport, uri: str, max_frames: int) -> int:
    """Write an H.264 video at the capture's rate: `max_frames` frames from the first result on. Returns its length.

    Frames without a result in between are shown without an overlay. Raises VideoError if the footage cannot be read
    again.
    """
    start = int(subject.frames[0])
    stop = min(int(subject.frames[-1]) + 1, start + max_frames)
    write_video(uri, overlay_frames(subject, start, stop), subject.capture.fps)
    return stop - start


def overlay_frames(subject: CaptureReport, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield mosaics of all cameras for frames [start, stop) of the capture."""
    capture = subject.capture
    mosaic = _whole_images(capture, LARGEST_FRAME)
    row_of = {int(frame): row for row, frame in enumerate(subject.frames)}
    for frame, images in enumerate(frames_of_views(capture, start, stop), start):
        row = row_of.get(frame)
        marks = None if row is None else marks_of_row(reproject(subject, slice(row, row + 1)), 0, subject.poses)
        yield overlay_frame(images, capture.rig.names, mosaic, marks, _title(subject, frame, row))


def contact_sheet(subject: CaptureReport, rows: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """Stack some rows vertically, with all cameras cropped to the people. Raises VideoError as `write_overlay`."""
    mosaic = _about_people(subject, rows, SHEET_WIDTH)
    return np.concatenate([_moment(subject, row, mosaic) for row in rows])


def comparison(subject: CaptureReport, other: CaptureReport) -> UInt8[np.ndarray, "H W 3"]:
    """The moments of one capture in which two runs differ most, side by side. Raises VideoError as `write_overlay`."""
    rows = _rows_apart(subject, other)
    mosaic = _about_people(subject, rows, SHEET_WIDTH // 2)
    sides = [np.concatenate([_moment(each, row, mosaic) for row in rows]) for each in (subject, other)]
    return np.concatenate(sides, axis=1)


def _rows_apart(subject: CaptureReport, other: CaptureReport) -> list[int]:
    """Full rows with the largest mean distance between joints of the two, one of each `COMPARED`-th of the capture.

    People are numbered alike in both, if they are seen alike.
    """
    people = min(len(subject.poses.track_id), len(other.poses.track_id))
    apart = np.linalg.norm(subject.poses.xyz[:, :people] - other.poses.xyz[:, :people], axis=-1)
    mean = np.nan_to_num(mean_known(apart[:, :, subject.body], axis=(1, 2)))
    return [int(part[mean[part].argmax()]) for part in np.array_split(subject.full_rows, COMPARED) if len(part)]


def film_poster(subject: CaptureReport, row: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return one downscaled frame of the video as its poster. Raises VideoError as `write_overlay`."""
    return _moment(subject, row, _whole_images(subject.capture, POSTER_SIZE))


def sheet_rows(subject: CaptureReport, count: int) -> list[int]:
    """Rows evenly spread over the capture, then the row with the largest reprojection error of body joints."""
    errors = subject.frame_errors_px
    worst = [int(np.nanargmax(errors))] if np.isfinite(errors).any() else []
    return [*(row for row in subject.moments(count - 1) if row not in worst), *worst]


def _whole_images(capture: Capture, limit: tuple[int, int]) -> Mosaic:
    return lay_out([Region(0, 0, *video.size) for video in capture.videos], limit, HEADER_ROWS, largest_scale=2.0)


def _moment(subject: CaptureReport, row: int, mosaic: Mosaic) -> UInt8[np.ndarray, "H W 3"]:
    frame = int(subject.frames[row])
    images = next(frames_of_views(subject.capture, frame, frame + 1))
    marks = marks_of_row(reproject(subject, slice(row, row + 1)), 0, subject.poses)
    return overlay_frame(images, subject.capture.rig.names, mosaic, marks, _title(subject, frame, row))


def _about_people(subject: CaptureReport, rows: list[int], limit: int) -> Mosaic:
    """Layout of the people's crops in these rows, at least as wide as the header needs, at most `limit` columns."""
    header = max(header_width(_title(subject, int(subject.frames[row]), row)) for row in rows)
    width = min(header, limit)
    regions = _regions_of_people(subject, rows, width / len(subject.capture.videos) / (MOMENT_HEIGHT - HEADER_ROWS))
    return lay_out(regions, (limit, MOMENT_HEIGHT), header=HEADER_ROWS, largest_scale=4.0, narrowest=width)


def _regions_of_people(subject: CaptureReport, rows: list[int], shape: float) -> list[Region]:
    """Crop of each camera's image that contains all people in all these rows, with a margin; one shape for all.

    A camera that sees no people is cropped about its centre. Crops are at least `shape` times as wide as high.
    """
    boxes = []
    seen = [reproject(subject, slice(row, row + 1)).projected for row in rows]
    for view, video in enumerate(subject.capture.videos):
        joints = np.concatenate([projected[view].reshape(-1, 2) for projected in seen])
        joints = joints[((joints >= 0) & (joints < video.size)).all(axis=1)]
        joints = joints if len(joints) else np.array([video.size]) / 2
        boxes.append((joints.min(axis=0), joints.max(axis=0)))
    extent = np.max([high - low for low, high in boxes], axis=0) * 1.25
    extent[0] = max(extent[0], shape * extent[1])
    return [
        _region((low + high) / 2, extent, video.size)
        for (low, high), video in zip(boxes, subject.capture.videos, strict=True)
    ]


def _region(centre: Float[np.ndarray, 2], extent: Float[np.ndarray, 2], size: tuple[int, int]) -> Region:
    """A rectangle of `extent` about a centre, shifted and clipped to the image."""
    width, height = (min(full, max(32, round(float(part)))) for full, part in zip(size, extent, strict=True))
    left = min(max(0, round(float(centre[0]) - width / 2)), size[0] - width)
    top = min(max(0, round(float(centre[1]) - height / 2)), size[1] - height)
    return Region(left, top, width, height)


def _title(subject: CaptureReport, frame: int, row: int | None) -> str:
    seconds = float(subject.capture.times_s(np.array([frame]))[0])
    clock = f"{subject.capture.capture_id} · frame {frame} · {seconds:.3f} s"
    if row is None:
        return f"{clock} · no result"
    error = float(mean_known(subject.poses.error_px[row][:, subject.body]))
    return f"{clock} · mean error {error:.1f} px" if np.isfinite(error) else f"{clock} · no person reconstructed"
