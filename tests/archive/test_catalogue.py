import os
import shutil
from dataclasses import replace

import pytest
import torch

from mvpose.archive.catalogue import (
    CatalogueConfig,
    find_captures,
    footage_identity,
    read_catalogue,
    rig_digest,
    write_catalogue,
)
from mvpose.archive.locations import filesystem, join
from mvpose.archive.picture_fit import PictureFit
from mvpose.errors import ConfigError, FailureReason, VideoError
from tests.archive.archives import (
    CAMERAS,
    found,
    only_problem,
    pose2sim,
    small_ring,
    write,
    write_pictures,
    write_video,
)
from tests.archive.calibration.rig_files import easymocap_texts, panoptic_text, toml_text


def test_a_pose2sim_project_is_a_capture_named_after_its_path(tmp_path):
    pose2sim(str(tmp_path / "day 1" / "walk"))
    (capture,) = found(tmp_path).captures
    assert capture.capture_id.startswith("day_1-") and capture.capture_id.endswith("/walk")
    assert capture.rig.names == tuple(v.camera for v in capture.videos) == ("cam01", "cam02", "cam03")
    assert capture.num_frames == 4 and capture.fps == 30.0
    assert [os.path.basename(v.uri) for v in capture.videos] == ["cam01.mp4", "cam02.mp4", "cam03.mp4"]


def test_the_archive_itself_can_be_the_capture(tmp_path):
    pose2sim(str(tmp_path / "walk"))
    assert [c.capture_id for c in found(tmp_path / "walk").captures] == ["walk"]
    assert [c.capture_id for c in found(f"{tmp_path}/walk/").captures] == ["walk"]


def test_locations_hold_for_workers_in_another_folder(tmp_path, monkeypatch):
    pose2sim(str(tmp_path / "archive" / "walk"))
    monkeypatch.chdir(tmp_path)
    for archive in ("archive", "./archive/", f"file://{tmp_path}/archive"):
        (capture,) = found(archive).captures
        assert capture.videos[0].uri == f"{tmp_path}/archive/walk/videos/cam01.mp4"
    monkeypatch.chdir(tmp_path / "archive" / "walk")
    assert found(".").captures[0].capture_id == "walk"


def test_a_kind_of_location_that_is_not_known_is_named():
    with pytest.raises(ConfigError, match="http://"):
        found("http://example.org/archive")


def test_trials_share_the_calibration_of_a_folder_above(tmp_path):
    write(str(tmp_path / "session" / "Calibration" / "Calib.toml"), toml_text(small_ring(CAMERAS)))
    for trial in ("trial_2", "trial_10"):
        for camera in CAMERAS:
            write_video(str(tmp_path / "session" / trial / "videos" / f"{camera}.avi"))
    captures = found(tmp_path).captures
    assert [c.capture_id for c in captures] == ["session/trial_10", "session/trial_2"]
    assert rig_digest(captures[0].rig) == rig_digest(captures[1].rig)


def test_a_nearer_calibration_goes_before_one_above(tmp_path):
    write(str(tmp_path / "calibration" / "Calib.toml"), toml_text(small_ring(["a", "b"])))
    pose2sim(str(tmp_path / "own"))
    assert found(tmp_path).captures[0].rig.names == ("cam01", "cam02", "cam03")


def test_folders_of_videos_in_the_videos_folder_are_trials(tmp_path):
    write(str(tmp_path / "p" / "calibration" / "Calib.toml"), toml_text(small_ring(CAMERAS)))
    for trial in ("t1", "t2"):
        for camera in CAMERAS:
            write_video(str(tmp_path / "p" / "videos" / trial / f"{camera}.mp4"))
    assert [c.capture_id for c in found(tmp_path).captures] == ["p/t1", "p/t2"]


def test_an_anipose_folder_holds_several_trials_and_millimetres(tmp_path):
    text = toml_text(small_ring(["A", "B", "C"]), scale=1000.0)
    write(str(tmp_path / "s1" / "calibration" / "calibration.toml"), text)
    write(str(tmp_path / "config.toml"), "project = 'x'")
    for trial in ("2019-vid01", "2019-vid02"):
        for camera in "ABC":
            write_video(str(tmp_path / "s1" / "videos-raw" / f"{trial}-cam{camera}.avi"))
    write_video(str(tmp_path / "s1" / "videos-raw" / "ceiling.avi"))
    write_video(str(tmp_path / "s1" / "calibration" / "calib-camA.avi"))
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["s1/2019-vid01", "s1/2019-vid02"]
    assert all(c.rig.names == ("A", "B", "C") for c in catalogue.captures)
    assert any("unit taken as mm" in note for note in catalogue.notes)
    assert any("ceiling" in note for note in catalogue.notes)


