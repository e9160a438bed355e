import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import CalibrationError
from mvpose.footage.camera_names import Matching, match_cameras
from mvpose.footage.trial_folders import TrialError, all_trials

VIDEOS = ["cam01", "cam02", "cam03", "cam04"]


@pytest.mark.parametrize(
    "pattern",
    ["cam{:02d}", "int_cam{:02d}_img", "int_cam{}_img", "cam_{}", "{}", "Camera {}", "GoPro7_cam{}", "S01_{:03d}_2024"],
)
def test_demo_videos_find_their_cameras_by_exact_name_containment_or_number(pattern):
    cameras = [pattern.format(i) for i in (4, 2, 1, 3)]
    matching = match_cameras(cameras, VIDEOS)
    assert list(matching.footage.items()) == list(zip(cameras, ["cam04", "cam02", "cam01", "cam03"], strict=True))
    assert matching.cameras_alone == matching.footage_alone == ()


@given(order=st.permutations(range(12)), present=st.sets(st.integers(0, 11), min_size=1))
def test_the_order_of_names_changes_nothing_and_what_is_alone_is_said(order, present):
    cameras = [f"int_cam{i}_img" for i in order]
    footage = [f"cam{i:02d}" for i in sorted(present)] + ["ceiling"]
    matching = match_cameras(cameras, footage)
    assert matching.footage == {f"int_cam{i}_img": f"cam{i:02d}" for i in order if i in present}
    assert set(matching.cameras_alone) == {f"int_cam{i}_img" for i in range(12) if i not in present}
    assert matching.footage_alone == ("ceiling",)


def test_panoptic_names_find_their_videos_among_480_others():
    cameras = [f"{p:02d}_{n:02d}" for p in range(21) for n in range(25)]
    videos = [f"hd_00_{n:02d}" for n in range(20)]
    assert match_cameras(cameras, videos).footage == {v[3:]: v for v in videos}


def test_letters_are_whole_words():
    assert match_cameras(["A", "B", "C"], ["2019-TRIAL-vid01-camA", "2019-TRIAL-vid01-camB"]).footage == {
        "A": "2019-TRIAL-vid01-camA",
        "B": "2019-TRIAL-vid01-camB",
    }


def test_cam1_does_not_take_cam10():
    assert match_cameras(["cam1"], ["x_cam10", "x_cam1"]).footage == {"cam1": "x_cam1"}


@pytest.mark.parametrize(
    ("cameras", "footage"),
    [
        (["cam1", "cam2"], ["left_cam1", "right_cam1"]),
        (["left_1", "right_1", "top_2"], ["cam01", "cam02"]),
        (["front", "back"], ["left", "right"]),
    ],
)
def test_what_is_ambiguous_or_fits_nothing_is_an_error_with_both_lists(cameras, footage):
    with pytest.raises(CalibrationError) as error:
        match_cameras(cameras, footage)
    assert all(name in str(error.value) for name in (*cameras, *footage))


def test_more_names_than_any_rig_has_are_refused_before_they_are_compared():
    cameras = [f"cam{i}" for i in range(1024)]
    with pytest.raises(CalibrationError, match="one capture has 1025 videos; the limit is 1024"):
        match_cameras(cameras, [f"cam{i}" for i in range(1025)])
    with pytest.raises(CalibrationError, match="3000 videos in one folder and 1024 cameras are too many"):
        all_trials(cameras, [f"walk{i}-cam0" for i in range(3000)])


@pytest.mark.parametrize("name", ["cam{}", "{:02d}", "2024_cam{}"])
def test_videos_counted_from_another_number_than_cameras_are_refused_with_both_readings(name):
    cameras, footage = ([name.format(i) for i in range(start, start + 4)] for start in (0, 1))
    one, two, three = (name.format(i) for i in (0, 1, 3))
    with pytest.raises(CalibrationError, match=f"either {two} = {two}, .* or {one} = {two}, .*{three} = "):
        match_cameras(cameras, footage)
    for name in ("{}", "walk-cam{}"):  # as a folder of an archive has them
        with pytest.raises(CalibrationError, match="counted from different numbers: either"):
            all_trials(cameras, [name.format(each) for each in footage])
    with pytest.raises(CalibrationError):
        all_trials(cameras, [f"t{trial}_{each}" for trial in (1, 2) for each in footage])
    of_folders = all_trials(cameras, [f"{each}/walk" for each in footage])
    assert all(isinstance(error, TrialError) for error in of_folders.values())


@pytest.mark.parametrize(
    ("cameras", "footage"),
    [
        (["cam0", "cam1", "cam2"], ["cam1", "cam2"]),
        (["cam1", "cam2", "cam3"], ["cam1", "cam2", "cam4"]),
        (["cam1", "cam2", "left"], ["cam1", "cam2", "right"]),
    ],
)
def test_cameras_left_on_one_side_or_without_a_shift_are_only_told(cameras, footage):
    assert match_cameras(cameras, footage).footage["cam1"] == "cam1"
    (found,) = all_trials(cameras, footage).values()
    assert isinstance(found, Matching) and found.footage["cam1"] == "cam1"
