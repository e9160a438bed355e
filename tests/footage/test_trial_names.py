import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mvpose.errors import CalibrationError, TooFewViewsError
from mvpose.footage.calibration import Calibration
from mvpose.footage.camera_names import Matching
from mvpose.footage.capture_files import CaptureFiles
from mvpose.footage.capture_matching import CatalogueConfig, Matched, Unmatched, matched_trials
from mvpose.footage.capture_toml import CaptureSettings, VideoEntry
from mvpose.footage.trial_folders import all_trials
from mvpose.footage.trial_names import trials
from tests.geometry.rigs import ring

DIGITS = ["1", "2", "3", "4"]


def grouped(cameras, footage):
    return {trial: list(matching.footage.values()) for trial, matching in trials(cameras, footage).trials.items()}


def test_trials_of_one_folder_are_told_apart_by_what_is_not_the_camera():
    names = ["2019-vid01-camA", "2019-vid01-camB", "2019-vid02-camA", "2019-vid02-camB"]
    assert grouped(["A", "B"], names) == {"2019-vid01": names[:2], "2019-vid02": names[2:]}
    assert grouped(["lens001", "lens002"], ["1_2", "1_a", "2_a"]) == {"2": ["1_2"], "a": ["1_a", "2_a"]}
    assert grouped(["A", "B"], ["walkA", "walkB", "runB"]) == {"walk": ["walkA", "walkB"], "run": ["runB"]}
    videos = ["cam01", "cam02", "cam03", "cam04"]
    assert grouped(["int_cam1_img", "int_cam2_img"], videos) == {"": videos[:2]}


def test_numbered_trials_of_numbered_cameras_go_by_the_word_cam():
    for last_trial in (3, 6):  # up to 3, trials could be cameras by their numbers
        names = {f"trial{t}": [f"trial{t}-cam{c}" for c in DIGITS] for t in range(1, last_trial + 1)}
        assert grouped(DIGITS, [n for own in names.values() for n in own]) == names
        names = {f"take{t}": [f"take{t}_cam0{c}" for c in DIGITS] for t in range(1, last_trial + 1)}
        assert grouped([f"cam0{c}" for c in DIGITS], [n for own in names.values() for n in own]) == names


def test_a_camera_without_a_calibration_is_no_other_camera_of_another_trial():
    names = {f"trial{t}": [f"trial{t}-cam{c}" for c in range(1, 6)] for t in range(1, 7)}
    found = matched(DIGITS, [name for own in names.values() for name in own])
    assert [[v.uri[9:-4] for v in m.videos.values()] for m in found] == [own[:4] for own in names.values()]
    assert all("trial1-cam5" in " ".join(m.notes) for m in found)


@pytest.mark.parametrize(
    ("cameras", "footage"),
    [
        (DIGITS, ["P1_1", "P1_2", "P1_3"]),
        ([str(i) for i in range(1, 13)], [f"walk{i}" for i in range(1, 13)]),
        ([f"cam{i:02d}" for i in range(1, 13)], [f"view{i:02d}" for i in range(1, 13)]),
        (["left", "left_top", "right"], ["walk_left", "walk_left_top"]),
        (["left", "left_top", "right"], ["walk_left", "walk_left_top", "walk_right"]),
        ([f"{p:02d}_{n:02d}" for p in range(21) for n in range(25)], [f"hd_00_{n:02d}" for n in range(20)]),
        ([f"00_{n:02d}" for n in range(31)], [f"hd_00_{n:02d}" for n in range(31)]),
        (["GX010012", "GX010034", "GX020012"], ["GX010012", "GX010034", "GX020012"]),
    ],
)
def test_one_trial_is_one_capture(cameras, footage):
    assert grouped(cameras, footage) == {"": footage}


