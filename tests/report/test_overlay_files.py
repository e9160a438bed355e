from dataclasses import replace

import numpy as np
import pytest

from mvpose.errors import VideoError
from mvpose.footage.video.frames import probe, read_frames
from mvpose.footage.video.video_writer import write_video
from mvpose.records import BY_FRAME
from mvpose.report.figures import LEFT, REJECTED, RIGHT
from mvpose.report.overlay import HEADER_ROWS
from mvpose.report.overlay_files import contact_sheet, film_poster, overlay_frames, sheet_rows, write_overlay
from mvpose.report.subject import CaptureReport
from tests.report.walkers import capture_report, empty, without_joint

NUM_FRAMES, FIRST_FRAME = 12, 3


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> CaptureReport:
    """Footage whose frame k has the grey level 40 + 10 k; frame 0 of the capture is frame 3 of the videos."""
    folder = tmp_path_factory.mktemp("footage")
    uris = tuple(str(folder / f"{name}.mp4") for name in "abcd")
    for uri in uris:
        levels = range(40, 40 + 10 * (NUM_FRAMES + FIRST_FRAME), 10)
        write_video(uri, (np.full((240, 320, 3), level, dtype=np.uint8) for level in levels), 30.0)
    return capture_report(NUM_FRAMES, noise_px=2.0, uris=uris, first_frame=FIRST_FRAME)


def _level(image: np.ndarray) -> float:
    """Grey level of the tiles: most of the image."""
    return float(np.median(image[60:].max(axis=-1)))


def test_the_film_has_the_captures_frames_speed_and_images(filmed, tmp_path):
    uri = str(tmp_path / "overlay.mp4")
    assert write_overlay(filmed, uri, max_frames=1000) == NUM_FRAMES
    video = probe(uri, "overlay")
    assert (video.num_frames, video.fps) == (NUM_FRAMES, 30.0)
    assert video.size[0] <= 1920 and video.size[1] <= 1080
    images = np.concatenate(list(read_frames(video, 0, NUM_FRAMES)))
    for frame, image in enumerate(images):
        assert _level(image) == pytest.approx(40 + 10 * (frame + FIRST_FRAME), abs=4)


def test_a_long_film_is_cut_and_a_gap_is_shown_bare(filmed, tmp_path):
    kept = np.array([0, 1, 2, 6, 7, 8])
    poses, keypoints = filmed.poses, filmed.keypoints
    gap = replace(
        filmed,
        frames=kept,
        poses=replace(poses, **{name: getattr(poses, name)[kept] for name in BY_FRAME}),
        keypoints=replace(
            keypoints, **{name: getattr(keypoints, name)[:, kept] for name in ("xy", "confidence", "box", "box_score")}
        ),
    )
    uri = str(tmp_path / "overlay.mp4")
    assert write_overlay(gap, uri, max_frames=1000) == 9
    assert write_overlay(gap, uri, max_frames=5) == 5
    assert probe(uri, "overlay").num_frames == 5
    images = list(overlay_frames(gap, 0, 9))
    colourful = [int((np.ptp(p[60:].astype(int), axis=-1) > 60).sum()) for p in images]
    assert all((colourful[frame] > 100) == (frame in kept) for frame in range(9))


def test_the_sheet_ends_with_the_worst_frame(filmed):
    error = filmed.poses.error_px.copy()
    error[7] += 50.0
    bad = replace(filmed, poses=replace(filmed.poses, error_px=error))
    rows = sheet_rows(bad, 4)
    assert rows[-1] == 7 and len(rows) == len(set(rows)) and 3 <= len(rows) <= 4
    assert sheet_rows(empty(filmed), 4) == []


def test_the_sheet_stacks_its_moments_and_shows_each_in_its_own_frame(filmed):
    rows = sheet_rows(filmed, 3)
    sheet = contact_sheet(filmed, rows)
    assert sheet.shape[0] % len(rows) == 0 and 1000 <= sheet.shape[1] <= 1920
    for row, moment in zip(rows, np.split(sheet, len(rows)), strict=True):
        assert _level(moment) == pytest.approx(40 + 10 * (row + FIRST_FRAME), abs=4)


def test_the_sheet_is_cut_to_the_people(filmed):
    """The person spans about a third of these images: cut out and enlarged, more of each image is drawn on."""
    share = [
        (np.ptp(image[60:].astype(int), axis=-1) > 60).mean()
        for image in (contact_sheet(filmed, [4]), film_poster(filmed, 4))
    ]
    assert share[0] > 1.5 * share[1]


def test_the_sheet_of_one_camera_has_room_for_title_and_legend(filmed):
    """Fails if crops are as narrow as one person: the title was cut and the legend left out."""
    first = {name: getattr(filmed.keypoints, name)[:1] for name in ("xy", "confidence", "box", "box_score")}
    alone = replace(
        filmed,
        capture=replace(
            filmed.capture,
            rig=filmed.capture.rig.select(filmed.capture.rig.names[:1]),
            videos=filmed.capture.videos[:1],
        ),
        keypoints=replace(filmed.keypoints, **first),
        poses=replace(filmed.poses, views_used=filmed.poses.views_used[..., :1]),
    )
    header = contact_sheet(alone, [4])[:HEADER_ROWS]
    tints = {tuple(pixel) for pixel in header.reshape(-1, 3).tolist()}
    assert {LEFT, RIGHT, REJECTED} <= tints


def test_a_camera_that_sees_nobody_does_not_stop_the_sheet(filmed):
    away = filmed.capture.rig
    centre = away.centre.clone()
    centre[1] += 5000.0
    turned = replace(filmed, capture=replace(filmed.capture, rig=replace(away, centre=centre)))
    sheet = contact_sheet(without_joint(turned, "left_knee"), [4])
    assert sheet.shape == contact_sheet(without_joint(filmed, "left_knee"), [4]).shape


def test_footage_that_is_gone_is_a_video_error(tmp_path):
    gone = capture_report(uris=tuple(str(tmp_path / f"{name}.mp4") for name in "abcd"))
    with pytest.raises(VideoError, match=r"a\.mp4"):
        write_overlay(gone, str(tmp_path / "out.mp4"), 100)
