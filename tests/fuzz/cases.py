"""Mutated files through their doors: case k is the same on every machine, and a child process runs it.

python -m tests.fuzz.cases --count 10000        what came of them, and every finding with its case
python -m tests.fuzz.cases --only 4711          one case in this process, with its traceback
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from mvpose.errors import MvposeError
from tests.fuzz.doors import Door, doors
from tests.fuzz.mutations import mutated

SECONDS_A_CASE = 20.0
MEMORY_BYTES = 3 << 30
"""That a child may map beyond what it has mapped at its start."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `finding` is empty where it is as it should be."""

    case: int
    family: str
    file: str
    damage: str
    result: str
    finding: str = ""


def run_case(case: int, open_doors: list[Door]) -> Outcome:
    """Mutate one file, read it, put it back."""
    rng = np.random.default_rng(case)
    door = open_doors[rng.integers(len(open_doors))]
    file = door.files[rng.integers(len(door.files))]
    with open(file, "rb") as opened:
        sound = opened.read()
    damaged, damage = mutated(sound, rng)
    told = (case, door.family, os.path.basename(file), damage)
    try:
        _put(file, damaged)
        door.read(damage)
    except (MvposeError, ValueError) as error:
        return Outcome(*told, "refused", "" if str(error).strip() else f"no sentence: {error!r}")
    except Exception:  # noqa: BLE001 whatever else comes out is what is looked for
        return Outcome(*told, "finding", traceback.format_exc(limit=-6))
    finally:
        _put(file, sound)
    return Outcome(*told, "read")


def _put(file: str, data: bytes) -> None:
    with open(file, "wb") as opened:
        opened.write(data)


def run_cases(first: int, count: int) -> Iterator[Outcome]:
    """Cases [first, first + count) in a child; one that dies or hangs is a finding, and another goes on after it."""
    case, stop = first, first + count
    while case < stop:
        with _child(case, stop) as connection:
            connection.recv()  # set up: EOFError where a door does not open to sound files
            while case < stop:
                if not connection.poll(SECONDS_A_CASE):
                    outcome = Outcome(case, "", "", "", "finding", f"hangs for more than {SECONDS_A_CASE:g} s")
                else:
                    outcome = _received(connection, case)
                yield outcome
                case += 1
                if not outcome.family:
                    break


def _received(connection: Connection, case: int) -> Outcome:
    try:
        return connection.recv()
    except EOFError:
        return Outcome(case, "", "", "", "finding", "the process died")


@contextlib.contextmanager
def _child(first: int, stop: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(first, stop, theirs))  # not a daemon: doors may start processes
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        child.kill()
        child.join()


def _run(first: int, stop: int, results: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        open_doors = doors(folder)
        # FFmpeg, HDF5 and OpenCV tell of damage on stderr, each in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        limit = mapped + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        results.send(None)
        for case in range(first, stop):
            results.send(run_case(case, open_doors))


def main() -> int:
    """Exit code 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    if asked.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(run_case(asked.only, doors(folder)))
        return 0
    results: Counter[tuple[str, str]] = Counter()
    findings = 0
    for outcome in run_cases(asked.first, asked.count):
        results[outcome.family, outcome.result] += 1
        if outcome.finding:
            findings += 1
            print(f"{outcome.case} {outcome.family} {outcome.file}, {outcome.damage}: {outcome.finding}", flush=True)
    for (family, result), number in sorted(results.items()):
        print(f"{family:14} {result:8} {number:6}")
    print(f"{results.total()} mutated files, {findings} findings")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
