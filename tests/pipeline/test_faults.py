"""Faults that a whole job meets, each a real one; after it and a run of the same command, the undisturbed bytes."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import av
import pytest

from mvpose.cli import run
from mvpose.errors import FailureReason
from mvpose.footage.catalogue import CatalogueConfig
from mvpose.pipeline import engine as engine_module
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Clip, Task
from mvpose.run.run_folder import RunFolder
from mvpose.run.verification import verify_run
from tests.footage.numbered_video import HEIGHT, WIDTH, numbered_image
from tests.pipeline import coded_footage
from tests.pipeline.drivers import Driver, hasty, jumping_clock, nothing, start_driver
from tests.pipeline.test_job import contents, job

pytestmark = pytest.mark.fault
FRAMES = 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    """A capture `good` and a capture `hit`, two clips each."""
    folder = tmp_path_factory.mktemp("archive")
    for name in ("good", "hit"):
        coded_footage.write_capture(str(folder / name), FRAMES)
    return str(folder)


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory) -> dict[str, bytes]:
    output = str(tmp_path_factory.mktemp("undisturbed") / "run")
    reconstruct_archive(job(archive, output))
    return contents(output)


@pytest.fixture
def own_archive(archive, tmp_path) -> str:
    """A copy with the same times of its files, which a test may damage."""
    return shutil.copytree(archive, str(tmp_path / "archive"))


def of_good(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if f"{os.sep}good{os.sep}" in name}


def sound(output: str, expected: dict[str, bytes]) -> None:
    assert contents(output) == expected
    assert verify_run(output).findings == ()


def emptied(path: str) -> None:
    os.truncate(path, 0)


def cut_off(path: str) -> None:
    os.truncate(path, os.path.getsize(path) * 2 // 3)


def overwritten(path: str) -> None:
    with open(path, "wb") as file:
        file.write(bytes(range(256)) * 40)


def encrypted(path: str) -> None:
    """Common Encryption as streaming services use it: the container is whole, the images are ciphered."""
    secret = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb"}
    options = secret | {"encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}
    with av.open(path, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(FRAMES):
            image = av.VideoFrame.from_ndarray(numbered_image(frame), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("damaged", [emptied, cut_off, overwritten, encrypted])
def test_a_damaged_video_fails_alone_and_is_done_once_it_is_mended(own_archive, undisturbed, tmp_path, damaged):
    output, video = str(tmp_path / "run"), os.path.join(own_archive, "hit", "videos", "cam1.mp4")
    whole = shutil.copy2(video, tmp_path / "whole.mp4")
    damaged(video)
    summary = reconstruct_archive(job(own_archive, output))
    assert {f.clip.capture_id for f in summary.failures} == {"hit"}
    assert {f.reason for f in summary.failures} <= {FailureReason.VIDEO_UNREADABLE, FailureReason.VIDEO_TOO_SHORT}
    assert of_good(contents(output)) == of_good(undisturbed)
    shutil.copy2(whole, video)
    assert reconstruct_archive(job(own_archive, output, replan=True)).failures == ()
    sound(output, undisturbed)


def write_avi(path: str, camera: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=30, options={"g": "6", "qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(FRAMES):
            image = numbered_image(camera * coded_footage.FRAMES_A_CAMERA + frame)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("reported", [FRAMES // 2, FRAMES * 50])
def test_a_container_that_lies_about_its_frame_count_is_not_believed(own_archive, tmp_path, reported):
    videos = os.path.join(own_archive, "hit", "videos")
    for camera in range(4):
        os.remove(os.path.join(videos, f"cam{camera}.mp4"))
        write_avi(os.path.join(videos, f"cam{camera}.avi"), camera)
    reconstruct_archive(job(own_archive, str(tmp_path / "true")))
    video = os.path.join(videos, "cam2.avi")
    before = os.stat(video)
    with open(video, "r+b") as file:
        data = file.read()
        # Total frames in the main header, length in the stream header (RIFF AVI, 'avih' and 'strh').
        for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
            assert int.from_bytes(data[place : place + 4], "little") == FRAMES
            file.seek(place)
            file.write(reported.to_bytes(4, "little"))
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    reconstruct_archive(job(own_archive, str(tmp_path / "lied")))
    sound(str(tmp_path / "lied"), contents(str(tmp_path / "true")))


def test_clips_that_failed_are_done_again_on_request_and_only_then(archive, undisturbed, tmp_path, monkeypatch):
    output = str(tmp_path / "run")
    monkeypatch.setenv("CODED_FAILS", str(FRAMES - 1))
    assert len(reconstruct_archive(job(archive, output)).failures) == 2
    monkeypatch.delenv("CODED_FAILS")
    assert len(reconstruct_archive(job(archive, output)).failures) == 2
    kept = os.stat(os.path.join(output, "commits", "keypoints", "good")).st_mtime_ns
    assert reconstruct_archive(job(archive, output, retry_failed=True)).failures == ()
    assert os.stat(os.path.join(output, "commits", "keypoints", "good")).st_mtime_ns > kept
    sound(output, undisturbed)
    assert reconstruct_archive(job(archive, output, retry_failed=True)).failures == ()


def test_a_detector_that_raises_on_one_clip_costs_that_clip_and_is_done_again_once_it_is_mended(
    archive, undisturbed, tmp_path, monkeypatch
):
    output = str(tmp_path / "run")
    monkeypatch.setenv("CODED_RAISES", str(FRAMES - 1))
    summary = reconstruct_archive(job(archive, output))
    assert [(f.clip.capture_id, f.clip.start, f.stage) for f in summary.failures] == [
        ("good", 10, "keypoints"),
        ("hit", 10, "keypoints"),
    ]
    assert {f.reason for f in summary.failures} == {FailureReason.EXCEPTION}
    for failure in summary.failures:
        _, _, kept = failure.detail.partition("Its traceback is in ")
        with open(os.path.join(output, kept.removesuffix(" of the run."))) as file:
            assert "coded_footage.py" in file.read()
    assert verify_run(output).findings == ()
    monkeypatch.delenv("CODED_RAISES")
    assert reconstruct_archive(job(archive, output, retry_failed=True)).failures == ()
    sound(output, undisturbed)


def test_a_detector_that_raises_on_every_clip_stops_the_job_which_is_not_taken_for_complete(
    archive, undisturbed, tmp_path, monkeypatch, capsys
):
    output = str(tmp_path / "run")
    flags = ["--clip-frames", "10", "--local", "--tracking.no-enabled", "--detector.detector", coded_footage.DETECTOR]
    monkeypatch.setattr(engine_module, "ENOUGH", 3)
    monkeypatch.setenv("CODED_RAISES", "all")
    assert run(["reconstruct", archive, "--output", output, *flags]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "keypoints failed with the same error on the first 3 clips" in said
    assert "RuntimeError: CUDA error: device-side assert at frame" in said and "--retry-failed" in said
    assert not os.path.exists(os.path.join(output, "summary.json"))
    monkeypatch.delenv("CODED_RAISES")
    assert run(["reconstruct", archive, "--output", output, *flags]) == 4
    assert run(["reconstruct", archive, "--output", output, "--retry-failed", *flags]) == 0
    sound(output, undisturbed)


def driver_of(archive: str, output: str, *flags: str, before: Callable[[], None] = nothing) -> Driver:
    return start_driver(archive, output, "--local", *flags, before=before)


def said_by(driver: Driver) -> str:
    _, said = driver.communicate()
    return said.decode()


def test_a_worker_that_hangs_costs_its_clip_and_no_other(tmp_path, monkeypatch):
    archive, output, undisturbed = (str(tmp_path / name) for name in ("archive", "run", "undisturbed"))
    coded_footage.write_image_capture(os.path.join(archive, "hit"), FRAMES)
    catalogue = CatalogueConfig(fps=30.0)
    reconstruct_archive(job(archive, undisturbed, catalogue=catalogue))

    monkeypatch.setenv("CODED_HANGS", "14")
    driver = driver_of(archive, output, "--catalogue.fps", "30", "--clip-timeout-s", "1", before=hasty)
    said = said_by(driver)
    assert driver.returncode == 4, said
    failures = RunFolder(output).summary().failures
    assert [(f.clip.start, f.reason) for f in failures] == [(10, FailureReason.TIMEOUT)]

    monkeypatch.delenv("CODED_HANGS")
    assert reconstruct_archive(job(archive, output, catalogue=catalogue, retry_failed=True)).failures == ()
    sound(output, contents(undisturbed))


def test_a_image_that_is_a_pipe_costs_its_clip_and_is_never_waited_for(tmp_path):
    archive, output = str(tmp_path / "archive"), str(tmp_path / "run")
    coded_footage.write_image_capture(os.path.join(archive, "hit"), FRAMES)
    image = os.path.join(archive, "hit", "images", "cam2", "0014.png")
    os.remove(image)
    os.mkfifo(image)
    driver = driver_of(archive, output, "--catalogue.fps", "30")
    said = said_by(driver)
    assert driver.returncode == 4, said
    failures = RunFolder(output).summary().failures
    assert [(f.clip.start, f.reason) for f in failures] == [(10, FailureReason.VIDEO_UNREADABLE)]


def test_a_disk_that_was_full_and_has_room_again(archive, undisturbed, tmp_path):
    disk = str(tmp_path / "disk")
    os.mkdir(disk)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        output = os.path.join(disk, "run")
        driver = driver_of(archive, output)
        said = said_by(driver)
        assert driver.returncode == 1 and "No space left on device" in said and "free some space" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        reconstruct_archive(job(archive, output))
        sound(output, undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_clock_that_jumps_decides_nothing(archive, undisturbed, tmp_path):
    """Ten years to and fro at every look at it; and what is on disk is dated at random before the job goes on."""
    output = str(tmp_path / "run")
    driver = driver_of(archive, output, before=jumping_clock)
    said = said_by(driver)
    assert driver.returncode == 0, said
    files = [os.path.join(folder, name) for folder, _, names in os.walk(output) for name in names]
    for i, file in enumerate(files):
        os.utime(file, (i * 1e7 % 3e9, i * 1e7 % 3e9))
    os.remove(os.path.join(output, "summary.json"))
    for kind in ("poses", "filtered", "quality"):
        shutil.rmtree(os.path.join(output, "commits", kind, "hit"))
    driver = driver_of(archive, output, before=jumping_clock)
    said = said_by(driver)
    assert driver.returncode == 0, said
    sound(output, undisturbed)


def test_two_drivers_on_one_output_both_end_right(archive, undisturbed, tmp_path):
    output = str(tmp_path / "run")
    drivers = [driver_of(archive, output) for _ in range(2)]
    said = [said_by(driver) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    sound(output, undisturbed)


def test_of_two_drivers_with_other_settings_one_is_refused_and_the_other_right(archive, undisturbed, tmp_path):
    output = str(tmp_path / "run")
    drivers = [driver_of(archive, output), driver_of(archive, output, "--people", "3")]
    said = [said_by(driver) for driver in drivers]
    codes = [driver.returncode for driver in drivers]
    assert sorted(codes) == [0, 1], said
    refusal = said[codes.index(1)]
    assert "people: was" in refusal and refusal.count("\n") == 1
    if codes[0] == 0:
        sound(output, undisturbed)
    assert verify_run(output).findings == ()


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_is_gone_on_with(archive, undisturbed, tmp_path):
    output = str(tmp_path / "run")
    for wait in (3.0, 3.5, 4.0):
        driver = driver_of(archive, output)
        time.sleep(wait)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    reconstruct_archive(job(archive, output))
    sound(output, undisturbed)


def test_a_dry_run_says_that_the_job_would_be_refused(archive, tmp_path, capsys):
    output = str(tmp_path / "run")
    reconstruct_archive(job(archive, output))
    flags = ["--dry-run", "--clip-frames", "5", "--detector.detector", coded_footage.DETECTOR]
    assert run(["reconstruct", archive, "--output", output, *flags]) == 1
    reported = capsys.readouterr()
    assert "clip_frames = 5" in reported.out and "clip_frames: was 10, now 5" in reported.err
    assert run(["reconstruct", archive, "--output", output, "--replan", *flags]) == 0


def test_the_job_has_a_default_time_that_grows_with_its_clips(archive, tmp_path):
    from mvpose.pipeline.job import _clip_timeout_s, plan_job, stage_specs

    plain = ReconstructJob(archive=archive, output=str(tmp_path / "run"), detector=job(archive, "").detector)
    planned = plan_job(plain)
    assert _clip_timeout_s(plain, planned.planned.max_cameras) == 600 + 2.5 * 4 * 300
    # A stage over a whole capture gets as much more as the capture is longer; a short one no less than a clip.
    for stage in stage_specs(plain, planned):
        limits = [stage.timeout_s(Task(Clip("one", 0, frames), "f" * 16)) for frames in (30, 300, 1200)]
        assert limits == [3600, 3600, 4 * 3600]
