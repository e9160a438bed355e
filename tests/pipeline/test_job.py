"""The batch job through its own door: footage in, poses out, killed and begun again, asked for the impossible."""

import os
import shutil
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from mvpose.cli import run
from mvpose.commands.check import sampled_keypoints
from mvpose.confidence import ConfidenceScale
from mvpose.config import differences
from mvpose.errors import ConfigError, FailureReason, ResultsError, WeightsError
from mvpose.models.detection import runtime
from mvpose.models.detection.detector import load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.shipped import FUSION
from mvpose.pipeline import detect_stage
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, placed, plan_job, reconstruct_archive, result_settings
from mvpose.run.run_folder import RunFolder
from mvpose.run.verification import verify_run
from mvpose.temporal.filter_settings import ButterworthFilter, MedianFilter
from mvpose.temporal.filters import filtered
from tests.pipeline import coded_footage
from tests.pipeline.drivers import REPOSITORY, start_driver, wait_for_commits

FRAMES = 40


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> str:
    """Two captures of 40 frames."""
    folder = tmp_path_factory.mktemp("archive")
    for name in ("one", "two"):
        coded_footage.write_capture(str(folder / name), FRAMES)
    return str(folder)


@pytest.fixture(scope="session")
def undisturbed(archive, tmp_path_factory) -> str:
    """The run folder of a plain loop that nobody disturbed."""
    output = str(tmp_path_factory.mktemp("undisturbed") / "run")
    reconstruct_archive(job(archive, output))
    return output


@pytest.fixture
def own_archive(archive, tmp_path) -> str:
    """A copy of the first capture that a test may damage."""
    shutil.copytree(os.path.join(archive, "one"), tmp_path / "archive" / "one")
    return str(tmp_path / "archive")


def job(archive: str, output: str, **changes) -> ReconstructJob:
    settings = {
        "clip_frames": 10, "detector": DetectorConfig(detector=coded_footage.DETECTOR),
        "engine": EngineConfig(local=True),
    }  # fmt: skip
    return ReconstructJob(archive=archive, output=output, **(settings | changes))


TABLES = ("summary.json", "run.json", "plan.parquet", "figures.parquet")


def contents(output: str) -> dict[str, bytes]:
    """Every result file of a run with its bytes. Commits hold timings and are not among them."""
    files = {}
    for kind in ("poses", "filtered", "keypoints", "quality", "failures", *TABLES):
        path = os.path.join(output, kind)
        found = [path] if os.path.isfile(path) else [os.path.join(d, f) for d, _, fs in os.walk(path) for f in fs]
        for file in found:
            with open(file, "rb") as opened:
                files[os.path.relpath(file, output)] = opened.read()
    return files


def truth() -> np.ndarray:
    return coded_footage.scene(FRAMES).joints


def test_poses_are_where_the_people_were(undisturbed):
    run_folder = RunFolder(undisturbed)
    for plan in run_folder.plans():
        poses = run_folder.poses(plan)
        error = np.linalg.norm(poses.xyz - truth(), axis=-1)
        assert np.isfinite(error).mean() > 0.95
        # 0.1 px of noise in images of 128 x 96 pixels is about 1 cm at the person.
        assert np.nanmedian(error) < 0.02
    summary = run_folder.summary()
    assert (summary.captures, summary.clips, summary.frames, summary.failures) == (2, 8, 80, ())
    assert summary.exit_code(0.0) == 0


def test_a_reader_without_mvpose_reads_the_poses_of_the_run_as_one_table(undisturbed):
    table = pq.read_table(os.path.join(undisturbed, "poses")).to_pandas()
    assert len(table) == 80 and sorted(table["capture"].unique()) == ["one", "two"]


def test_filtered_poses_are_made_of_whole_captures_beside_the_raw_ones(undisturbed):
    """Clips of 10 frames are shorter than one period of the filter: only a filter that knows no clips smooths them."""
    run_folder = RunFolder(undisturbed)
    for plan in run_folder.plans():
        made, poses = run_folder.filtered(plan), run_folder.poses(plan)
        assert poses is not None
        expected = filtered(poses, plan.capture.fps, ButterworthFilter())
        np.testing.assert_array_equal(made.poses.xyz, expected.poses.xyz)
        np.testing.assert_array_equal(made.filled, expected.filled)
        np.testing.assert_array_equal(made.raw.xyz, poses.xyz)
        assert made.smoothed.mean() > 0.9


