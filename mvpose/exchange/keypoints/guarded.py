"""Reading a file in a process of its own, since libhdf5 loops forever on some damaged files and none can stop it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from mvpose.errors import ConfigError, MvposeError

T = TypeVar("T")

SECONDS = 10.0
SECONDS_A_MEGABYTE = 1.0
"""Far above what a disk or a decompressor takes."""


def guarded(read: Callable[[bytes], T], data: bytes) -> T:
    """`read(data)` in a forked process. ConfigError if it takes too long or its process dies; errors are passed on."""
    patience = SECONDS + SECONDS_A_MEGABYTE * len(data) / 1e6
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(read, data, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            raise ConfigError(f"it is damaged: reading it does not end (given up after {patience:.0f} s).")
        answer, error = ours.recv()
    except EOFError as error:
        raise ConfigError("it is damaged: the process that read it died.") from error
    finally:
        child.kill()
        child.join()
    if error is not None:
        raise error
    return answer


def _answer(read: Callable[[bytes], T], data: bytes, answers: Connection) -> None:
    try:
        answers.send((read(data), None))
    except (MvposeError, OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        # An error of h5py's may not survive the way; its sentence does.
        answers.send((None, error if isinstance(error, MvposeError) else ConfigError(f"it cannot be read: {error}")))
