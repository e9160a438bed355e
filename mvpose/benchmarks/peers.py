"""The whole job beside Pose2Sim, and beside decoding alone: the same footage, networks and cores, in turns.

The footage is the single person of Pose2Sim's demo (four cameras), repeated. Pose2Sim estimates the 2D pose, associates
the persons of the views and triangulates, with its defaults: OpenVINO, in bfloat16 where the processor has it. The job
also tracks, identifies, filters and judges. Both include their start. Decoding is PyAV's alone, one thread per video,
without a start and without a conversion to RGB.

FOLDER/pose2sim      environment of Pose2Sim, made once with pip in the versions stated here
FOLDER/demo          footage of the demo
FOLDER/FRAMES        footage of FRAMES frames
FOLDER/NAME.log      output of the last turn of each contender
"""

from __future__ import annotations

import glob
import json
import math
import multiprocessing
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial

import psutil

from mvpose.benchmarks import pose2sim_job
from mvpose.errors import ConfigError, MvposeError
from mvpose.footage.demo_footage import CAPTURES, VIDEOS, make_demo_archive
from mvpose.footage.video.frames import probe
from mvpose.footage.video.video_container import opened
from mvpose.footage.video.video_writer import repeat_video
from mvpose.models.detection.cards import locate, read_card
from mvpose.pipeline.job_settings import ReconstructJob
from mvpose.run.run_folder import RunFolder
from mvpose.tracking.circumstances import machine

REQUIREMENTS = (
    "pose2sim==0.10.49",
    "rtmlib==0.0.16",
    "openvino==2026.4.1",
    "onnxruntime==1.32.0",
    "opencv-python==5.0.0.93",
    "opencv-contrib-python==5.1.0.95",
    "numpy==2.4.6",
)
"""Pose2Sim, and what decides its speed."""
CAPTURE = "single_person"
NETWORKS = ("yolox_tiny_humanart", "rtmpose_s_halpe26")
JOB = "mvpose"
PARALLEL, SEQUENTIAL = "Pose2Sim", "Pose2Sim, one video at a time"
DECODING = "decoding alone"
SAMPLE_S = 0.5
"""Interval at which the CPU time of all processes of a contender is read; the time after the last reading is lost."""