def test_another_filter_makes_filtered_poses_alone_and_is_not_overlooked(own_archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    before = contents(output)
    other = MedianFilter(gap_frames=3)
    with pytest.raises(ConfigError, match=r"filtering\.gap_frames: was 20, now 3"):
        reconstruct_archive(job(own_archive, output, filtering=other))
    reconstruct_archive(job(own_archive, output, filtering=other, replan=True))
    after = contents(output)
    changed = {file.split("/")[0] for file in before.keys() | after.keys() if before.get(file) != after.get(file)}
    assert changed == {"filtered", "run.json", "plan.parquet", "summary.json"}
    reconstruct_archive(job(own_archive, output, filtered=False, replan=True))
    assert not any(file.startswith("filtered") for file in contents(output))
    with pytest.raises(ResultsError, match="--filtered --replan"):
        RunFolder(output).filtered(RunFolder(output).plans()[0])


def test_nothing_is_computed_twice(archive, undisturbed):
    before = {f: os.stat(os.path.join(undisturbed, f)).st_mtime_ns for f in contents(undisturbed)}
    reconstruct_archive(job(archive, undisturbed))
    assert before == {f: os.stat(os.path.join(undisturbed, f)).st_mtime_ns for f in contents(undisturbed)}


def test_ray_gives_the_same_bytes_as_the_plain_loop(archive, undisturbed, tmp_path, shared_ray):
    output = str(tmp_path / "run")
    reconstruct_archive(job(archive, output, engine=EngineConfig(workers=2)))
    assert contents(output) == contents(undisturbed)
    verification = verify_run(output)
    assert verification.findings == () and verification.notes == ()
    assert RunFolder(output).summary().notes == RunFolder(undisturbed).summary().notes
    assert not os.path.exists(os.path.join(undisturbed, "logs")), "a plain loop has no workers"


def test_the_first_capture_is_whole_before_the_last_clip_is_detected_and_its_time_is_recorded_by_stage(
    undisturbed,
):
    written = {
        capture: [os.stat(os.path.join(d, f)).st_mtime_ns for d, _, fs in os.walk(f"{undisturbed}/commits") for f in fs
                  if os.path.basename(d) == capture]
        for capture in ("one", "two")
    }  # fmt: skip
    assert len(written["one"]) == len(written["two"]) == 15 and max(written["one"]) <= min(written["two"])
    seconds = RunFolder(undisturbed).performance()
    assert set(seconds) == {"keypoints", "tracks", "identities", "poses", "filtered", "quality", "elapsed"}
    assert 0 < sum(v for k, v in seconds.items() if k != "elapsed") <= seconds["elapsed"]


def test_a_start_that_finds_all_clips_detected_finishes_captures_without_a_detector(
    archive, undisturbed, tmp_path, capsys, monkeypatch
):
    output = str(tmp_path / "run")
    shutil.copytree(undisturbed, output)
    os.remove(os.path.join(output, "summary.json"))
    for kind in ("identities", "poses", "filtered", "quality"):
        shutil.rmtree(os.path.join(output, "commits", kind))

    def detected(*_):
        raise AssertionError("the detector is not needed")

    monkeypatch.setattr(detect_stage, "load_detector", detected)
    reconstruct_archive(job(archive, output))
    assert contents(output) == contents(undisturbed)
    assert capsys.readouterr().err == "2/2 captures done\n"


# The last clip of each capture is never done: a driver is in the middle of its work until it is ended.
ENDLESS = {"CODED_HANGS": str(FRAMES - 1)}


@pytest.mark.fault
@pytest.mark.parametrize(
    "flags",
    [pytest.param(["--local"], id="plain loop"), pytest.param(["--workers", "2"], id="Ray", marks=pytest.mark.slow)],
)
def test_a_driver_killed_in_the_middle_and_begun_again_ends_with_the_same_bytes(
    archive, undisturbed, tmp_path, monkeypatch, flags
):
    output = str(tmp_path / "run")
    driver = start_driver(archive, output, *flags, **ENDLESS)
    wait_for_commits(driver, output, "keypoints", 3)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert not os.path.exists(os.path.join(output, "summary.json"))
    kept = {
        f: os.stat(os.path.join(d, f)).st_mtime_ns for d, _, fs in os.walk(f"{output}/commits/keypoints") for f in fs
    }

    monkeypatch.setenv("PYTHONPATH", REPOSITORY)
    reconstruct_archive(job(archive, output, engine=EngineConfig(local="--local" in flags)))
    assert contents(output) == contents(undisturbed)
    now = {
        f: os.stat(os.path.join(d, f)).st_mtime_ns for d, _, fs in os.walk(f"{output}/commits/keypoints") for f in fs
    }
    assert kept and kept.items() <= now.items()


def test_an_interrupted_job_says_how_to_go_on(archive, tmp_path):
    output = str(tmp_path / "run")
    driver = start_driver(archive, output, "--local", **ENDLESS)
    wait_for_commits(driver, output, "keypoints", 1)
    os.kill(driver.pid, signal.SIGINT)
    _, said = driver.communicate()
    assert driver.returncode == 130
    assert b"rerun the same command" in said and b"Traceback" not in said


def test_other_settings_are_refused_by_name_and_replan_makes_what_is_missing(own_archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    other = job(own_archive, output, clip_frames=20)
    with pytest.raises(ConfigError, match=r"clip_frames: was 10, now 20.*--replan"):
        reconstruct_archive(other)
    summary = reconstruct_archive(job(own_archive, output, clip_frames=20, replan=True))
    assert summary.clips == 2
    assert pq.read_table(os.path.join(output, "poses")).num_rows == FRAMES


def test_a_new_calibration_makes_new_poses_from_the_same_keypoints(own_archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    keypoints = {f: b for f, b in contents(output).items() if f.startswith("keypoints")}
    calibration = os.path.join(own_archive, "one", "calibration", "Calib.toml")
    with open(calibration) as file:
        text = file.read()
    with open(calibration, "w") as file:
        file.write(shifted(text))
    with pytest.raises(ConfigError, match=r"calibration.*has changed"):
        reconstruct_archive(job(own_archive, output))
    made = os.stat(os.path.join(output, next(iter(keypoints)))).st_mtime_ns
    reconstruct_archive(job(own_archive, output, replan=True))
    assert {f: b for f, b in contents(output).items() if f.startswith("keypoints")} == keypoints
    assert os.stat(os.path.join(output, next(iter(keypoints)))).st_mtime_ns == made


def shifted(calibration: str) -> str:
    """The calibration with another world origin: 1 m along x."""
    moved = coded_footage.scene(FRAMES)
    rotation = moved.rig.camera_from_world.rotation
    lines, camera = [], -1
    for line in calibration.splitlines():
        if line.startswith("[cam"):
            camera += 1
        if line.startswith("translation"):
            translation = moved.rig.camera_from_world.translation[camera] + rotation[camera][:, 0]
            line = f"translation = {translation.tolist()}"
        lines.append(line)
    return "\n".join(lines)


def failures(output: str) -> list[tuple[str, FailureReason]]:
    return [(f.clip.capture_id, f.reason) for f in RunFolder(output).summary().failures]


def test_a_truncated_video_is_a_failure_row_and_the_other_capture_is_done(archive, own_archive, tmp_path):
    shutil.copytree(os.path.join(archive, "two"), os.path.join(own_archive, "two"))
    video = os.path.join(own_archive, "one", "videos", "cam2.mp4")
    os.truncate(video, os.path.getsize(video) // 2)
    output = str(tmp_path / "run")
    summary = reconstruct_archive(job(own_archive, output))
    assert {f.clip.capture_id for f in summary.failures} == {"one"}
    assert {f.reason for f in summary.failures} <= {FailureReason.VIDEO_TOO_SHORT, FailureReason.VIDEO_UNREADABLE}
    assert all("cam2.mp4" in f.detail for f in summary.failures)
    assert summary.exit_code(max_failed_share=0.9) == 3 and summary.exit_code(max_failed_share=0.0) == 4
    assert "two" in summary.figures


def test_an_unreadable_video_is_a_failure_row(own_archive, tmp_path):
    with open(os.path.join(own_archive, "one", "videos", "cam1.mp4"), "wb") as video:
        video.write(b"this is not a video")
    summary = reconstruct_archive(job(own_archive, str(tmp_path / "run")))
    assert len(summary.failures) == 1 and "cam1.mp4" in summary.failures[0].detail
    assert summary.failures[0].reason == FailureReason.VIDEO_UNREADABLE


def test_a_missing_camera_leaves_the_others_to_do_the_work(own_archive, tmp_path):
    os.remove(os.path.join(own_archive, "one", "videos", "cam3.mp4"))
    output = str(tmp_path / "run")
    summary = reconstruct_archive(job(own_archive, output))
    assert summary.failures == () and RunFolder(output).plans()[0].capture.rig.names == ("cam0", "cam1", "cam2")


def test_one_view_only_is_a_failure_row(own_archive, tmp_path):
    for camera in (1, 2, 3):
        os.remove(os.path.join(own_archive, "one", "videos", f"cam{camera}.mp4"))
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    assert failures(output) == [("one", FailureReason.TOO_FEW_VIEWS)]


def test_a_wrong_path_is_one_sentence(tmp_path, capsys):
    assert run(["reconstruct", str(tmp_path / "nowhere"), "--output", str(tmp_path / "run"), "--local"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "nowhere") in said and said.count("\n") == 1


def test_an_empty_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(["reconstruct", str(tmp_path / "empty"), "--output", str(tmp_path / "run"), "--local"]) == 1
    said = capsys.readouterr().err
    assert "empty" in said and said.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_sentence(archive, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    flags = ["--local", "--detector.detector", coded_footage.DETECTOR]
    assert run(["reconstruct", archive, "--output", str(tmp_path / "file" / "run"), *flags]) == 1
    said = capsys.readouterr().err
    assert "cannot be listed: Not a directory" in said and said.count("\n") == 1


def test_a_dry_run_tells_what_is_to_do_and_writes_nothing(archive, tmp_path, capsys):
    output = str(tmp_path / "run")
    flags = ["--dry-run", "--clip-frames", "10", "--detector.detector", coded_footage.DETECTOR]
    assert run(["reconstruct", archive, "--output", output, *flags]) == 0
    said = capsys.readouterr().out
    assert "8 clips of 2 captures: 0 done, 8 to do" in said and "clip_frames = 10" in said
    assert not os.path.exists(output)


def test_a_job_killed_just_before_its_summary_is_finished_by_the_same_command(archive, undisturbed, tmp_path):
    output = str(tmp_path / "run")
    shutil.copytree(undisturbed, output)
    os.remove(os.path.join(output, "summary.json"))
    reconstruct_archive(job(archive, output))
    assert contents(output) == contents(undisturbed)


def test_a_summary_of_other_settings_is_not_taken_for_the_result(own_archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    shutil.copy(os.path.join(output, "summary.json"), tmp_path / "old.json")
    reconstruct_archive(job(own_archive, output, clip_frames=20, replan=True))
    shutil.copy(tmp_path / "old.json", os.path.join(output, "summary.json"))
    with pytest.raises(ResultsError, match="not finished"):
        RunFolder(output).summary()
    assert reconstruct_archive(job(own_archive, output, clip_frames=20)).clips == 2


def test_settings_changed_forth_and_back_end_with_poses(own_archive, undisturbed, tmp_path):
    output = str(tmp_path / "run")
    for frames in (10, 20, 10):
        reconstruct_archive(job(own_archive, output, clip_frames=frames, replan=True))
    expected = {f: b for f, b in contents(undisturbed).items() if f.startswith("poses/one/")}
    assert expected and {f: b for f, b in contents(output).items() if f.startswith("poses/")} == expected


def test_a_bad_capture_that_comes_later_is_not_overlooked(own_archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(own_archive, output))
    shutil.copytree(os.path.join(own_archive, "one"), os.path.join(own_archive, "late"))
    for camera in (1, 2, 3):
        os.remove(os.path.join(own_archive, "late", "videos", f"cam{camera}.mp4"))
    with pytest.raises(ConfigError, match="--replan"):
        reconstruct_archive(job(own_archive, output))
    reconstruct_archive(job(own_archive, output, replan=True))
    assert failures(output) == [("late", FailureReason.TOO_FEW_VIEWS)]


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/.", "file://{}", "{}/.."])
def test_an_output_that_holds_the_archive_is_refused_however_it_is_spelled(own_archive, spelling):
    with pytest.raises(ConfigError, match="a folder of their own"):
        reconstruct_archive(job(own_archive, spelling.format(own_archive)))


def test_what_was_left_out_is_told(own_archive, tmp_path, capsys):
    os.remove(os.path.join(own_archive, "one", "videos", "cam3.mp4"))
    flags = ["--local", "--tracking.no-enabled", "--detector.detector", coded_footage.DETECTOR]
    assert run(["reconstruct", own_archive, "--output", str(tmp_path / "run"), *flags]) == 0
    assert "without footage: cam3" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["run.json", "summary.json"])
def test_a_damaged_file_of_the_run_is_one_sentence(undisturbed, tmp_path, file):
    output = str(tmp_path / "run")
    shutil.copytree(undisturbed, output)
    with open(os.path.join(output, file), "w") as damaged:
        damaged.write("{")
    with pytest.raises(ResultsError, match=f"{file} cannot be read"):
        RunFolder(output).summary()


class ScaledDetector(coded_footage.CodedDetector):
    """States confidence on a scale of its own."""

    confidence_scale = ConfidenceScale(likelihood=((0.0, 0.0), (1.0, 0.5)))


def test_likelihoods_follow_the_scale_of_the_detector_and_a_resumed_run_refuses_another(archive, tmp_path, monkeypatch):
    # Fails if a stage or `mvpose check` stacks people without the detector's scale, or the plan does not see a change.
    output = str(tmp_path / "run")
    scaled = job(archive, output, clip_frames=40, detector=DetectorConfig(detector=f"{__name__}:ScaledDetector"))
    reconstruct_archive(scaled)
    run_folder = RunFolder(output)
    plan = run_folder.plans()[0]
    keypoints, poses = run_folder.keypoints(plan), run_folder.poses(plan)
    assert keypoints.scale == ScaledDetector.confidence_scale and keypoints.confidence.max() > 0.6
    assert 0.3 < poses.confidence.max() <= 0.5
    checked = sampled_keypoints(plan.capture, [range(2)], load_detector(scaled.detector))
    assert checked.scale == ScaledDetector.confidence_scale
    monkeypatch.setattr(ScaledDetector, "confidence_scale", ConfidenceScale())
    with pytest.raises(ConfigError, match="detector"):
        reconstruct_archive(scaled)


def test_canonical_fusion_is_the_default_where_its_detector_is_used(archive, tmp_path):
    """Fails if `auto` fuses tokens of another detector, or leaves fusion out without saying so."""
    default = plan_job(job(archive, str(tmp_path / "a"), detector=DetectorConfig()))
    assert default.model is not None and default.model.uri == FUSION
    assert default.settings.values["model_sha256"] == default.model.weights_sha256
    own = plan_job(job(archive, str(tmp_path / "b")))
    (note,) = set(own.planned.notes) - set(default.planned.notes)
    assert own.model is None and "without canonical fusion" in note and "rtmpose_s_halpe26" in note
    baseline = plan_job(job(archive, str(tmp_path / "c"), detector=DetectorConfig(), model="none"))
    assert baseline.model is None and baseline.planned.notes == default.planned.notes
    assert default.settings.plan_digest != baseline.settings.plan_digest


def test_the_precision_of_a_run_is_that_of_the_machine_that_planned_it_and_another_is_named(archive, monkeypatch):
    """Fails if settings keep `auto`: a resumed run on another kind of CPU would then only differ by a digest."""
    job = ReconstructJob(archive=archive, output="run", detector=DetectorConfig())
    found = []
    for own in ("bfloat16_amx", None):
        monkeypatch.setattr(runtime, "own_bfloat16", lambda own=own: own)
        found.append(result_settings(placed(job), None))
    assert differences(*found)[-1].startswith("detector.precision")
    assert [settings["detector.precision"] for settings in found] == ["bfloat16_amx", "float32"]


def test_a_model_that_is_no_model_is_one_sentence(archive, tmp_path):
    with pytest.raises(WeightsError, match="no model in"):
        plan_job(job(archive, str(tmp_path / "run"), model=str(tmp_path / "canonical")))
