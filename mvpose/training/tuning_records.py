"""What the driver of a sweep hears of its trials from Ray Tune: it keeps their records, and tells a listener."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

from ray import tune

from mvpose.training.tuning_space import decoded
from mvpose.training.tuning_trial import SweepJob, Trial, record_of, training_folder, write_record


@runtime_checkable
class Listener(Protocol):
    """Is told of trials in the driver's process. It is kept in Ray Tune's state, so it must be plain data. After an
    interruption it may hear a thing twice."""

    def began(self, trial: Trial) -> None:
        """A trial starts, or goes on."""
        ...

    def on_figures(self, trial: Trial, figures: dict[str, float]) -> None:
        """A validation of a trial, and what was measured since the one before."""
        ...

    def ended(self, trial: Trial) -> None:
        """A trial has finished, was stopped, or failed."""
        ...


class Records(tune.Callback):
    """Keeps the records of trials, and tells a listener. A record is written after its news were told, so nothing is
    lost that a kill cuts off in between."""

    def __init__(self, job: SweepJob, listener: Listener) -> None:
        self._job, self._listener = job, listener
        self._since: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or goes on."""
        settings = decoded(self._job.space, trial.config)
        folder = training_folder(self._job, trial.trial_id, settings)
        known = record_of(self._job.output, trial.trial_id) or Trial(
            id=trial.trial_id, settings=settings, output=folder
        )
        if known.status != "running":
            # Ray was killed before it wrote down that this trial had ended: the listener was told of it then.
            return
        self._since[trial.trial_id] = time.monotonic()
        record = replace(known, settings=settings, output=folder)
        self._listener.began(record)
        write_record(self._job.output, record)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A validation; those that were heard before are repeated by a trial that goes on."""
        record = self._record(trial)
        if result["step"] > record.step and record.status == "running":
            point = (float(result["share"]), float(result["error"]))
            record = replace(record, step=int(result["step"]), curve=(*record.curve, point))
            record = replace(record, seconds=record.seconds + self._spent(trial.trial_id))
            self._listener.on_figures(record, result["figures"])
            write_record(self._job.output, record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has come to its end, or the scheduler has given it up."""
        problem = trial.last_result.get("problem", "")
        arrived = trial.last_result.get("share", 0.0) >= 1.0
        self._end(trial, "failed" if problem else "finished" if arrived else "stopped", problem)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial was lost too often."""
        self._end(trial, "failed", "its process was lost, or the training raised an error: see the log of Ray.")

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
