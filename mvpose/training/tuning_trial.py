"""One trial of a sweep: the record that the driver keeps of it, and the function that Ray Tune runs for it.

OUTPUT/trials/ID/trial.json   written by the driver alone, at each validation and at the end
                 run/         the training, as `mvpose.training.run` lays it out

A trial is a training of its own folder. So one that was cut off goes on from its last checkpoint, and one that had
ended when the driver was killed, before Ray wrote that down, answers from its record.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ray import tune

from mvpose.archive.commits import write_whole
from mvpose.archive.locations import absolute, exists, join, list_folder, name, read_text
from mvpose.config import digest, structure
from mvpose.errors import MvposeError
from mvpose.training.config import TrainConfig
from mvpose.training.feed import Feed
from mvpose.training.inheritance import bequeath, inherit
from mvpose.training.progress import Journal
from mvpose.training.run import train
from mvpose.training.tuning_space import Space, applied, decoded

WORST_M = 1000.0
"""Stands for the error of a network that finds no joint: schedulers and searchers want a number."""
RECORD = "trial.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is known of a trial."""

    id: str
    settings: dict[str, Any]
    """Values of the space's settings."""
    output: str
    """Folder of the training."""
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    """stopped: given up by the scheduler."""
    problem: str = ""
    step: int = 0
    curve: tuple[tuple[float, float], ...] = field(default=())
    """(share of the training done, lowest validation MPJPE so far in metres)."""
    seconds: float = 0.0
    """Time spent, over all its lives."""

    @property
    def error_m(self) -> float:
        """Lowest validation MPJPE; infinite where no joint was found."""
        found = self.curve[-1][1] if self.curve else WORST_M
        return found if found < WORST_M else math.inf


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """What a trial is told of its sweep."""

    config: TrainConfig
    space: Space
    output: str
    bequeaths: bool
    """Trials take over each other's weights (PBT), so each report comes with a checkpoint."""


def record_of(output: str, trial_id: str) -> Trial | None:
    """The record of a trial, if it has begun; its folder is the one in this sweep, whatever the record says."""
    uri = join(output, "trials", trial_id, RECORD)
    if not exists(uri):
        return None
    trial = structure(json.loads(read_text(uri)), Trial, uri)
    return replace(trial, id=trial_id, output=join(absolute(output), "trials", trial_id, name(trial.output)))


def write_record(output: str, trial: Trial) -> None:
    """Keep what is known of a trial."""
    write_whole(join(output, "trials", trial.id, RECORD), json.dumps(asdict(trial), indent=1).encode())


def ended_trials(output: str) -> list[Trial]:
    """Trials that will not go on, best first."""
    folder = join(output, "trials")
    uris = list_folder(folder) if exists(folder) else []
    found = [record_of(output, uri.rstrip("/").rsplit("/", 1)[-1]) for uri in uris]
    return sorted((t for t in found if t is not None and t.status != "running"), key=lambda t: (t.error_m, t.id))


def training_folder(job: SweepJob, trial_id: str, settings: dict[str, Any]) -> str:
    """Where a trial trains; where settings change on the way, each set of them has its own."""
    life = f"run-{digest(settings)[:8]}" if job.bequeaths else "run"
    return join(job.output, "trials", trial_id, life)


def trial_function(job: SweepJob) -> Callable[[dict[str, Any]], None]:
    """What Ray Tune runs, in a process of its own."""

    def trial(sampled: dict[str, Any]) -> None:
        run_trial(job, decoded(job.space, sampled), tune.get_context().get_trial_id() or "")

    return trial


def run_trial(job: SweepJob, settings: dict[str, Any], trial_id: str) -> None:
    """Train, or go on; each validation is reported to Ray Tune, which may end the process there."""
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
        # What an earlier life of this trial found out: the scheduler of a restored sweep has not heard of it.
        for line in Journal(output).read():
            teller.tell(line["step"], line)
        train(config, output, teller.tell)
    except MvposeError as error:
        # Settings that cannot be trained fail again however often they are tried: Ray is not to retry them.
        tune.report({"error": WORST_M, "share": 0.0, "step": 0, "problem": str(error)})
        return
    # The last validation is told once the model is written: a trial that has arrived is not to be stopped before.
    teller.report()


class _Teller:
    """Turns the figures of a training into reports to Ray Tune."""

    def __init__(self, job: SweepJob, output: str) -> None:
        self.job, self.output, self.total = job, output, 0
        self._lowest = WORST_M
        self._figures: dict[str, float] = {}
        self._result: dict[str, Any] = {}

    def tell(self, step: int, figures: dict[str, Any]) -> None:
        """Keep figures; report them at a validation before the last."""
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
        """Hand the last validation to Ray Tune."""
        if not self.job.bequeaths:
            tune.report(self._result)
            return
        with tempfile.TemporaryDirectory() as folder:
            bequeath(self.output, os.path.join(folder, "checkpoints"))
            tune.report(self._result, checkpoint=tune.Checkpoint.from_directory(folder))
