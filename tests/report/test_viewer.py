import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.report.viewer import script_json, viewer_data
from tests.report.walkers import capture_report, empty, without_joint

texts = st.text() | st.sampled_from(["</script>", "<!--<script>", "]]>", "&lt;", "\u2028"])


@given(st.recursive(texts | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_in_a_script_cannot_end_it_and_comes_back_whole(value):
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_joints_are_whole_millimetres_and_missing_ones_are_null():
    subject = without_joint(capture_report(num_frames=5), "left_wrist", slice(2, 3))
    data = json.loads(script_json(viewer_data(subject, 600)))
    wrist = subject.poses.skeleton.index("left_wrist")
    assert data["xyz"][2][0][wrist] is None
    assert data["xyz"][3][0][wrist] == np.rint(1000 * subject.poses.xyz[3, 0, wrist]).astype(int).tolist()
    assert data["tracks"] == [0] and data["fps"] == 30.0


@pytest.mark.parametrize("num_frames", [1, 600, 601, 1900])
def test_long_captures_are_thinned_evenly(num_frames):
    frames = viewer_data(capture_report(num_frames=num_frames), 600)["frames"]
    assert 0 < len(frames) <= 600 and frames[0] == 0
    assert len(set(np.diff(frames).tolist())) <= 1


def test_it_starts_where_somebody_is():
    subject = capture_report(num_frames=20)
    for joint in subject.poses.skeleton.joints:
        subject = without_joint(subject, joint, slice(0, 7))
    data = viewer_data(subject, 10)
    assert data["xyz"][data["start"]][0][0] is not None
    assert data["xyz"][data["start"] - 1][0][0] is None


def test_cameras_keep_names_and_places():
    subject = capture_report()
    cameras = viewer_data(subject, 600)["cameras"]
    assert [camera["name"] for camera in cameras] == ["north", "east", "south", "west"]
    centres = np.array([camera["corners"][0] for camera in cameras]) / 1000
    np.testing.assert_allclose(centres, subject.capture.rig.centres_world.numpy(), atol=6e-4)


def test_nobody_is_shown_as_nobody():
    data = viewer_data(empty(replace(capture_report(), keypoints=None)), 600)
    script_json(data)
    assert all(joint is None for frame in data["xyz"] for person in frame for joint in person)
