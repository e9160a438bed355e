"""A stage that meets the fault it is told to, for `test_engine.py`.

Each worker that dies is replaced by one that imports this module anew: it imports no torch, which takes 1.4 s.
"""

import math
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pyarrow as pa

from mvpose.errors import ResultsError, WeightsError
from mvpose.pipeline.worker import Outcome, StageSpec
from mvpose.records import CaptureTasks, Clip, Task

ALL = 1000


def plan_of(capture_id: str) -> CaptureTasks:
    """A capture of the clips that its name says."""
    clips = tuple(Clip(capture_id, i * 10, i * 10 + 10) for i in range(int(capture_id.split("_")[-1])))
    return CaptureTasks(capture_id=capture_id, clips=clips, keypoints="k" * 16, poses="f" * 16)


MEETING = threading.Barrier(2)


class TroubledStage:
    """Does what its clip number is told to do, first time or every time."""

    def __init__(self, marks: str, **behaviour: int) -> None:
        self.marks, self.behaviour = marks, behaviour
        if self.told("makes") == 0:
            raise WeightsError("weights are not at /weights: run `mvpose models fetch`")

    def told(self, fault: str) -> int:
        """The number of the clip that meets a fault."""
        return self.behaviour.get(fault, -1)

    def __call__(self, task: Task) -> Outcome:
        number = task.clip.start // 10
        mark = os.path.join(self.marks, f"{number}")
        with open(mark, "a") as file:
            file.write("x")
        if self.told("slow") == 1:
            time.sleep(0.02)
        if self.told("meets") == 1:
            MEETING.wait()
        if number == self.told("kill_always") or (number == self.told("kill_once") and os.path.getsize(mark) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.told("raises") or self.told("raises") == ALL:
            raise RuntimeError(f"CUDA error: an illegal memory access was encountered at clip {number}")
        if number == self.told("full"):
            raise ResultsError("cannot write: No space left on device")
        if number == self.told("hang"):
            with open(os.path.join(self.marks, "fifo")) as never_written:
                never_written.read()
        if number == self.told("greedy"):
            self.grow_until_killed()
        if number == self.told("refused_memory"):
            limit = psutil.Process().memory_info().vms + 2**28
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
            np.ones(2**30, np.uint8)
        return Outcome(pa.table({"frame": list(range(task.clip.start, task.clip.stop))}), {"counting": 0.1})

    def grow_until_killed(self) -> None:
        with open(os.path.join(self.marks, "greedy"), "w") as file:
            file.write(str(os.getpid()))
        held = [np.ones(2**26, np.uint8) for _ in range(8)]
        threading.Event().wait()
        del held


@dataclass(frozen=True, kw_only=True)
class HastySpec(StageSpec):
    """Gives a second to the clip that hangs, and all the time to the others: a busy machine makes any of them late."""

    def timeout_s(self, task: Task) -> float:
        """Time limit of a task, in seconds."""
        return 1.0 if task.clip.start // 10 == self.arguments.get("hang") else math.inf
