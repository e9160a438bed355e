"""`mvpose reconstruct` in processes of their own, forked from one that has imported it: 3 s of CPU time less each."""

import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable

from mvpose.cli import main
from mvpose.pipeline.worker import StageSpec
from mvpose.records import Kind
from tests.pipeline import coded_footage

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["__main__", "mvpose.cli", "mvpose.commands.reconstruct", "mvpose.scenes"])


def nothing() -> None:
    """Leaves a driver as it is."""


def jumping_clock() -> None:
    """Ten years to and fro at every look at it."""
    real, chance = time.time, random.Random(7)
    time.time = lambda: real() + chance.uniform(-3e8, 3e8)
    time.time_ns = lambda: int(time.time() * 1e9)


def hasty() -> None:
    """The time limit holds for the second clip alone: a busy machine makes any of the others late."""
    limit = StageSpec.timeout_s

    def timeout_s(spec: StageSpec, task) -> float:
        return limit(spec, task) if (spec.kind, task.clip.start) == (Kind.KEYPOINTS, 10) else math.inf

    StageSpec.timeout_s = timeout_s


class Driver:
    """One process, with the interface of `subprocess.Popen`."""

    def __init__(self, arguments: list[str], environment: dict[str, str], before: Callable[[], None]) -> None:
        self._printed = tempfile.TemporaryDirectory()
        arrived = (arguments, environment, self._printed.name, before)
        self._process = FORKED.Process(target=drive, args=arrived, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self) -> tuple[bytes, bytes]:
        """What it printed by its end, on both streams."""
        self._process.join()
        return self._read(1), self._read(2)

    def _read(self, stream: int) -> bytes:
        with open(os.path.join(self._printed.name, str(stream)), "rb") as file:
            return file.read()


def start_driver(
    archive: str, output: str, *flags: str, before: Callable[[], None] = nothing, **environment: str
) -> Driver:
    """The driver of a job on the coded footage in clips of 10 frames; `before` is called in it first."""
    arguments = ["reconstruct", archive, "--output", output, "--clip-frames", "10"]
    arguments += ["--detector.detector", coded_footage.DETECTOR, "--tracking.no-enabled", *flags]
    return Driver(arguments, os.environ | {"PYTHONPATH": REPOSITORY} | environment, before)


def drive(arguments: list[str], environment: dict[str, str], printed: str, before: Callable[[], None]) -> None:
    """What the process does."""
    for stream in (1, 2):
        os.dup2(os.open(os.path.join(printed, str(stream)), os.O_CREAT | os.O_WRONLY), stream)
    os.chdir(REPOSITORY)
    os.environ.clear()
    os.environ.update(environment)
    # A suite that a shell started in the background ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["mvpose", *arguments]
    before()
    main()


def wait_for_commits(driver: Driver, output: str, kind: str, number: int) -> None:
    """Until there are so many commits of a kind."""
    folder = os.path.join(output, "commits", kind)
    while sum(len(files) for _, _, files in os.walk(folder)) < number:
        assert driver.poll() is None, f"it ended before there were {number} commits of {kind}"
        time.sleep(0.1)