@pytest.mark.parametrize(
    ("cameras", "footage", "reported"),
    [
        (DIGITS, [f"trial{t}-{c}" for t in (1, 2) for c in DIGITS], ["trial-1", "trial1", "`cam`"]),
        (
            ["1", "2", "11", "12"],
            ["walk11", "walk12", "walk111", "walk112"],
            ["trial walk,", "camera 1 of trial walk-1"],
        ),
        (DIGITS, ["cam1_1200", "cam2_1203"], ["cam1_1200", "cam2_1203", "one trial"]),
        (["cam01", "cam02"], ["cam01", "cam1", "cam02"], ["cam01 and cam1", "two files"]),
        (["A", "B"], ["Walk_camA", "walk_camB"], ["Walk_camA", "walk_camB"]),
        (["gopro1", "sony2"], ["walk1", "run2"], ["walk1", "run2", "one trial"]),
        (["camab", "camba"], ["acamab", "acamba", "1camab", "1camba"], ["camera camab of trial a", "or not a camera"]),
        (["1", "2"], ["11_1", "11_2", "1_11"], ["1_11 is camera 1 of trial 11", "or not a camera"]),
        (["1", "2"], ["111_1", "111_2", "1_11", "2_11"], ["1_11 is camera 1 of trial 11", "or not a camera"]),
        (["11", "1a", "1b"], ["111", "1a1", "1b1"], ["111 is camera 11 of trial 1", "or not a camera"]),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_refused_with_both(cameras, footage, reported):
    with pytest.raises(CalibrationError) as error:
        trials(cameras, footage)
    assert all(word in str(error.value) for word in reported), error.value


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


def test_halves_of_a_recording_whose_names_differ_by_a_second_are_refused_and_other_trials_are_not():
    files = ["v 1 20240501_101010", "v 2 20240501_101010", "v 3 20240501_101011", "v 4 20240501_101011"]
    walk = [f"v {camera} 20240501_102000" for camera in DIGITS]
    found = all_trials(DIGITS, [*files, *walk])
    assert [m for m in found.values() if isinstance(m, Matching)] == [
        Matching(dict(zip(DIGITS, walk, strict=True)), (), ())
    ]
    refused = [str(error) for error in found.values() if isinstance(error, CalibrationError)]
    assert len(refused) == 2 and all(files[0] in each and files[2] in each for each in refused), refused
    by_camera = all_trials(["cam1", "cam2", "cam3", "cam4"], [f"cam{c}/GX0100{10 + c // 3}" for c in range(1, 5)])
    assert all(isinstance(error, CalibrationError) for error in by_camera.values()) and len(by_camera) == 2
    # A trial that lost a camera has others in common with its neighbours, and folders say what is one trial.
    lossy = [f"t{trial}-cam{camera}" for trial in range(1, 4) for camera in range(1, 4) if trial != camera]
    assert all(isinstance(m, Matching) for m in all_trials(["cam1", "cam2", "cam3"], lossy).values())
    folders = all_trials(DIGITS, ["t1/cam1", "t1/cam2", "t2/cam3", "t2/cam4"])
    assert all(isinstance(m, Matching) for m in folders.values()) and len(folders) == 2


def test_footage_of_no_camera_is_noted_beside_trials_that_are_refused():
    found = matched(["1", "2"], ["1_1", "11_2", "111_1", "111_2", "111_11"])
    (capture,) = [m for m in found if isinstance(m, Matched)]
    assert [note for note in capture.notes if "ignored" in note] == ["footage without a calibration, ignored: 111_11"]


# The law -----------------------------------------------------------------------------------------------------------
# Not drawn, because names say otherwise: a trial with the word `cam` or a camera's full name of several runs in it;
# and cameras of several lengths that touch a trial within a number or a word (`walk1` to `walk12` are 12 cameras).

PART = st.text("12ab", min_size=1, max_size=3)
SEPARATORS = st.sampled_from(["", "_", "-", " ", "__", "."])
TRIALS = st.one_of(
    PART,
    st.tuples(PART, SEPARATORS, PART).map("".join),
    st.sampled_from(["walk", "run2", "t1", "t2", "001", "002", "20240112", "20240113"]),
)
CORES = st.one_of(
    st.lists(st.text("12", min_size=1, max_size=2), min_size=2, max_size=5, unique_by=int),
    st.lists(st.text("ab", min_size=1, max_size=2), min_size=2, max_size=5, unique=True),
    st.integers(1, 2).flatmap(
        lambda length: st.lists(st.text("12ab", min_size=length, max_size=length), min_size=2, max_size=5, unique=True)
    ),
)
AROUND_CAMERA = [("", ""), ("cam", ""), ("Cam_", ""), ("view_", ""), ("c-", ""), ("", "_x")]
AROUND_NAME = [("", ""), ("GX01", ""), ("20240112_", ""), ("S1-", "_raw"), ("", "_2024"), ("", "1")]
RINGS = {views: ring(views) for views in range(2, 6)}
OTHERS = ["overview", "ceiling", "dolly"]


@dataclass(frozen=True)
class Product:
    calibration: list[str]
    trials: dict[str, dict[str, str]]
    """The videos of each camera of the calibration, by trial."""
    others: list[str]
    """Videos in whose names there is no camera, or one without a calibration."""


def kind(text):
    return "digit" if text.isdecimal() else "letter" if text.isalpha() else text


@st.composite
def products(draw):
    cores = draw(CORES)
    are_numbers = "".join(cores).isdecimal()
    before, after = draw(st.sampled_from(AROUND_CAMERA))
    width = draw(st.sampled_from([0, 2, 4])) if are_numbers else 0
    shown = [core.zfill(width) for core in cores]
    calibration = draw(
        st.sampled_from(
            [
                [f"{before}{text}{after}" for text in shown],
                [f"int_{before}{text}{after}_img" for text in shown],
                cores,
                [f"lens{core:0>3}" if are_numbers else core for core in cores],
            ]
        )
    )
    separator, camera_first = draw(SEPARATORS), draw(st.booleans())
    start, end = draw(st.sampled_from(AROUND_NAME))
    is_square = draw(st.integers(0, 3)) == 0  # trials and cameras have the same names, and nothing is missing
    names = shown if is_square else draw(st.lists(TRIALS, min_size=1, max_size=4, unique_by=str.casefold))
    named = [c.lstrip("0") for c in calibration if not c.isdecimal() and not c.isalpha()]
    uncalibrated = draw(st.integers(0, 4)) == 0 and len(cores) > 2
    known = calibration[:-1] if uncalibrated else calibration
    cells: dict[str, dict[str, str]] = {}
    others, lengths, touch = [], set(), False
    for trial in names:
        present = draw(st.lists(st.booleans(), min_size=len(cores), max_size=len(cores)).filter(any))
        for camera, text, is_there in zip(calibration, shown, present, strict=True):
            if not (is_there or is_square):
                continue
            left, right = (
                (before, f"{after}{separator}{trial}") if camera_first else (f"{trial}{separator}{before}", after)
            )
            left, right = f"{start}{left}", f"{right}{end}"
            assume("cam" not in trial and not any(c in f"{left}/{right}" for c in named))
            if camera in known:
                cells.setdefault(trial, {})[camera] = f"{left}{text}{right}"
            else:
                others.append(f"{left}{text}{right}")
            touch |= kind(left[-1:]) == kind(text[0]) or kind(text[-1]) == kind(right[:1])
            lengths.add(len(text))
    assume(not touch or (len(lengths) == 1 and not uncalibrated))
    others += draw(st.lists(st.sampled_from(OTHERS), unique=True, max_size=2)) if draw(st.booleans()) else []
    footage = [*(f for own in cells.values() for f in own.values()), *others]
    assume(len(set(footage)) == len(footage) and any(len(own) > 1 for own in cells.values()))
    return Product(known, cells, others)


def matched(calibration, footage):
    """What a folder of these videos comes to, as the catalogue has it."""
    rig = replace(RINGS[len(calibration)], names=tuple(calibration))
    files = CaptureFiles(
        capture_id="s",
        calibrations=("a/Calib.toml",),
        footage={"videos": {f: VideoEntry(uri=f"a/videos/{f}.mp4") for f in footage}},
        settings=CaptureSettings(),
        stamps={},
    )
    return matched_trials(files, "a", CatalogueConfig(), lambda *_: Calibration(rig, (), ()))


def half_trials(product):
    """Trials that may be halves of one recording: another differs in numbers alone and has none of its cameras."""
    alike = {trial: re.sub(r"\d+", "0", re.sub(r"[\W_]+", "-", trial)) for trial in product.trials}
    return {
        one
        for one, own in product.trials.items()
        for other, others in product.trials.items()
        if alike[one] == alike[other] and not own.keys() & others.keys()
    }


def the_law(product):
    footage = sorted([*(f for own in product.trials.values() for f in own.values()), *product.others])
    found = matched(product.calibration, footage)
    if len(found) == 1 and isinstance(found[0], Unmatched) and isinstance(found[0].error, CalibrationError):
        assert any(f in str(found[0].error) for f in footage), found[0].error
        return
    captures = [m for m in found if isinstance(m, Matched)]
    alone = [m for m in found if isinstance(m, Unmatched)]
    halves = half_trials(product)
    true = [own for trial, own in product.trials.items() if trial not in halves]
    maybe = [sorted(product.trials[trial].values()) for trial in halves]
    videos = [{c: v.uri.removeprefix("a/videos/").removesuffix(".mp4") for c, v in m.videos.items()} for m in captures]
    whole = [own for own in map(sorted, (v.values() for v in videos)) if own not in maybe]
    assert sorted(whole) == sorted(sorted(own.values()) for own in true if len(own) > 1)
    assert all(own in product.trials.values() for own in videos)
    assert len({m.capture_id for m in found}) == len(found) == len(product.trials)
    for own in true:
        if len(own) == 1:
            ((camera, video),) = own.items()
            (problem,) = [m for m in alone if f"{camera} ({video})" in str(m.error)]
            assert isinstance(problem.error, TooFewViewsError)
    for other in product.others:
        assert all(any("ignored" in note and other in note for note in m.notes) for m in captures)


@given(products())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_grouping_of_a_product_of_trials_and_cameras_is_the_true_one_or_refused(product):
    the_law(product)


@pytest.mark.slow
@given(products())
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_grouping_of_a_thousand_products_is_the_true_one_or_refused(product):
    the_law(product)
