from dataclasses import replace

import numpy as np
import pytest

from mvpose.report.figures import FOOTAGE, REJECTED, UNRELATED, sides
from mvpose.report.mosaic import Mosaic, Region, lay_out
from mvpose.report.overlay import BACKGROUND, marks_of_row, overlay_frame
from mvpose.report.reprojection import reproject
from mvpose.report.subject import CaptureReport
from tests.report.walkers import capture_report, empty, four_cameras, without_joint

GREY = 110
WIDE = four_cameras(960, 720)


def _drawn(subject: CaptureReport, row: int = 4, limit: tuple[int, int] = (4000, 4000)) -> tuple[np.ndarray, Mosaic]:
    sizes = [video.size for video in subject.capture.videos]
    mosaic = lay_out([Region(0, 0, w, h) for w, h in sizes], limit, header=40)
    images = [np.full((h, w, 3), GREY, dtype=np.uint8) for w, h in sizes]
    marks = marks_of_row(reproject(subject, slice(row, row + 1)), 0, subject.poses)
    return overlay_frame(images, subject.capture.rig.names, mosaic, marks, "a title"), mosaic


def _colour_at(canvas: np.ndarray, mosaic: Mosaic, view: int, pixel: np.ndarray) -> np.ndarray:
    x, y = np.rint(mosaic.to_tile(view, pixel)).astype(int)
    return mosaic.tiles[view].cut(canvas)[y, x].astype(int)


@pytest.mark.parametrize("limit", [(4000, 4000), (1920, 1080)], ids=["full size", "shrunk"])
def test_bones_have_their_sides_colour_where_the_rig_projects_them(limit):
    subject = replace(capture_report(rig=WIDE), keypoints=None)
    canvas, mosaic = _drawn(subject, limit=limit)
    skeleton = subject.poses.skeleton
    projected = reproject(subject, slice(4, 5)).projected[:, 0, 0]
    # Limbs lie apart from each other in these views; a bone of the trunk may be crossed by one.
    for a, b in [skeleton.indices("left_elbow", "left_wrist"), skeleton.indices("right_hip", "right_knee")]:
        for view in range(4):
            found = _colour_at(canvas, mosaic, view, (projected[view, a] + projected[view, b]) / 2)
            np.testing.assert_allclose(found, FOOTAGE[sides(skeleton)[b]], atol=40)


def test_nothing_is_drawn_for_nobody():
    canvas, mosaic = _drawn(replace(empty(capture_report(rig=WIDE)), keypoints=None))
    for tile in mosaic.tiles:
        below_the_label = tile.cut(canvas)[60:]
        assert (below_the_label == GREY).all()


def test_a_missing_joint_takes_its_bones_away_and_nothing_else():
    subject = replace(capture_report(rig=WIDE), keypoints=None)
    whole, mosaic = _drawn(subject)
    lacking, _ = _drawn(without_joint(subject, "left_wrist"))
    projected = reproject(subject, slice(4, 5)).projected[:, 0, 0]
    elbow, wrist, knee = subject.poses.skeleton.indices("left_elbow", "left_wrist", "right_knee")
    for view in range(4):
        for pixel in (projected[view, wrist], (projected[view, elbow] + projected[view, wrist]) / 2):
            assert (_colour_at(lacking, mosaic, view, pixel) == GREY).all()
            assert (_colour_at(whole, mosaic, view, pixel) != GREY).any()
        same = _colour_at(lacking, mosaic, view, projected[view, knee])
        np.testing.assert_array_equal(same, _colour_at(whole, mosaic, view, projected[view, knee]))


def test_a_detection_that_was_not_used_is_marked_as_rejected():
    subject = capture_report(rig=WIDE)
    assert subject.keypoints is not None
    xy, used = subject.keypoints.xy.copy(), subject.poses.views_used.copy()
    j = subject.poses.skeleton.index("left_wrist")
    xy[2, :, :, j] += 60.0
    used[:, :, j, 2] = False
    changed = replace(
        subject, keypoints=replace(subject.keypoints, xy=xy), poses=replace(subject.poses, views_used=used)
    )
    canvas, mosaic = _drawn(changed)
    np.testing.assert_allclose(_colour_at(canvas, mosaic, 2, xy[2, 4, 0, j]), REJECTED, atol=60)
    before, _ = _drawn(subject)
    assert (np.abs(mosaic.tiles[0].cut(before).astype(int) - REJECTED).sum(axis=-1) > 60).all()


def test_people_who_were_not_reconstructed_are_marked_in_grey():
    subject = capture_report(rig=WIDE)
    canvas, mosaic = _drawn(empty(subject))
    wrist = reproject(subject, slice(4, 5)).projected[0, 0, 0, 3]
    tile = mosaic.tiles[0].cut(canvas).astype(int)
    x, y = np.rint(mosaic.to_tile(0, wrist)).astype(int)
    near = tile[y - 5 : y + 6, x - 5 : x + 6].reshape(-1, 3)
    assert np.abs(near - UNRELATED).sum(axis=1).min() < 60


def test_each_camera_tells_its_own_error():
    subject = capture_report(noise_px=3.0)
    r = reproject(subject, slice(None))
    reported = [m.error_px for m in marks_of_row(r, 5, subject.poses)]
    np.testing.assert_allclose(reported, np.linalg.norm(r.projected - r.detected, axis=-1)[:, 5].mean(axis=(1, 2)))
    assert all(np.isnan(m.error_px) for m in marks_of_row(reproject(empty(subject), slice(None)), 5, subject.poses))


def test_a_frame_without_result_shows_the_bare_images():
    mosaic = lay_out([Region(0, 0, 320, 240)] * 2, (1920, 1080), header=40)
    images = [np.full((240, 320, 3), tint, dtype=np.uint8) for tint in (60, 200)]
    canvas = overlay_frame(images, ("a", "b"), mosaic, None, "no result")
    for tile, tint in zip(mosaic.tiles, (60, 200), strict=True):
        assert (tile.cut(canvas)[60:] == tint).all()
    assert (canvas[:40] != BACKGROUND).any()


def test_the_images_given_are_left_as_they_were():
    subject = capture_report()
    images = [np.full((240, 320, 3), GREY, dtype=np.uint8) for _ in range(4)]
    mosaic = lay_out([Region(0, 0, 320, 240)] * 4, (1920, 1080))
    overlay_frame(images, "abcd", mosaic, marks_of_row(reproject(subject, slice(0, 1)), 0, subject.poses), "")
    assert all((image == GREY).all() for image in images)
