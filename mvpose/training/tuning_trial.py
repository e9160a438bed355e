"""One trial of a sweep: its record, kept by the driver, and the function that Ray Tune runs.

OUTPUT/trials/ID/trial.json   written only by the driver, at each validation and at the end
                 run/         the training, in the layout of `mvpose.training.training_run`

Each trial trains in its own folder. An interrupted trial resumes from its last checkpoint. If a trial ended but the
driver was killed before Ray recorded that, the trial reports the result from its record.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ray import tune

from mvpose.config import digest, structure
from mvpose.errors import MvposeError
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import absolute, exists, join, list_folder, name, read_text
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.feed import Feed
from mvpose.training.inheritance import bequeath, inherit
from mvpose.training.loop import TrainingError
from mvpose.training.metrics_log import Journal
from mvpose.training.training_config import TrainConfig
from mvpose.training.training_run import train
from mvpose.training.tuning_space import Space, applied, decoded

WORST_M = 1000.0
"""Error of a network that finds no joint. Schedulers and searchers need a finite number."""
RECORD = "trial.json"
AWAITED = 6000
"""Tenths of a second to wait for a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Record of a trial."""

    id: str
    settings: dict[str, Any]
    """Values of the space's settings."""
    output: str
    """Folder of the training."""
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    """stopped: by the scheduler."""
    problem: str = ""
    step: int = 0
    curve: tuple[tuple[float, float], ...] = field(default=())
    """(completed share of the training, lowest validation MPJPE so far in metres)."""
    seconds: float = 0.0
    """Total time, including all restarts."""

    @property
    def error_m(self) -> float:
        """Lowest validation MPJPE; infinite if no joint was found."""
        found = self.curve[-1][1] if self.curve else WORST_M
        return found if found < WORST_M else math.inf


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """The input of a trial."""

    config: TrainConfig
    space: Space
    output: str
    bequeaths: bool
    """Trials take over each other's weights (PBT), so each report includes a checkpoint."""


def record_of(output: str, trial_id: str) -> Trial | None:
    """The record of a trial, if it has started. The folder is in this sweep, even if the record names another."""
    uri = join(output, "trials", trial_id, RECORD)
    if not exists(uri):
        return None
    trial = structure(json.loads(read_text(uri)), Trial, uri)
    return replace(trial, id=trial_id, output=join(absolute(output), "trials", trial_id, name(trial.output)))


def write_record(output: str, trial: Trial) -> None:
    """Write the record of a trial."""
    write_whole(join(output, "trials", trial.id, RECORD), json.dumps(asdict(trial), indent=1).encode())


def ended_trials(output: str) -> list[Trial]:
    """Trials that have ended, best first."""
    folder = join(output, "trials")
    uris = list_folder(folder) if exists(folder) else []
    found = [record_of(output, uri.rstrip("/").rsplit("/", 1)[-1]) for uri in uris]
    return sorted((t for t in found if t is not None and t.status != "running"), key=lambda t: (t.error_m, t.id))


def training_folder(job: SweepJob, trial_id: str, settings: dict[str, Any]) -> str:
    """The folder in which a trial trains; with PBT, one per set of values."""
    life = f"run-{digest(settings)[:8]}" if job.bequeaths else "run"
    return join(job.output, "trials", trial_id, life)


def trial_function(job: SweepJob) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune runs in a separate process."""

    def trial(sampled: dict[str, Any]) -> None:
        run_trial(job, decoded(job.space, sampled), tune.get_context().get_trial_id() or "")

    return trial


def run_trial(job: SweepJob, settings: dict[str, Any], trial_id: str) -> None:
    """Start or resume the training. Each validation is reported to Ray Tune, which may then end the process."""
    known = record_of(job.output, trial_id)
    if known is not None and known.status != "running":
        share, error = known.curve[-1] if known.curve else (0.0, WORST_M)
        tune.report({"error": error, "share": share, "step": known.step, "problem": known.problem})
        return
    output = training_folder(job, trial_id, settings)
    teller = _Teller(job, output)
    try:
        config = applied(job.config, settings)
        inherited = tune.get_checkpoint()
        if inherited is not None:
            with inherited.as_directory() as folder:
                inherit(config, folder, output)
        teller.total = Feed.open(config).total_steps
        # Repeat earlier validations of this trial: the scheduler of a restored sweep does not know them.
        for line in Journal(output).read():
            teller.report_line(line["step"], line)
        train(config, output, teller.report_line)
    except MvposeError as error:
        # Ray must not retry: the same settings would fail again.
        tune.report({"error": WORST_M, "share": 0.0, "step": 0, "problem": str(error)})
        return
    # Report the last validation only after the model is written, so that Ray cannot stop the trial before that.
    teller.report()


class _Teller:
    """Reports the figures of a training to Ray Tune."""

    def __init__(self, job: SweepJob, output: str) -> None:
        self.job, self.output, self.total = job, output, 0
        self._lowest = WORST_M
        self._figures: dict[str, float] = {}
        self._result: dict[str, Any] = {}

    def report_line(self, step: int, figures: dict[str, Any]) -> None:
        """Collect figures, and report them at every validation but the last."""
        self._figures |= {name: value for name, value in figures.items() if name != "step" and value is not None}
        if "validation/mpjpe_m" not in figures:
            return
        error = figures["validation/mpjpe_m"]
        if error is not None and math.isfinite(error):
            self._lowest = min(self._lowest, error)
        self._result = {"error": self._lowest, "share": step / self.total, "step": step, "figures": self._figures}
        self._figures = {}
        if step < self.total:
            self.report()

    def report(self) -> None:
        """Report the latest validation to Ray Tune."""
        if not self.job.bequeaths:
            tune.report(self._result)
            return
        with tempfile.TemporaryDirectory() as folder:
            self._await_checkpoint()
            bequeath(self.output, os.path.join(folder, "checkpoints"))
            tune.report(self._result, checkpoint=tune.Checkpoint.from_directory(folder))

    def _await_checkpoint(self) -> None:
        """Wait for the checkpoint of the latest validation: several workers write it while they train on."""
        checkpoints = Checkpoints(join(self.output, "checkpoints"), 1)
        for _ in range(AWAITED):
            if checkpoints.latest().step >= self._result["step"]:
                return
            time.sleep(0.1)
        raise TrainingError(f"{self.output} has no checkpoint of step {self._result['step']}.")
