import os
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ResultsError
from mvpose.footage.video.frames import probe
from mvpose.footage.video.video_writer import write_video
from mvpose.report.page import render_page
from mvpose.report.run_report import ReportConfig, folder_name, write_report
from mvpose.report.subject import CaptureReport
from tests.report.walkers import capture_report, empty


@pytest.fixture(scope="module")
def uris(tmp_path_factory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("footage")
    names = tuple(str(folder / f"{name}.mp4") for name in "abcd")
    for name in names:
        write_video(name, [np.full((240, 320, 3), 90, dtype=np.uint8)] * 12, 30.0)
    return names


def _worse(subject: CaptureReport, by_px: float) -> CaptureReport:
    return replace(subject, poses=replace(subject.poses, error_px=subject.poses.error_px + by_px))


NAME = "day 1/walk"


@pytest.fixture(scope="module")
def walk(uris) -> CaptureReport:
    return capture_report(noise_px=1.0, uris=uris, capture_id=NAME)


@pytest.fixture(scope="module")
def report(walk, tmp_path_factory) -> dict[str, str]:
    """The files of the report of `walk`."""
    return write_report([walk], [], {"captures": 1}, str(tmp_path_factory.mktemp("report")))


def test_every_file_named_is_there_and_opens(report):
    files, root = report, os.path.dirname(report["report.html"])
    folder = folder_name(NAME)
    images = ("overlay", "error_by_joint", "error_over_time", "limb_lengths", "room")
    assert set(files) == {"report.html", f"{folder}/overlay.mp4", *(f"{folder}/{name}.png" for name in images)}
    for path, uri in files.items():
        assert uri == f"{root}/{path}" and os.path.getsize(uri) > 1000
    for name in images:
        assert cv2.imread(files[f"{folder}/{name}.png"]).shape[1] >= 1000
    assert probe(files[f"{folder}/overlay.mp4"], "overlay").num_frames == 12
    with open(files["report.html"], encoding="utf-8") as page:
        html = page.read()
    assert f'src="{folder}/overlay.mp4"' in html and html.count("data:image/png;base64,") == 4


def test_the_same_records_give_the_same_page(walk, report, tmp_path):
    again = write_report([walk], [], {"captures": 1}, str(tmp_path))
    pages = []
    for files in (report, again):
        with open(files["report.html"], "rb") as page:
            pages.append(page.read())
    assert pages[0] == pages[1]


def test_the_table_of_captures_has_the_median_sigma_of_body_joints_and_a_dash_without_one(tmp_path):
    subject = capture_report(capture_id="known")
    unknown = replace(subject.poses, sigma_mm=np.full_like(subject.poses.sigma_mm, np.nan))
    captures = [subject, replace(subject, capture=replace(subject.capture, capture_id="old"), poses=unknown)]
    page = render_page("a", captures, [], [], {})
    head = page[page.index("<th class=n>verdict") :]
    column = head[: head.index("</tr>")].split("</th>").index("<th class=n>sigma, mm")
    for name, value in (("known", "12.0"), ("old", "–")):
        row = page[page.index(f"<tr><td>{name}</td>") :]
        assert row[: row.index("</tr>")].split("</td>")[1 + column] == f"<td class=n>{value}"


def test_footage_that_is_gone_costs_the_overlays_and_the_page_says_so(tmp_path):
    subject = capture_report(3, uris=tuple(str(tmp_path / f"gone{i}.mp4") for i in range(4)))
    files = write_report([subject], [], {}, str(tmp_path / "out"))
    assert not any("overlay" in name for name in files) and "walk/room.png" in files
    with open(files["report.html"]) as page:
        html = page.read()
    assert "No overlays." in html and "gone0.mp4" in html and "<video" not in html


def test_the_worst_captures_are_shown_and_all_are_listed(tmp_path, uris):
    subjects = [_worse(capture_report(3, uris=uris, capture_id=f"take{i}"), 3.0 * i) for i in range(3)]
    unseen = empty(capture_report(3, uris=uris, capture_id="unseen"))
    files = write_report([*subjects, unseen], [], {}, str(tmp_path), ReportConfig(max_captures=2))
    assert {name.split("/")[0] for name in files} == {"report.html", "unseen", "take2"}
    with open(files["report.html"]) as page:
        html = page.read()
    assert re.findall(r"<tr><td>(?:<a[^>]*>)?(\w+)", html) == ["unseen", "take2", "take1", "take0"]
    assert "Nobody was reconstructed in any frame." in html


def test_a_run_without_any_result_still_has_its_page(tmp_path):
    files = write_report([], [], {"captures": 0}, str(tmp_path))
    assert list(files) == ["report.html"] and os.path.exists(files["report.html"])


def test_a_capture_without_rows_is_listed_alone(tmp_path):
    subject = capture_report(num_frames=0, capture_id="none")
    files = write_report([subject], [], {}, str(tmp_path))
    assert list(files) == ["report.html"]


def test_an_output_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError):
        write_report([], [], {}, str(tmp_path / "file"))


names = st.text() | st.sampled_from(
    ["..", ".", "", "a/../../b", "/etc", "a b", "walk", ".hidden", "ä" * 300, "CON\x00"]
)


@given(names, names)
def test_folders_are_plain_names_that_stay_inside_and_apart(one, other):
    folder = folder_name(one)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder) and len(folder) <= 100
    assert folder == one or (one == other) == (folder == folder_name(other))


def test_records_as_read_from_tables_are_taken_as_they_come(walk, report, tmp_path):
    """Tables hold float32, and frame numbers as int32."""
    whole = walk
    assert whole.keypoints is not None
    poses = {name: getattr(whole.poses, name).astype(np.float32) for name in ("xyz", "confidence", "error_px")}
    seen = {
        name: getattr(whole.keypoints, name).astype(np.float32) for name in ("xy", "confidence", "box", "box_score")
    }
    single = replace(
        whole,
        poses=replace(whole.poses, **poses),
        keypoints=replace(whole.keypoints, **seen),
        frames=whole.frames.astype(np.int32),
    )
    assert set(write_report([single], [], {}, str(tmp_path))) == set(report)
    assert single.mean_error_px == pytest.approx(whole.mean_error_px, rel=1e-5)
