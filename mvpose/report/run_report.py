"""Write the report of a run: the page, and a folder of images and a video for each capture shown in full."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from mvpose.errors import VideoError
from mvpose.records import ClipFailure
from mvpose.report.figures import to_png
from mvpose.report.overlay_files import comparison, contact_sheet, film_poster, sheet_rows, write_overlay
from mvpose.report.page import Film, PageImage, Section, render_page
from mvpose.report.quality_plots import error_map, error_over_time, limb_lengths
from mvpose.report.report_settings import ReportConfig
from mvpose.report.reprojection import camera_errors
from mvpose.report.room_plot import room_plot
from mvpose.report.subject import CaptureReport, folder_name
from mvpose.report.viewer import viewer_data
from mvpose.report.wording import label_and_value
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import join

PAGE = "report.html"
COMPARED_FIGURES = ("body_left_out_mean_px", "body_used_mean_px", "body_bone_spread_share", "body_reconstructed_share")


def write_report(
    captures: Sequence[CaptureReport],
    failures: Sequence[ClipFailure],
    summary: Mapping[str, int | float | str],
    output_uri: str,
    config: ReportConfig | None = None,
    title: str = "mvpose report",
) -> dict[str, str]:
    """Write the page and, for each capture shown in full, a folder of images and an overlay video.

    Returns the URI of each file by its path below `output_uri`; the page is `report.html`. If the footage cannot be
    read again, the overlays are left out and the page states why. Raises ResultsError if the output cannot be written.
    """
    config = config or ReportConfig()
    captures = sorted(captures, key=_severity, reverse=True)
    files: dict[str, str] = {}
    shown = [subject for subject in captures if len(subject.frames)][: config.max_captures]
    sections = [_capture_section(subject, output_uri, config, files) for subject in shown]
    page = render_page(title, captures, sections, failures, summary)
    _write(PAGE, page.encode(), output_uri, files)
    return files


def _capture_section(subject: CaptureReport, output_uri: str, config: ReportConfig, files: dict[str, str]) -> Section:
    folder = folder_name(subject.capture.capture_id)
    film, sheet, trouble = _overlays(subject, folder, output_uri, config, files)
    plots = _plots(subject)
    for name, image in plots.items():
        _write(f"{folder}/{name}.png", image.data, output_uri, files)
    return Section(subject, sheet, list(plots.values()), viewer_data(subject, config.max_viewer_frames), film, trouble)


def _overlays(
    subject: CaptureReport, folder: str, output_uri: str, config: ReportConfig, files: dict[str, str]
) -> tuple[Film | None, list[PageImage], str]:
    """Return the video, the overlay sheet, and the reason if both are missing."""
    film = f"{folder}/overlay.mp4"
    try:
        rows = sheet_rows(subject, config.moments)
        if not rows:
            return None, [], "Nobody was reconstructed in any frame."
        poster, sheet = film_poster(subject, rows[0]), contact_sheet(subject, rows)
        write_overlay(subject, join(output_uri, film), config.max_overlay_frames)
    except VideoError as error:
        return None, [], str(error)
    files[film] = join(output_uri, film)
    _write(f"{folder}/overlay.png", _encoded(sheet, ".png"), output_uri, files)
    note = "Frames spread over the capture, cropped to the people. The last one has the largest error."
    images = [PageImage("Overlay, close-up", note, "image/jpeg", _encoded(sheet, ".jpg"))]
    return Film(film, _encoded(poster, ".jpg")), [*images, *_comparison(subject, folder, output_uri, files)], ""


def _comparison(subject: CaptureReport, folder: str, output_uri: str, files: dict[str, str]) -> Iterator[PageImage]:
    """This run and the one beside it, if there is one with people."""
    if subject.beside is None or not len(subject.beside.subject.full_rows):
        return
    other = subject.beside.subject
    image = comparison(subject, other)
    _write(f"{folder}/beside.png", _encoded(image, ".png"), output_uri, files)
    figures = [
        f"{label} {value} and {label_and_value(name, other.figures[name])[1]}"
        for name in COMPARED_FIGURES
        if name in subject.figures and name in other.figures
        for label, value in [label_and_value(name, subject.figures[name])]
    ]
    note = f"Left this run, right {subject.beside.run}, at the moments in which they differ most. " + "; ".join(figures)
    yield PageImage("Beside another run", note, "image/jpeg", _encoded(image, ".jpg"))


def _plots(subject: CaptureReport) -> dict[str, PageImage]:
    """The plots by file name."""
    errors = camera_errors(subject)
    drawn = {
        "error_by_joint": (
            error_map(subject, errors),
            "Error by camera and joint",
            "Dark is bad in both maps. The twelve body joints are left of the line; only they enter the figures. A "
            "dark row is a camera that moved or is out of sync. A dark column is a joint that is hard to see.",
        ),
        "error_over_time": (
            error_over_time(subject, errors),
            "Error, views and joints over time",
            "A lasting step indicates a camera that was knocked. Peaks indicate fast or occluded movement. Lines break "
            "where a clip has no result.",
        ),
        "limb_lengths": (
            limb_lengths(subject),
            "Limb lengths",
            "Lengths should be constant, and equal on the left and right.",
        ),
        "room": (
            room_plot(subject),
            "Cameras and people",
            "Faint is early, strong is late. People should stand upright on z = 0, surrounded by the cameras.",
        ),
    }
    return {name: PageImage(title, note, "image/png", to_png(figure)) for name, (figure, title, note) in drawn.items()}


def _severity(subject: CaptureReport) -> tuple[int, float]:
    error = subject.mean_error_px
    return subject.verdict.severity, error if math.isfinite(error) else math.inf


def _write(path: str, data: bytes, output_uri: str, files: dict[str, str]) -> None:
    files[path] = join(output_uri, path)
    write_whole(files[path], data)


def _encoded(image: UInt8[np.ndarray, "H W 3"], suffix: str) -> bytes:
    """RGB as PNG or JPEG; at quality 85, lines show no visible blocks at a seventh of the PNG's size."""
    done, data = cv2.imencode(suffix, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else [])
    assert done
    return data.tobytes()