@dataclass(frozen=True, kw_only=True)
class PeersBenchmark:
    """The whole job beside Pose2Sim on the same footage, networks and cores, and beside decoding alone."""

    folder: str = "peers"
    """Folder for the environment of Pose2Sim (2 GB) and the footage, which are kept for the next time."""
    frames: int = 300
    """Minimum number of frames; the 100 of the demo are repeated."""
    rounds: int = 2
    """Rounds of one turn of each contender."""
    workers: int = 2
    """Workers of the job, and cores of every contender."""
    flags: str = ""
    """More flags of `mvpose reconstruct`, such as --flags="--model none"."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class TurnCost:
    """What a turn took."""

    seconds: float
    core_seconds: float


def run(config: PeersBenchmark) -> dict[str, object]:
    """Print a table with one line per contender; returns all turns by contender.

    MvposeError names the step that failed: installing Pose2Sim, a turn of a contender, or one that left frames out.
    """
    folder = os.path.abspath(config.folder)
    os.makedirs(folder, exist_ok=True)
    with _cores(config.workers):
        python = pose2sim_environment(folder)
        archive, frames = repeated_footage(folder, config.frames)
        capture = os.path.join(archive, CAPTURE)
        contenders: dict[str, Callable[[str], TurnCost]] = {
            JOB: partial(_job, config, archive, frames, folder),
            PARALLEL: partial(_pose2sim, python, capture, frames, "auto", folder),
            SEQUENTIAL: partial(_pose2sim, python, capture, frames, "1", folder),
            DECODING: partial(_decoding, capture, frames, config.workers),
        }
        costs: dict[str, list[TurnCost]] = {name: [] for name in contenders}
        for number in range(config.rounds):
            for name, contender in contenders.items():
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    costs[name].append(contender(scratch))
                print(f"round {number + 1}: {name} {costs[name][-1].seconds:.1f} s", flush=True)
    for line in table(costs, frames * len(VIDEOS)):
        print(line)
    figures = {"machine": machine("cpu"), "frames": frames, "cameras": len(VIDEOS), "workers": config.workers}
    figures |= {"flags": config.flags, "turns": {name: [asdict(c) for c in turns] for name, turns in costs.items()}}
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def table(costs: Mapping[str, Sequence[TurnCost]], camera_frames: int) -> Iterator[str]:
    """Markdown: minimum seconds, minimum core-milliseconds per camera-frame, and the job's costs over these.

    The ratio of seconds is that of the minima, then that of the medians, which a busy machine moves more; that of the
    core-seconds hardly depends on it.
    """
    yield "| | seconds | core-ms per camera-frame | mvpose over it, seconds (medians) | core-seconds |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    own = costs[JOB]
    for name, turns in costs.items():
        seconds, own_s = [turn.seconds for turn in turns], [turn.seconds for turn in own]
        core_s, own_core_s = (min(turn.core_seconds for turn in each) for each in (turns, own))
        ratio = f"{min(own_s) / min(seconds):.2f} ({statistics.median(own_s) / statistics.median(seconds):.2f})"
        core_ms = f"{1e3 * core_s / camera_frames:.1f}"
        yield f"| {name} | {min(seconds):.1f} | {core_ms} | {ratio} | {own_core_s / core_s:.2f} |"


def pose2sim_environment(folder: str) -> str:
    """Python of the environment of Pose2Sim, which is made unless it is there in these versions."""
    environment = os.path.join(folder, "pose2sim")
    python, stamp = os.path.join(environment, "bin", "python"), os.path.join(environment, "requirements.txt")
    with suppress(FileNotFoundError), open(stamp) as file:
        if file.read().split() == list(REQUIREMENTS):
            return python
    log = os.path.join(folder, "install.log")
    print(f"Installing {REQUIREMENTS[0]} into {environment}", flush=True)
    measured("create an environment for Pose2Sim", [sys.executable, "-m", "venv", "--clear", environment], log)
    measured(f"install {REQUIREMENTS[0]} with pip", [python, "-m", "pip", "install", *REQUIREMENTS], log)
    with open(stamp, "w") as file:
        file.write("\n".join(REQUIREMENTS))
    return python


def repeated_footage(folder: str, minimum: int) -> tuple[str, int]:
    """(archive with the one capture, its number of frames)."""
    demo = make_demo_archive(os.path.join(folder, "demo"), os.environ.get("MVPOSE_FOOTAGE"))
    once = [os.path.join(demo, CAPTURE, video) for video in VIDEOS]
    length = min(probe(video, "").num_frames for video in once)
    times = math.ceil(minimum / length)
    archive = os.path.join(folder, str(times * length))
    if not os.path.isdir(archive):
        laid = os.path.join(tempfile.mkdtemp(dir=folder), "archive")
        calibration = CAPTURES[CAPTURE][1]
        for part in (calibration, *VIDEOS):
            os.makedirs(os.path.join(laid, CAPTURE, os.path.dirname(part)), exist_ok=True)
        shutil.copyfile(os.path.join(demo, CAPTURE, calibration), os.path.join(laid, CAPTURE, calibration))
        for video, source in zip(VIDEOS, once, strict=True):
            repeat_video(os.path.join(laid, CAPTURE, video), source, times)
        os.replace(laid, archive)
        os.rmdir(os.path.dirname(laid))
    return archive, times * length


@contextmanager
def _cores(number: int) -> Iterator[None]:
    """This process and those that it starts run on this number of cores. ConfigError if there are fewer."""
    there = os.sched_getaffinity(0)
    if len(there) < number:
        raise ConfigError(f"{number} workers need as many cores; there are {len(there)}.")
    os.sched_setaffinity(0, sorted(there)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def _job(config: PeersBenchmark, archive: str, frames: int, folder: str, scratch: str) -> TurnCost:
    output = os.path.join(scratch, "run")
    command = [sys.executable, "-m", "mvpose", "reconstruct", archive, "--output", output, "--tracking.no-enabled"]
    # Two clips per worker: a short capture would be one clip of one worker.
    clip_frames = min(ReconstructJob.clip_frames, math.ceil(frames / (2 * config.workers)))
    command += ["--workers", str(config.workers), "--clip-frames", str(clip_frames), *shlex.split(config.flags)]
    cost = measured("reconstruct the footage with mvpose", command, os.path.join(folder, "mvpose.log"))
    summary = RunFolder(output).summary()
    _require_all("mvpose", summary.frames if summary.figures else 0, frames)
    return cost


def _pose2sim(python: str, capture: str, frames: int, workers: str, folder: str, scratch: str) -> TurnCost:
    project = os.path.join(scratch, "project")
    shutil.copytree(capture, project, copy_function=os.link)
    networks: list[str] = []
    for card in map(read_card, NETWORKS):
        networks += [locate(card), *map(str, card.input_size)]
    # -P: the modules beside this one are not its own.
    command = [python, "-P", pose2sim_job.__file__, project, *networks, workers]
    others = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    log = os.path.join(folder, f"pose2sim_{workers}.log")
    what = "reconstruct the footage with Pose2Sim"
    cost = measured(what, command, log, cwd=project, env=others | {"MPLBACKEND": "Agg"})
    _require_all("Pose2Sim", triangulated_frames(project), frames)
    return cost


def triangulated_frames(project: str) -> int:
    """Number of frames in the TRC file of a project of Pose2Sim; 0 if there is none."""
    files = glob.glob(os.path.join(project, "pose-3d", "*.trc"))
    if not files:
        return 0
    with open(files[0]) as file:
        lines = file.readlines()
    return int(lines[2].split()[lines[1].split().index("NumFrames")])


def _require_all(who: str, found: int, frames: int) -> None:
    """Pose2Sim trims frames of high error off both ends; a tenth may be missing."""
    if found < 0.9 * frames:
        raise MvposeError(f"{who} reconstructed {found} of {frames} frames, so that its time means nothing.")


def _decoding(capture: str, frames: int, workers: int, _scratch: str) -> TurnCost:
    videos = [os.path.join(capture, video) for video in VIDEOS]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(os.path.getsize, videos, chunksize=1)  # starts the processes
        started = time.perf_counter()
        decoded = pool.map(_decoded, videos, chunksize=1)
        seconds = time.perf_counter() - started
    _require_all("PyAV", min(count for count, _ in decoded), frames)
    return TurnCost(seconds, sum(spent for _, spent in decoded))


def _decoded(video: str) -> tuple[int, float]:
    """Number of frames, and CPU seconds."""
    started = time.process_time()
    with opened(video) as (container, stream):
        return sum(1 for _ in container.decode(stream)), time.process_time() - started


def measured(
    what: str, command: list[str], log: str, cwd: str | None = None, env: Mapping[str, str] | None = None
) -> TurnCost:
    """Run a command with its output in `log`; the cost of it and of the processes that it starts.

    MvposeError, with the last line of the output, if it fails.
    """
    spent: dict[int, float] = {}
    started = time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=env)
        try:
            while process.poll() is None:
                _read_times(process.pid, spent)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_S)
        finally:
            process.kill()
    seconds = time.perf_counter() - started
    if process.returncode:
        with open(log, errors="replace") as file:
            last = [line.strip() for line in file if line.strip()][-1:]
        raise MvposeError(f"could not {what} (exit code {process.returncode}, all output in {log}): {' '.join(last)}")
    return TurnCost(seconds, sum(spent.values()))


def _read_times(pid: int, spent: dict[int, float]) -> None:
    """Note the CPU seconds so far of a process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                spent[each.pid] = times.user + times.system
