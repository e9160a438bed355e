"""Layouts that people have, found through `find_captures`."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from mvpose.errors import ConfigError, FailureReason
from mvpose.footage.catalogue import CatalogueConfig, find_captures, read_catalogue, write_catalogue
from mvpose.footage.image_fit import ImageFit
from tests.footage.archives import (
    CAMERAS,
    SIZE,
    found,
    only_problem,
    pose2sim,
    small_ring,
    write,
    write_images,
    write_video,
)
from tests.footage.calibration.rig_files import panoptic_text, toml_text


def files(archive, **config):
    catalogue = found(archive, **config)
    assert not catalogue.problems, catalogue.problems
    return {c.capture_id: [os.path.relpath(v.uri, archive) for v in c.videos] for c in catalogue.captures}


@pytest.mark.parametrize("other", ["cam01.mts", "CAM01.MP4", "cam01.avi"])
def test_two_files_of_one_camera_are_refused_by_name_and_settled_by_a_capture_toml(other, tmp_path):
    pose2sim(str(tmp_path / "w"))
    shutil.copy(tmp_path / "w" / "videos" / "cam02.mp4", tmp_path / "w" / "videos" / other)
    problem = only_problem(tmp_path)
    assert problem.reason == FailureReason.CONFIG and "cam01.mp4" in problem.detail and other in problem.detail
    write(str(tmp_path / "w" / "capture.toml"), "[videos]\n" + "".join(f'{c} = "videos/{c}.mp4"\n' for c in CAMERAS))
    assert files(tmp_path)["w"] == [f"w/videos/{c}.mp4" for c in CAMERAS]


def test_a_calibration_beside_a_folder_of_calibrations_is_refused_with_both_places(tmp_path):
    pose2sim(str(tmp_path / "w"))
    moved = small_ring(CAMERAS)
    moved[0].translation = moved[0].translation + 0.01
    write(str(tmp_path / "w" / "Calib.toml"), toml_text(moved))
    problem = only_problem(tmp_path)
    assert "w/Calib.toml" in problem.detail and "w/calibration/Calib.toml" in problem.detail
    write(str(tmp_path / "w" / "capture.toml"), 'calibration = "Calib.toml"')
    assert len(found(tmp_path).captures) == 1


def test_one_calibration_stored_twice_is_one(tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    shutil.copy(f"{folder}/calibration/Calib.toml", f"{folder}/Calib_copy.toml")
    catalogue = found(tmp_path)
    assert len(catalogue.captures) == 1 and any("hold the same calibration" in note for note in catalogue.notes)


@pytest.mark.parametrize("second", ["videos-raw", "images"])
def test_two_folders_of_footage_of_the_same_cameras_are_asked_about(second, tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    if second == "images":
        for camera in CAMERAS:
            write_images(f"{folder}/images/{camera}")
    else:
        shutil.copytree(f"{folder}/videos", f"{folder}/{second}")
    problem = only_problem(tmp_path)
    assert "videos" in problem.detail and second in problem.detail and "footage =" in problem.detail
    assert files(tmp_path, footage="videos")["w"][0] == "w/videos/cam01.mp4"
    write(f"{folder}/capture.toml", f'footage = "{second}"\nfps = 30.0')
    assert files(tmp_path)["w"][0].startswith(f"w/{second}/cam01")


def test_cameras_1_to_3_of_several_trials_in_one_folder_are_told_apart(tmp_path):
    write(str(tmp_path / "s" / "calibration" / "calibration.toml"), toml_text(small_ring(["1", "2", "3"])))
    names = [[f"trial{t}-cam{c}.avi" for c in (1, 2, 3)] for t in (1, 2, 3, 4)]
    for own in names:
        for name in own:
            write_video(str(tmp_path / "s" / "videos-raw" / name))
    assert files(tmp_path) == {
        f"s/trial{t + 1}": [f"s/videos-raw/{name}" for name in own] for t, own in enumerate(names)
    }


def test_hidden_files_and_what_systems_leave_are_no_inputs(tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    plain = files(tmp_path)
    for name in ("calibration/._Calib.toml", "._Calib.toml", "videos/._cam01.mp4", "videos/.DS_Store", "Thumbs.db"):
        write(f"{folder}/{name}", b"\0\5\x16\7\0\2\0\0Mac OS X")
    pose2sim(str(tmp_path / "__MACOSX" / "w"))
    assert files(tmp_path) == plain
    for camera in CAMERAS[:2]:
        write_images(str(tmp_path / "p" / "images" / camera))
    shutil.copytree(f"{folder}/calibration", tmp_path / "p" / "calibration")
    before = {c.capture_id: [v.stamp for v in c.videos] for c in found(tmp_path, fps=30.0).captures}
    write(str(tmp_path / "p" / "images" / "cam01" / "._cam01_00000000.png"), b"Mac OS X")
    write(str(tmp_path / "p" / "images" / "__MACOSX" / "x.png"), b"")
    assert {c.capture_id: [v.stamp for v in c.videos] for c in found(tmp_path, fps=30.0).captures} == before


def test_a_byte_order_mark_is_no_error(tmp_path):
    mark = b"\xef\xbb\xbf"
    pose2sim(str(tmp_path / "w"))
    write(str(tmp_path / "w" / "calibration" / "Calib.toml"), mark + toml_text(small_ring(CAMERAS)).encode())
    write(str(tmp_path / "w" / "capture.toml"), mark + b'id = "walk"')
    write(str(tmp_path / "p" / "calibration_p.json"), mark + panoptic_text(small_ring(["00_00", "00_01"])).encode())
    for camera in ("00_00", "00_01"):
        write_video(str(tmp_path / "p" / "hdVideos" / f"hd_{camera}.mp4"))
    assert set(files(tmp_path)) == {"walk", "p"}


def test_names_that_are_not_utf_8_cost_their_own_capture_alone(tmp_path):
    pose2sim(str(tmp_path / "good"))
    pose2sim(str(tmp_path / "bad"))
    videos = os.fsencode(tmp_path / "bad" / "videos")
    os.rename(videos + b"/cam01.mp4", videos + b"/cam01_\xfc.mp4")
    shutil.copytree(os.fsencode(tmp_path / "good"), os.fsencode(tmp_path) + b"/take_\xfc")
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["good"]
    assert [p.capture_id.partition("_")[0] for p in catalogue.problems] == ["bad", "take"]
    assert all("not UTF-8" in p.detail and p.detail.isprintable() for p in catalogue.problems)
    write_catalogue(str(tmp_path / "c.parquet"), catalogue)
    assert read_catalogue(str(tmp_path / "c.parquet")).problems == catalogue.problems


def test_links_that_lead_nowhere_or_back_are_said_and_the_others_run(tmp_path):
    pose2sim(str(tmp_path / "good"))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "videos").symlink_to("videos")
    for here, there in (("a", "c"), ("c", "a")):
        (tmp_path / here).mkdir(exist_ok=True)
        (tmp_path / here / "to").symlink_to(tmp_path / there, target_is_directory=True)
    pose2sim(str(tmp_path / "a" / "walk"))
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["a/walk", "c/to/walk", "good"]
    assert [p.capture_id for p in catalogue.problems] == ["lost"]
    assert any(note.startswith("gone was skipped: it is a link that leads nowhere") for note in catalogue.notes)
    assert any(
        note.startswith("a/to/to was skipped: it is a link to a folder that contains it") for note in catalogue.notes
    )


def test_a_caliscope_workspace_is_read_with_its_copy_and_without_cameras_that_have_no_pose(tmp_path):
    cameras = small_ring(["0", "1", "2"])
    own = toml_text(cameras, nested=True)
    write(str(tmp_path / "camera_array_aniposelib.toml"), toml_text(small_ring(["cam_0", "cam_1"])))
    start = own.index("[cameras.2]")
    null = (
        own[start:].replace("rotation = ", 'rotation = "null" # ').replace("translation = ", 'translation = "null" # ')
    )
    write(str(tmp_path / "camera_array.toml"), own[:start] + null)
    for camera in range(3):
        write_video(str(tmp_path / "recordings" / "walk" / f"cam_{camera}.mp4"))
    catalogue = found(tmp_path)
    (capture,) = catalogue.captures
    assert capture.rig.names == ("0", "1") and capture.capture_id.endswith("/walk")
    assert any("camera 2 has no pose" in note for note in catalogue.notes)


def opencap(session: str, trials: dict[str, list[str]], cameras=("Cam0", "Cam1")) -> None:
    for camera in small_ring(list(cameras)):
        folder = f"{session}/Videos/{camera.name}"
        content = {
            "intrinsicMat": camera.matrix,
            "distortion": np.array([camera.distortion]),
            "imageSize": np.array([[SIZE[1]], [SIZE[0]]]),
            "rotation": camera.rotation,
            "translation": camera.translation[:, None] * 1000,
        }
        write(f"{folder}/cameraIntrinsicsExtrinsics.pickle", pickle.dumps(content))
        for trial, names in trials.items():
            for name in names:
                write_video(f"{folder}/InputMedia/{trial}/{name}")


def test_an_opencap_session_has_a_capture_for_each_trial_of_synchronised_videos(tmp_path):
    opencap(f"{tmp_path}/s", {"walk": ["walk.mov", "walk_sync.mp4"], "squat": ["squat.mov"]})
    assert files(tmp_path) == {
        "s/squat": [f"s/Videos/Cam{i}/InputMedia/squat/squat.mov" for i in (0, 1)],
        "s/walk": [f"s/Videos/Cam{i}/InputMedia/walk/walk_sync.mp4" for i in (0, 1)],
    }
    assert any("squat" in note and "are not synchronised" in note for note in found(tmp_path).notes)
    os.remove(tmp_path / "s/Videos/Cam1/InputMedia/walk/walk_sync.mp4")
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["s/squat"] and len(catalogue.problems) == 2


def test_a_folder_a_camera_has_a_capture_for_each_trial(tmp_path):
    write(str(tmp_path / "s" / "calibration" / "Calib.toml"), toml_text(small_ring(CAMERAS)))
    for camera in CAMERAS:
        for trial in ("walk", "run"):
            write_video(str(tmp_path / "s" / "videos" / camera / f"{trial}.mp4"))
    assert files(tmp_path) == {f"s/{t}": [f"s/videos/{c}/{t}.mp4" for c in CAMERAS] for t in ("run", "walk")}


def test_panoptic_images_as_mmpose_keeps_them(tmp_path):
    cameras = ["00_03", "00_06", "00_12"]
    write(str(tmp_path / "demo" / "camera_parameters.json"), panoptic_text(small_ring(cameras)))
    for camera in cameras:
        write_images(str(tmp_path / "demo" / camera))
    assert files(tmp_path, fps=29.97) == {"demo": [f"demo/{camera}" for camera in cameras]}


def test_footage_marked_as_upside_down_is_asked_about_and_both_answers_hold(tmp_path):
    pose2sim(str(tmp_path / "w"))
    write_video(str(tmp_path / "w" / "videos" / "cam02.mp4"), rotation=180)
    problem = only_problem(tmp_path)
    assert problem.reason == FailureReason.CALIBRATION
    assert all(word in problem.detail for word in ("cam02", "180", "turn_0", "turn_180"))
    (as_shown,) = found(tmp_path, image_fit=ImageFit.TURN_0).captures
    assert as_shown.rig.centre[1].tolist() == [63.0, 48.0]
    write(
        str(tmp_path / "w" / "capture.toml"),
        "[videos]\n" + "".join(f'{c} = "videos/{c}.mp4"\n' for c in ("cam01", "cam03"))
        + 'cam02 = { uri = "videos/cam02.mp4", image_fit = "turn_180" }\n',
    )  # fmt: skip
    (stored,) = found(tmp_path).captures
    assert stored.rig.centre[1].tolist() == [127 - 63.0, 95 - 48.0] and stored.rig.centre[0].tolist() == [63.0, 48.0]
    write_catalogue(str(tmp_path / "c.parquet"), found(tmp_path))
    known = {v.uri: v for v in read_catalogue(str(tmp_path / "c.parquet")).captures[0].videos}
    os.remove(tmp_path / "w" / "capture.toml")
    again = find_captures(str(tmp_path), CatalogueConfig(), known)
    assert len(again.problems) == 1 and "turn_180" in again.problems[0].detail


def test_a_json_file_that_is_no_calibration_does_not_hide_the_one_that_is_named(tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    write(f"{folder}/calibration/board.json", json.dumps({"squares": 5}))
    assert "board.json" in only_problem(tmp_path).detail
    assert len(found(tmp_path, calibration="Calib.toml").captures) == 1


def test_footage_outside_every_capture_is_noted_with_its_place(tmp_path):
    pose2sim(str(tmp_path / "good"))
    for folder in ("flat", "t2/Video"):
        write_video(str(tmp_path / folder / "cam01.mp4"))
        write_video(str(tmp_path / folder / "cam02.MOV"))
    write(str(tmp_path / "empty" / "videos" / "notes.txt"), "x")
    write(str(tmp_path / "loose" / "images" / "cam01_0001.png"), "x")
    write(str(tmp_path / "a/b/c/d/e/f/g/h/i/readme"), "x")
    notes = found(tmp_path).notes
    for place in ("flat: 2 files (cam01.mp4, cam02.MOV) are in no capture", "t2/Video: 2 files (cam01.mp4"):
        assert sum(note.startswith(place) and "a folder `videos`" in note for note in notes) == 1, notes
    assert "empty: videos: it has no videos, and no folders with images" in notes
    assert "loose: images: cam01_0001.png is in no folder of a camera, and not read" in notes
    assert "a/b/c/d/e/f/g: folders below it were not searched, only 8 levels are" in notes
    assert len([note for note in notes if not note.startswith("good: ")]) == 5, notes


def test_captures_in_the_folder_of_another_are_captures_and_what_tools_leave_there_is_no_footage(tmp_path):
    """Fails if the search ends at a capture, as it did: the captures below were left out without a word."""
    pose2sim(str(tmp_path / "w"))
    pose2sim(str(tmp_path / "w" / "day" / "inner"), cameras=["cam01", "cam02"])
    for camera in ("cam01", "cam02"):  # by the calibration of the capture above
        write_video(str(tmp_path / "w" / "second" / "videos" / f"{camera}.mp4"))
        write_video(str(tmp_path / "w" / "pose" / f"{camera}_pose.mp4"))
    write_video(str(tmp_path / "w" / "calibration" / "intrinsics" / "videos" / "cam01.mp4"))
    catalogue = found(tmp_path)
    assert {c.capture_id: len(c.videos) for c in catalogue.captures} == {"w": 3, "w/day/inner": 2, "w/second": 2}
    assert not catalogue.problems
    assert not any("pose" in note or "taken for" in note for note in catalogue.notes)


def test_folders_that_hold_the_videos_of_a_capture_toml_are_no_captures_of_their_own(tmp_path):
    pose2sim(str(tmp_path / "w"), cameras=["cam01", "cam02"])
    for camera in ("cam01", "cam02"):
        (tmp_path / "w" / camera).mkdir()
        write_video(str(tmp_path / "w" / camera / "videos" / "a.mp4"))
    lines = [f'{camera} = "{camera}/videos/a.mp4"' for camera in ("cam01", "cam02")]
    write(str(tmp_path / "w" / "capture.toml"), "\n".join(["[videos]", *lines]))
    assert files(tmp_path) == {"w": ["w/cam01/videos/a.mp4", "w/cam02/videos/a.mp4"]}


def test_a_folder_that_is_named_like_one_of_calibrations_and_has_none_is_noted(tmp_path):
    pose2sim(str(tmp_path / "w"))
    pose2sim(str(tmp_path / "calibrated" / "v"))
    assert len(found(tmp_path).captures) == 1
    assert (
        sum(note.startswith("calibrated is taken for a folder of calibrations") for note in found(tmp_path).notes) == 1
    )


def test_a_capture_toml_is_read_in_any_letter_case_and_what_is_named_like_it_is_noted(tmp_path):
    pose2sim(str(tmp_path / "w"))
    write(str(tmp_path / "w" / "Capture.TOML"), "fps = 50.0")
    write(str(tmp_path / "w" / "capture.toml.txt"), "fps = 60.0")
    (capture,) = found(tmp_path).captures
    assert capture.fps == 50.0
    assert "w: capture.toml.txt is not read: settings of a capture are in capture.toml" in found(tmp_path).notes
    write(str(tmp_path / "w" / "capture.toml"), "fps = 40.0")
    assert "Capture.TOML and capture.toml. Keep only one" in only_problem(tmp_path).detail


def test_where_there_is_no_capture_the_error_names_the_footage_that_was_found(tmp_path):
    write_video(str(tmp_path / "walk" / "cam01.mp4"))
    with pytest.raises(ConfigError, match=r"no capture was found in .* \(walk: cam01.mp4 is in no capture"):
        found(tmp_path)


def test_videos_of_a_kind_that_is_not_read_and_folders_beside_videos_are_noted(tmp_path):
    folder = pose2sim(str(tmp_path / "w"), cameras=["cam01", "cam02", "cam03"], videos=["cam01", "cam02"])
    write(f"{folder}/videos/cam03.MXF", "x")
    write_video(f"{folder}/videos/old/cam01.mp4")
    (tmp_path / "nested" / "videos" / "cam01").mkdir(parents=True)
    write(str(tmp_path / "nested" / "videos" / "cam01" / "a.insv"), "x")
    catalogue = found(tmp_path)
    assert [video.camera for video in catalogue.captures[0].videos] == ["cam01", "cam02"]
    convert = "not read: convert, for example with `ffmpeg -i IN -crf 16 OUT.mp4`"
    assert f"w: videos: cam03.MXF is {convert}" in catalogue.notes
    assert "w: videos: its folders (old) are not searched, since videos are beside them" in catalogue.notes
    assert f"nested: videos/cam01: a.insv is {convert}" in catalogue.notes


@pytest.mark.parametrize("suffix", ["3gp", "VOB", "m2v", "divx", "f4v"])
def test_videos_of_less_common_suffixes_are_footage(suffix, tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    os.rename(f"{folder}/videos/cam03.mp4", f"{folder}/videos/cam03.{suffix}")
    assert files(tmp_path)["w"][2] == f"w/videos/cam03.{suffix}"
