from dataclasses import replace

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mvpose.report.figures import to_png
from mvpose.report.quality_plots import error_map, error_over_time, limb_lengths
from mvpose.report.reprojection import camera_errors
from mvpose.report.room_plot import room_plot
from mvpose.report.subject import CaptureReport
from mvpose.scenes import ring31
from tests.report.walkers import capture_report, empty, without_joint


def _plots(subject: CaptureReport) -> list[Figure]:
    errors = camera_errors(subject)
    return [error_map(subject, errors), error_over_time(subject, errors), limb_lengths(subject), room_plot(subject)]


def _hostile() -> CaptureReport:
    subject = capture_report(capture_id="$\\frac{", noise_px=1.0)
    rig = replace(subject.capture.rig, names=("$x^{", "_{}$", "\\alpha", "a\nb" * 40))
    return replace(subject, capture=replace(subject.capture, rig=rig))


SUBJECTS = {
    "many people": lambda: capture_report(6, people=5, noise_px=1.0),
    "one frame": lambda: capture_report(num_frames=1),
    "nobody": lambda: empty(capture_report()),
    "no keypoints": lambda: replace(capture_report(), keypoints=None),
    "names that look like mathematics": _hostile,
    "31 cameras, none of which sees a wrist": lambda: without_joint(
        capture_report(3, rig=ring31(num_frames=1).rig, uris=("v.mp4",) * 31), "left_wrist"
    ),
}


@pytest.mark.parametrize("make", SUBJECTS.values(), ids=SUBJECTS.keys())
@pytest.mark.filterwarnings("error")
def test_every_capture_can_be_plotted_1600_pixels_wide(make):
    for figure in _plots(make()):
        image = cv2.imdecode(np.frombuffer(to_png(figure), dtype=np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[1] == 1600 and np.median(image) >= 220 and image.min() < 80


def test_the_maps_show_the_mean_error_and_the_share_of_frames():
    subject = without_joint(capture_report(num_frames=10, noise_px=2.0), "left_elbow", slice(0, 4))
    errors = camera_errors(subject)
    figure = error_map(subject, errors)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images][:2]
    joints = subject.poses.skeleton.joints
    elbow, knee = joints.index("left_elbow"), joints.index("left_knee")
    np.testing.assert_allclose(shown[0][:, knee], errors[:, :, 0, knee].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(shown[0][:, elbow], errors[:, 4:, 0, elbow].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(shown[1][:, [elbow, knee]], [[60.0, 100.0]] * 4)


def test_lines_break_where_frames_have_no_result():
    subject = replace(capture_report(num_frames=4, noise_px=1.0), frames=np.array([10, 11, 14, 15]))
    lines = error_over_time(subject, camera_errors(subject)).axes[0].lines
    for line in lines:
        np.testing.assert_allclose(line.get_xdata(), np.arange(10, 16) / 30.0)
        assert np.isnan(line.get_ydata()).tolist() == [False, False, True, True, False, False]


def test_axes_name_their_units():
    subject = capture_report(noise_px=1.0)
    labels = [
        axes.get_xlabel() + axes.get_ylabel() + axes.get_title("left") for f in _plots(subject) for axes in f.axes
    ]
    text = " ".join(labels)
    for unit in ("error, px", "time, s", "length, mm", "x, m", "%"):
        assert unit in text


def test_limb_lengths_are_reported_in_millimetres():
    figure = limb_lengths(capture_report())
    knee = np.linalg.norm([0.02, 0.05, 0.45]) * 1000
    values = [line.get_ydata()[0] for line in figure.axes[0].lines]
    assert any(value == pytest.approx(knee) for value in values)
