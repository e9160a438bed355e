import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mvpose.archive.trial_folders import all_trials
from mvpose.archive.trial_names import trials
from mvpose.errors import CalibrationError

DIGITS = ["1", "2", "3", "4"]


def grouped(cameras, footage):
    return {trial: list(matching.footage.values()) for trial, matching in trials(cameras, footage).trials.items()}


def test_trials_of_one_folder_are_told_apart_by_what_is_not_the_camera():
    names = ["2019-vid01-camA", "2019-vid01-camB", "2019-vid02-camA", "2019-vid02-camB"]
    assert grouped(["A", "B"], names) == {"2019-vid01": names[:2], "2019-vid02": names[2:]}
    videos = ["cam01", "cam02", "cam03", "cam04"]
    assert grouped(["int_cam1_img", "int_cam2_img"], videos) == {"": videos[:2]}


def test_numbered_trials_of_numbered_cameras_go_by_the_word_cam():
    names = {f"trial{t}": [f"trial{t}-cam{c}" for c in DIGITS] for t in range(1, 7)}
    assert grouped(DIGITS, [n for own in names.values() for n in own]) == names


@pytest.mark.parametrize(
    ("cameras", "footage"),
    [
        (DIGITS, ["P1_1", "P1_2", "P1_3"]),
        ([str(i) for i in range(1, 13)], [f"walk{i}" for i in range(1, 13)]),
        ([f"cam{i:02d}" for i in range(1, 13)], [f"view{i:02d}" for i in range(1, 13)]),
        (["left", "left_top", "right"], ["walk_left", "walk_left_top"]),
        ([f"{p:02d}_{n:02d}" for p in range(21) for n in range(25)], [f"hd_00_{n:02d}" for n in range(20)]),
    ],
)
def test_one_trial_is_one_capture(cameras, footage):
    assert grouped(cameras, footage) == {"": footage}


@pytest.mark.parametrize(
    ("cameras", "footage", "told"),
    [
        (DIGITS, [f"trial{t}-{c}" for t in (1, 2) for c in DIGITS], ["trial-1", "trial1", "`cam`"]),
        (["1", "2", "11", "12"], ["walk11", "walk12", "walk111", "walk112"], ["trial walk,", "trial walk1"]),
        (DIGITS, ["cam1_1200", "cam2_1203"], ["cam1_1200", "cam2_1203", "one trial"]),
        (["cam01", "cam02"], ["cam01", "cam1", "cam02"], ["cam01 and cam1", "two files"]),
        (["A", "B"], ["Walk_camA", "walk_camB"], ["Walk_camA", "walk_camB"]),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_refused_with_both(cameras, footage, told):
    with pytest.raises(CalibrationError) as error:
        trials(cameras, footage)
    assert all(word in str(error.value) for word in told), error.value


def test_a_folder_a_trial_and_a_folder_a_camera_are_told_apart():
    cameras = ["cam01", "cam02"]
    by_trial = ["t1/cam01", "t1/cam02", "t2/cam01", "t2/cam02"]
    assert {t: list(m.footage.values()) for t, m in all_trials(cameras, by_trial).items()} == {
        "t1": by_trial[:2],
        "t2": by_trial[2:],
    }
    by_camera = ["cam01/walk", "cam01/run_cam01", "cam02/walk", "cam02/run_cam02"]
    assert {t: list(m.footage.values()) for t, m in all_trials(cameras, by_camera).items()} == {
        "walk": ["cam01/walk", "cam02/walk"],
        "run": ["cam01/run_cam01", "cam02/run_cam02"],
    }
    assert set(all_trials(["1", "2"], ["t1/1", "t1/2", "t2/1", "t2/2"])) == {"t1", "t2"}
    for open_to_two in (["1/1", "1/2", "2/1", "2/2"], ["1/a", "2/b"]):
        with pytest.raises(CalibrationError, match="may be"):
            all_trials(["1", "2"], open_to_two)


# The law -----------------------------------------------------------------------------------------------------------
# What names cannot tell is not drawn: a trial named after the word `cam` or with a calibration's full name in letters,
# and parts that touch within a number or a word while the cameras seen are not all numbers, or words, of one length.

PART = st.text("12ab", min_size=1, max_size=3)
SEPARATORS = st.sampled_from(["", "_", "-", " ", "__", "."])


@st.composite
def products(draw):
    """(calibration's names, the true trials: footage by camera)."""
    same_length = draw(st.integers(1, 2))
    cores = draw(
        st.one_of(
            st.lists(st.text("12", min_size=1, max_size=2), min_size=2, max_size=5, unique_by=int),
            st.lists(st.text("ab", min_size=1, max_size=2), min_size=2, max_size=5, unique=True),
            st.lists(st.text("12ab", min_size=same_length, max_size=same_length), min_size=2, max_size=5, unique=True),
        )
    )
    assume(len({(c.lstrip("0") or "0") if c.isdecimal() else c for c in cores}) == len(cores))
    kinds = ["equal", "contained", "number"]
    kind = draw(st.sampled_from(kinds if "".join(cores).isdecimal() else kinds[:2]))
    before, after = draw(st.sampled_from([("", ""), ("cam", ""), ("view_", ""), ("c-", ""), ("", "_x")]))
    cameras = [f"{before}{core}{after}" for core in cores]
    if kind == "equal":
        calibration = cameras
    elif kind == "contained":
        calibration = [f"int_{camera}_img" for camera in cameras] if draw(st.booleans()) else cores
    else:
        calibration = [f"lens{core:0>3}" for core in cores]
    separator, camera_first = draw(SEPARATORS), draw(st.booleans())
    names = st.one_of(
        PART, st.tuples(PART, SEPARATORS, PART).map("".join), st.sampled_from(["walk", "run2", "t1", "t2"])
    )
    of_trial = draw(st.lists(names, min_size=1, max_size=4, unique_by=str.casefold))
    is_square = draw(st.booleans())  # trials and cameras have the same names, and nothing is missing
    of_trial = cores if is_square else of_trial
    assume(not any("cam" in t or any(c in t and not c.isdecimal() for c in calibration) for t in of_trial))
    touching = separator == "" and not (after if camera_first else before)
    cells = {}
    for trial in of_trial:
        present = draw(st.lists(st.booleans(), min_size=len(cores), max_size=len(cores)))
        for name, camera, is_there in zip(calibration, cameras, present, strict=True):
            if is_there or is_square:
                parts = (camera, trial) if camera_first else (trial, camera)
                cells.setdefault(trial, {})[name] = separator.join(parts)
    used = [core for core, name in zip(cores, calibration, strict=True) if any(name in own for own in cells.values())]
    assume(not touching or len({(len(core), core.isdecimal(), core.isalpha()) for core in used}) == 1)
    assume(not touching or used[0].isdecimal() or used[0].isalpha())
    footage = [f for own in cells.values() for f in own.values()]
    assume(len(set(footage)) == len(footage))
    assume(any(len(own) > 1 for own in cells.values()))
    return calibration, list(cells.values())


def the_law(product):
    calibration, true = product
    try:
        found = trials(calibration, sorted(f for own in true for f in own.values())).trials.values()
    except CalibrationError:
        return
    # A capture is whole and true; files of others are left out with a note, or as too few views.
    for matching in found:
        assert len(matching.footage) < 2 or matching.footage in true


@given(products())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_grouping_of_a_product_of_trials_and_cameras_is_the_true_one_or_refused(product):
    the_law(product)


@pytest.mark.slow
@given(products())
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_grouping_of_a_thousand_products_is_the_true_one_or_refused(product):
    the_law(product)