@pytest.mark.parametrize("kind", ["hdVideos", "hdImgs"])
def test_a_panoptic_folder(kind, tmp_path):
    sequence = tmp_path / "171204_pose1"
    cameras = ["00_00", "00_01", "01_05"]
    write(str(sequence / "calibration_171204_pose1.json"), panoptic_text(small_ring(cameras)))
    for camera in cameras[:2]:
        if kind == "hdVideos":
            write_video(str(sequence / kind / f"hd_{camera}.mp4"))
        else:
            write_pictures(str(sequence / kind / camera))
    catalogue = found(tmp_path)
    (capture,) = catalogue.captures
    assert capture.rig.names == ("00_00", "00_01")
    assert capture.fps == (30.0 if kind == "hdVideos" else 29.97)
    assert any("without footage: 01_05" in note for note in catalogue.notes)


def test_easymocap_pictures_need_a_rate_and_take_the_video_s_size(tmp_path):
    for name, text in zip(
        ("intri.yml", "extri.yml"), easymocap_texts(small_ring(["01", "02"]), sized=False), strict=True
    ):
        write(str(tmp_path / "e" / name), text)
    for camera in ("01", "02"):
        write_pictures(str(tmp_path / "e" / "images" / camera))
    problem = only_problem(tmp_path)
    assert problem.reason == FailureReason.VIDEO_UNREADABLE and "fps" in problem.detail
    (capture,) = found(tmp_path, fps=50.0).captures
    assert capture.fps == 50.0 and capture.rig.size.tolist() == [[128, 96], [128, 96]]


def test_one_bad_capture_never_stops_the_others(tmp_path):
    pose2sim(str(tmp_path / "good"))
    pose2sim(str(tmp_path / "unreadable"))
    write(str(tmp_path / "unreadable" / "videos" / "cam02.mp4"), b"no video")
    pose2sim(str(tmp_path / "damaged"))
    write(str(tmp_path / "damaged" / "calibration" / "Calib.toml"), "[cam")
    pose2sim(str(tmp_path / "uncalibrated"))
    shutil.rmtree(tmp_path / "uncalibrated" / "calibration")
    pose2sim(str(tmp_path / "foreign"), videos=["left", "right"])
    pose2sim(str(tmp_path / "alone"), videos=["cam02", "ceiling"])
    write(str(tmp_path / "wrong" / "capture.toml"), "calibratoin = 'x'")
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["good"]
    assert {p.capture_id: p.reason for p in catalogue.problems} == {
        "unreadable": FailureReason.VIDEO_UNREADABLE,
        "damaged": FailureReason.CALIBRATION,
        "uncalibrated": FailureReason.CALIBRATION,
        "foreign": FailureReason.CALIBRATION,
        "alone": FailureReason.TOO_FEW_VIEWS,
        "wrong": FailureReason.CONFIG,
    }
    said = {p.capture_id: p.detail for p in catalogue.problems}
    assert "cam02.mp4" in said["unreadable"] and "Calib.toml" in said["damaged"] and "calibratoin" in said["wrong"]
    assert all(name in said["foreign"] for name in ("cam01", "cam03", "left", "right"))
    assert "cam02" in said["alone"] and "ceiling" in said["alone"]


def test_what_is_left_over_on_either_side_is_noted(tmp_path):
    pose2sim(
        str(tmp_path / "w"), cameras=["int_cam1_img", "int_cam2_img", "int_cam9_img"], videos=["cam01", "cam02", "x"]
    )
    catalogue = found(tmp_path)
    assert catalogue.captures[0].rig.names == ("int_cam1_img", "int_cam2_img")
    assert "w: calibrated cameras without footage: int_cam9_img" in catalogue.notes
    assert "w: footage without a calibration, left out: x" in catalogue.notes


