"""Overlays of a whole capture: a film of all cameras, and a sheet of a few moments seen close."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from mvpose.archive.capture_frames import frames_of_views
from mvpose.archive.video_writer import write_video
from mvpose.records import Capture
from mvpose.report.mosaic import Mosaic, Region, lay_out
from mvpose.report.overlay import HEADER_ROWS, marks_of_row, overlay_frame
from mvpose.report.reprojection import reproject
from mvpose.report.subject import CaptureReport, mean_known

LARGEST_FRAME = (1920, 1080)
POSTER_SIZE = (1280, 720)
SHEET_WIDTH = 1920
MOMENT_HEIGHT = 620


def write_overlay(subject: CaptureReport, uri: str, max_frames: int) -> int:
    """An H.264 film at the capture's speed, of `max_frames` frames from the first with a result; returns its length.

    Frames between that have no result are shown bare. VideoError where the footage cannot be read again.
    """
    start = int(subject.frames[0])
    stop = min(int(subject.frames[-1]) + 1, start + max_frames)
    write_video(uri, overlay_frames(subject, start, stop), subject.capture.fps)
    return stop - start


def overlay_frames(subject: CaptureReport, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Mosaics of all cameras for frames [start, stop) of the capture."""
    capture = subject.capture
    mosaic = _whole_pictures(capture, LARGEST_FRAME)
    row_of = {int(frame): row for row, frame in enumerate(subject.frames)}
    for frame, images in enumerate(frames_of_views(capture, start, stop), start):
        row = row_of.get(frame)
        marks = None if row is None else marks_of_row(reproject(subject, slice(row, row + 1)), 0, subject.poses)
        yield overlay_frame(images, capture.rig.names, mosaic, marks, _title(subject, frame, row))


def contact_sheet(subject: CaptureReport, rows: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """A few rows, one below another, all cameras cut to where the people are. VideoError as `write_overlay`."""
    regions = _regions_of_people(subject, rows)
    mosaic = lay_out(regions, (SHEET_WIDTH, MOMENT_HEIGHT), header=HEADER_ROWS, largest_scale=4.0)
    return np.concatenate([_moment(subject, row, mosaic) for row in rows])


def film_poster(subject: CaptureReport, row: int) -> UInt8[np.ndarray, "H W 3"]:
    """One picture of the film, smaller, to stand for it. VideoError as `write_overlay`."""
    return _moment(subject, row, _whole_pictures(subject.capture, POSTER_SIZE))


def sheet_rows(subject: CaptureReport, count: int) -> list[int]:
    """Rows evenly spread over the capture, and last the one whose body joints reproject worst."""
    errors = subject.frame_errors_px
    worst = [int(np.nanargmax(errors))] if np.isfinite(errors).any() else []
    return [*(row for row in subject.moments(count - 1) if row not in worst), *worst]


def _whole_pictures(capture: Capture, limit: tuple[int, int]) -> Mosaic:
    return lay_out([Region(0, 0, *video.size) for video in capture.videos], limit, HEADER_ROWS, largest_scale=2.0)


def _moment(subject: CaptureReport, row: int, mosaic: Mosaic) -> UInt8[np.ndarray, "H W 3"]:
    frame = int(subject.frames[row])
    images = next(frames_of_views(subject.capture, frame, frame + 1))
    marks = marks_of_row(reproject(subject, slice(row, row + 1)), 0, subject.poses)
    return overlay_frame(images, subject.capture.rig.names, mosaic, marks, _title(subject, frame, row))


def _regions_of_people(subject: CaptureReport, rows: list[int]) -> list[Region]:
    """The part of each camera's picture that holds all people in all these rows, with room around; one shape for all.

    A camera that sees nobody is shown about its middle.
    """
    boxes = []
    seen = [reproject(subject, slice(row, row + 1)).projected for row in rows]
    for view, video in enumerate(subject.capture.videos):
        joints = np.concatenate([projected[view].reshape(-1, 2) for projected in seen])
        joints = joints[((joints >= 0) & (joints < video.size)).all(axis=1)]
        joints = joints if len(joints) else np.array([video.size]) / 2
        boxes.append((joints.min(axis=0), joints.max(axis=0)))
    extent = np.max([high - low for low, high in boxes], axis=0) * 1.25
    return [
        _region((low + high) / 2, extent, video.size)
        for (low, high), video in zip(boxes, subject.capture.videos, strict=True)
    ]


def _region(centre: Float[np.ndarray, 2], extent: Float[np.ndarray, 2], size: tuple[int, int]) -> Region:
    """A rectangle of `extent` about a centre, moved and then cut to lie within a picture."""
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
    return f"{clock} · mean error {error:.1f} px" if np.isfinite(error) else f"{clock} · nobody reconstructed"
