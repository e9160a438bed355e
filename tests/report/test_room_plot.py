import numpy as np
import pytest
import torch

from mvpose.report.room_plot import frusta, room_plot, widest_azimuth
from tests.report.walkers import capture_report, empty, four_cameras


def test_a_frustum_starts_at_its_camera_and_ends_at_the_corners_of_its_image():
    rig = four_cameras()
    corners = frusta(rig, 0.5)
    np.testing.assert_allclose(corners[:, 0], rig.centres_world.numpy(), atol=1e-12)
    undistorted = [0, 2, 3]
    pixels = rig.project(torch.from_numpy(corners[:, 1:].reshape(-1, 3)))[0].unflatten(1, (4, 4)).numpy()
    expected = [[-0.5, -0.5], [319.5, -0.5], [319.5, 239.5], [-0.5, 239.5]]
    for view in undistorted:
        np.testing.assert_allclose(pixels[view, view], expected, atol=1e-9)
    ahead = rig.camera_from_world.apply(torch.from_numpy(corners))[..., 2].numpy()
    np.testing.assert_allclose(ahead[:, 1:], 0.5)


@pytest.mark.parametrize("people", [1, 3])
def test_all_axes_have_one_scale_and_z_points_up(people):
    for axes in room_plot(capture_report(people=people)).axes:
        extents = np.ptp([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()], axis=1)
        ratio = extents / axes._box_aspect
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
        assert axes.get_zlim()[1] > axes.get_zlim()[0] and 0 < axes.elev < 90


def test_a_joint_far_off_does_not_shrink_the_room():
    subject = capture_report(num_frames=60)
    before = room_plot(subject).axes[0].get_xlim()
    subject.poses.xyz[30, 0, 3] = 500.0
    np.testing.assert_allclose(room_plot(subject).axes[0].get_xlim(), before, atol=0.5)


def test_the_view_is_across_the_widest_spread():
    # The walker's shoulders and arms lie along x: the eye stands nearly on the y axis.
    assert abs(np.cos(np.radians(widest_azimuth(capture_report())))) < 0.4


def test_a_room_without_people_shows_its_cameras():
    figure = room_plot(empty(capture_report()))
    assert len(figure.axes) == 1
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["north", "east", "south", "west"]