def test_several_calibrations_have_to_be_chosen_from(tmp_path):
    folder = pose2sim(str(tmp_path / "w"))
    other = small_ring(CAMERAS)
    other[0].matrix[0, 0] = 120.0
    write(os.path.join(folder, "calibration", "Calib_better.toml"), toml_text(other))
    problem = only_problem(tmp_path)
    assert problem.reason == FailureReason.CALIBRATION
    assert all(word in problem.detail for word in ("Calib.toml", "Calib_better.toml", "capture.toml"))
    assert "not one of them" in only_problem(tmp_path, calibration="Calib_best.toml").detail
    for config in ({"calibration": "Calib_better.toml"}, {"calibration": "w/calibration/Calib_better.toml"}):
        assert found(tmp_path, **config).captures[0].rig.focal[0, 0] == 120.0
    write(os.path.join(folder, "capture.toml"), 'calibration = "calibration/Calib_better.toml"')
    assert found(tmp_path).captures[0].rig.focal[0, 0] == 120.0


def test_different_rates_are_a_problem_and_nearly_equal_ones_a_note(tmp_path):
    pose2sim(str(tmp_path / "w"))
    write_video(str(tmp_path / "w" / "videos" / "cam02.mp4"), rate=25)
    problem = only_problem(tmp_path)
    assert problem.reason == FailureReason.CONFIG and "cam02 25" in problem.detail
    assert found(tmp_path, fps=30.0).captures[0].fps == 30.0
    shutil.rmtree(tmp_path / "w" / "videos")
    pose2sim(str(tmp_path / "w"), rate=500)
    write_video(str(tmp_path / "w" / "videos" / "cam02.mp4"), rate=501)
    catalogue = found(tmp_path)
    assert catalogue.captures and any("rates differ a little" in note for note in catalogue.notes)


def test_different_lengths_are_noted_and_the_common_one_is_used(tmp_path):
    pose2sim(str(tmp_path / "w"))
    write_video(str(tmp_path / "w" / "videos" / "cam03.mp4"), num_frames=7)
    catalogue = found(tmp_path)
    assert catalogue.captures[0].num_frames == 4
    assert any("cam01 4, cam02 4, cam03 7" in note for note in catalogue.notes)


def test_a_video_of_another_size_is_fitted_noted_and_can_be_told(tmp_path):
    pose2sim(str(tmp_path / "w"))
    write_video(str(tmp_path / "w" / "videos" / "cam02.mp4"), size=(64, 48))
    write_video(str(tmp_path / "w" / "videos" / "cam03.mp4"), size=(112, 96))
    catalogue = found(tmp_path)
    rig = catalogue.captures[0].rig
    assert rig.size.tolist() == [[128, 96], [64, 48], [112, 96]]
    assert rig.focal[1, 0] == 55.0 and rig.centre[2, 0] == 55.0
    assert any("cam02" in note and "scaled by 0.5" in note for note in catalogue.notes)
    assert any("cam03" in note and "cut at the centre" in note for note in catalogue.notes)
    assert found(tmp_path, picture_fit=PictureFit.SCALE).captures[0].rig.focal[2, 0] == pytest.approx(110 * 112 / 128)
    assert only_problem(tmp_path, picture_fit=PictureFit.TURN_90).reason == FailureReason.CALIBRATION


@pytest.mark.parametrize("where", ["missing", "empty", "file"])
def test_a_wrong_path_or_an_empty_folder_is_a_sentence(where, tmp_path):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    write(str(tmp_path / "file"), "x")
    with pytest.raises(ConfigError, match="no capture was found" if where == "empty" else "cannot be listed"):
        found(tmp_path / where)
    with pytest.raises(ConfigError, match="no name"):
        find_captures(" ", CatalogueConfig())


def test_hidden_folders_and_outputs_of_jobs_are_not_looked_into(tmp_path):
    pose2sim(str(tmp_path / "good"))
    pose2sim(str(tmp_path / ".trash"))
    pose2sim(str(tmp_path / "run" / "inside"))
    write(str(tmp_path / "run" / "run.json"), "{}")
    assert [c.capture_id for c in found(tmp_path).captures] == ["good"]


def test_two_captures_of_one_id_are_a_problem(tmp_path):
    for name in ("a", "b"):
        pose2sim(str(tmp_path / name))
        write(str(tmp_path / name / "capture.toml"), 'id = "walk"')
    catalogue = found(tmp_path)
    assert [c.capture_id for c in catalogue.captures] == ["walk"]
    assert [p.reason for p in catalogue.problems] == [FailureReason.CONFIG]


