"""Callbacks from Ray Tune in the driver of a sweep: keep the records of trials and notify a listener."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

from ray import tune

from mvpose.training.tuning_space import decoded
from mvpose.training.tuning_trial import SweepJob, Trial, record_of, training_folder, write_record


@runtime_checkable
class Listener(Protocol):
    """Receives events of trials in the driver's process.

    Ray Tune stores it with its state, so it must be plain data. After an interruption, an event may arrive twice.
    """

    def began(self, trial: Trial) -> None:
        """A trial starts or resumes."""
        ...

    def on_figures(self, trial: Trial, figures: dict[str, float]) -> None:
        """A trial was validated; `figures` holds all values since the previous validation."""
        ...

    def ended(self, trial: Trial) -> None:
        """A trial finished, was stopped, or failed."""
        ...


class Records(tune.Callback):
    """Keeps the records of trials and notifies a listener.

    A record is written after the listener was notified, so a kill in between loses no event.
    """

    def __init__(self, job: SweepJob, listener: Listener) -> None:
        self._job, self._listener = job, listener
        self._since: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts or resumes."""
        settings = decoded(self._job.space, trial.config)
        folder = training_folder(self._job, trial.trial_id, settings)
        known = record_of(self._job.output, trial.trial_id) or Trial(
            id=trial.trial_id, settings=settings, output=folder
        )
        if known.status != "running":
            # Ray was killed before it recorded the end of this trial. The listener was already notified.
            return
        self._since[trial.trial_id] = time.monotonic()
        record = replace(known, settings=settings, output=folder)
        self._listener.began(record)
        write_record(self._job.output, record)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A validation. A resumed trial repeats earlier ones, which are ignored."""
        record = self._record(trial)
        if result["step"] > record.step and record.status == "running":
            point = (float(result["share"]), float(result["error"]))
            record = replace(record, step=int(result["step"]), curve=(*record.curve, point))
            record = replace(record, seconds=record.seconds + self._spent(trial.trial_id))
            self._listener.on_figures(record, result["figures"])
            write_record(self._job.output, record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, or the scheduler stopped it."""
        problem = trial.last_result.get("problem", "")
        arrived = trial.last_result.get("share", 0.0) >= 1.0
        self._end(trial, "failed" if problem else "finished" if arrived else "stopped", problem)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed too often."""
        self._end(trial, "failed", "its process was lost, or the training raised an error: see the Ray log.")

    def _end(self, trial: Any, status: Literal["finished", "stopped", "failed"], problem: str) -> None:
        record = self._record(trial)
        if record.status == "running":
            record = replace(record, status=status, problem=problem)
            self._listener.ended(record)
            write_record(self._job.output, record)

    def _record(self, trial: Any) -> Trial:
        record = record_of(self._job.output, trial.trial_id)
        assert record is not None
        return record

    def _spent(self, trial_id: str) -> float:
        before, now = self._since[trial_id], time.monotonic()
        self._since[trial_id] = now
        return now - before
