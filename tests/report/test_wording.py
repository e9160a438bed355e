import math

import pytest

from mvpose.errors import FailureReason
from mvpose.report.wording import REASONS, label_and_value, number


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("mean_error_px", 7.8376, ("mean error", "7.8 px")),
        ("leave_one_camera_out_mm", 0.04321, ("leave one camera out", "0.0432 mm")),
        ("excluded_share", 0.07, ("excluded", "7.0 %")),
        ("share", 0.5, ("share", "0.5")),
        ("detect_fps", 59.94, ("detect", "59.9 frames/s")),
        ("clips done", 12, ("clips done", "12")),
        ("model", "rtmpose_s", ("model", "rtmpose_s")),
        ("mean_error_px", math.nan, ("mean error", "–")),
        ("m", 2.0, ("m", "2.0")),
    ],
)
def test_a_figure_is_reported_with_its_unit(name, value, reported):
    assert label_and_value(name, value) == reported


@pytest.mark.parametrize(
    ("value", "reported"), [(0, "0"),
                        (1234567, "1\u2009234\u2009567"), (1234567.8, "1\u2009234\u2009568"), (0.0, "0.0"),
                        (-3.25, "-3.2"), (math.inf, "–")]
)  # fmt: skip
def test_numbers_are_reported_briefly(value, reported):
    assert number(value) == reported


def test_every_reason_of_failure_has_its_sentence():
    assert set(REASONS) == set(FailureReason)