def test_the_same_archive_on_s3_gives_the_same_captures(tmp_path, s3):
    pose2sim(str(tmp_path / "w"))
    fs, path = filesystem(s3)
    fs.put(str(tmp_path / "w"), f"{path}/w", recursive=True)
    here, there = found(tmp_path).captures[0], found(s3).captures[0]
    assert there.capture_id == here.capture_id == "w"
    assert rig_digest(there.rig) == rig_digest(here.rig)
    assert [v.uri for v in there.videos] == [join(s3, "w", "videos", f"{c}.mp4") for c in CAMERAS]
    assert [(v.num_frames, v.fps, v.size) for v in there.videos] == [(v.num_frames, v.fps, v.size) for v in here.videos]
    write_catalogue(join(s3, "catalogue.parquet"), found(s3))
    assert read_catalogue(join(s3, "catalogue.parquet")).captures[0].videos == there.videos


def test_a_written_catalogue_is_read_back_bit_for_bit(tmp_path):
    pose2sim(str(tmp_path / "archive" / "one"))
    pose2sim(str(tmp_path / "archive" / "two"), cameras=["int_cam1_img", "int_cam2_img"], videos=["cam1", "cam2"])
    write(str(tmp_path / "archive" / "bad" / "capture.toml"), "[")
    catalogue = found(tmp_path / "archive")
    uri = str(tmp_path / "out" / "catalogue.parquet")
    write_catalogue(uri, catalogue)
    back = read_catalogue(uri)
    assert (back.problems, back.notes) == (catalogue.problems, catalogue.notes)
    for a, b in zip(back.captures, catalogue.captures, strict=True):
        assert (a.capture_id, a.videos, rig_digest(a.rig)) == (b.capture_id, b.videos, rig_digest(b.rig))
        assert torch.equal(a.rig.lens.coefficients, b.rig.lens.coefficients)


def test_a_catalogue_of_problems_alone_can_be_written(tmp_path):
    write(str(tmp_path / "a" / "bad" / "capture.toml"), "[")
    write_catalogue(str(tmp_path / "c.parquet"), found(tmp_path / "a"))
    back = read_catalogue(str(tmp_path / "c.parquet"))
    assert back.captures == [] and len(back.problems) == 1


def test_another_file_is_not_read_as_a_catalogue(tmp_path):
    for content in (b"", b"PAR1 nonsense"):
        with pytest.raises(ConfigError, match="cannot be read as a catalogue"):
            read_catalogue(write(str(tmp_path / "x.parquet"), content))


def test_footage_is_known_by_its_content_s_stamp_and_not_by_its_place(tmp_path):
    pose2sim(str(tmp_path / "w"))
    video = found(tmp_path).captures[0].videos[0]
    before = footage_identity(video)
    shutil.move(tmp_path / "w", tmp_path / "v")
    assert footage_identity(found(tmp_path).captures[0].videos[0]) == before
    with pytest.raises(VideoError, match=r"cam01\.mp4"):
        footage_identity(replace(video, stamp=""))
    os.utime(tmp_path / "v" / "videos" / "cam01.mp4", (1, 1))
    assert footage_identity(found(tmp_path).captures[0].videos[0]) != before


def test_a_rig_s_digest_changes_with_every_part_of_it(tmp_path):
    def digest_with(change) -> str:
        cameras = small_ring(CAMERAS)
        change(cameras[1])
        return rig_digest(found(write_one(cameras)).captures[0].rig)

    def write_one(cameras) -> str:
        pose2sim(str(tmp_path / "w"))
        write(str(tmp_path / "w" / "calibration" / "Calib.toml"), toml_text(cameras))
        return str(tmp_path)

    changes = [
        lambda c: None,
        lambda c: c.matrix.__setitem__((0, 0), 110.0 * (1 + 1e-15)),
        lambda c: c.matrix.__setitem__((1, 2), 49.0),
        lambda c: c.distortion.__setitem__(0, 0.011),
        lambda c: c.translation.__setitem__(0, 0.5),
    ]
    digests = [digest_with(change) for change in changes]
    assert len(set(digests)) == len(changes) and digest_with(changes[0]) == digests[0]


@pytest.mark.footage
def test_the_demo_footage_is_found_with_the_calibration_that_is_named(footage):
    catalogue = found(footage, calibration="Calib_scene.toml")
    assert [c.capture_id for c in catalogue.captures] == ["Demo_MultiPerson", "Demo_SinglePerson", "StaticTrial"]
    assert [c.num_frames for c in catalogue.captures] == [100, 100, 11] and not catalogue.problems
    assert [os.path.basename(v.uri) for v in catalogue.captures[1].videos] == [f"cam0{i}.mp4" for i in (1, 2, 3, 4)]
    assert sum("bars of 7.06 px" in note for note in catalogue.notes) == 4
