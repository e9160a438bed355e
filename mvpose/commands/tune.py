"""`mvpose tune`: search the settings of a training, and record every trial in MLflow."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from mvpose import tracking
from mvpose.archive.commits import write_whole
from mvpose.archive.locations import absolute, exists, join, name
from mvpose.archive.output_folder import require_output
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.report.figures import to_png
from mvpose.report.sweep_plots import Scale, importance_bars, parallel_coordinates
from mvpose.tracking import TrackingConfig
from mvpose.tracking.registry import register
from mvpose.training.config import ComputeConfig, TrainConfig
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import with_placed_weights
from mvpose.training.progress import told
from mvpose.training.run import finished, train
from mvpose.training.tuning import SweepConfig, begin_sweep, check_sweep, sweep, training_of
from mvpose.training.tuning_results import importance, numbered, trials_json, trials_markdown
from mvpose.training.tuning_space import Choice, Integer, LogUniform, Space, applied
from mvpose.training.tuning_trial import Trial, ended_trials

TABLE = "trials.json"
"""Written last: a sweep that has it is complete."""


@dataclass(frozen=True, kw_only=True)
class Tune(TrainConfig):
    """Search settings of a training. Run the same command again to go on after an interruption: no trial that has
    ended is repeated. The space is a table of the TOML file."""

    space: Annotated[Space, tyro.conf.Suppress] = field(default_factory=dict)
    """Ranges by the dotted names of settings: uniform, loguniform, integer or choice."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    output: str = ""
    """Folder or s3:// URI. With Ray on several machines it must be one that all of them see."""
    retrain_epochs: int = 0
    """Train anew with the best trial's settings, for so many epochs, into OUTPUT/best."""
    register: str = ""
    """Register the best network under this name: of the best trial, or what was trained anew."""
    compute: Annotated[ComputeConfig, tyro.conf.arg(name="")] = field(default_factory=ComputeConfig)
    """Of each trial. With one worker a trial trains in its own process, without Ray Train."""
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(experiment="tune"))
    dry_run: bool = False
    """Say what would be searched on what, and do nothing."""

    def training(self) -> TrainConfig:
        """What each trial trains, before its own settings."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


def run(command: Tune) -> int:
    """Exit code 0; what goes wrong is an error."""
    if not command.data or not command.output:
        raise ConfigError(
            "say which table and which output: mvpose tune --config jobs/configs/tune-small-canonical-fusion.toml "
            "--data TABLE --output OUT"
        )
    config, plan, output = command.training(), command.sweep, command.output
    check_sweep(config, command.space, plan)
    print(
        f"Searching {', '.join(command.space)} of {config.method.method} by {plan.trials} trials "
        f"({plan.searcher}, {plan.scheduler}) on {config.data}."
    )
    if command.dry_run:
        return 0
    require_output(output, "mvpose tune", "sweep.json", "initial")
    command = replace(command, method=with_placed_weights(config.method, command.tracking, output))
    config = command.training()
    sweep_id = begin_sweep(config, command.space, plan, output)
    if exists(join(output, TABLE)):
        print("The trials have all ended: nothing of them is done again.")
    else:
        _search(command, sweep_id)
    trials = ended_trials(output)
    print(trials_markdown(trials, command.space), end="")
    print(f"Table and pictures: {join(output, TABLE)}, parallel.png, importance.png")
    if command.retrain_epochs or command.register:
        model = _best_model(command, trials[0], sweep_id)
        print(f"Best network: {join(model, 'model')}")
        if command.register:
            version = register(command.tracking, join(model, "model"), command.register)
            print(f"{version.uri}, alias challenger. Next: mvpose promote {version.name} {version.version}")
    return 0


def _search(command: Tune, sweep_id: str) -> None:
    """The sweep within its run, of which each trial's run is a child; then its table and pictures."""
    config, store = command.training(), command.tracking
    settings = flatten(config) | flatten(command.space, "space.") | flatten(command.sweep, "sweep.")
    tracking.start_run(
        store, name(command.output), settings, tags={"mvpose.output": absolute(command.output)}, run_id=sweep_id
    )
    succeeded = False
    try:
        trials = sweep(config, command.space, command.sweep, command.output, Recorder(config, store, sweep_id))
        files = _results(command.space, trials)
        with tempfile.TemporaryDirectory() as folder:
            for file, content in files.items():
                write_whole(os.path.join(folder, file), content)
            tracking.log_files(store, sweep_id, folder, "sweep")
        if trials[0].curve:
            tracking.log_figures(store, sweep_id, {"best/mpjpe_m": trials[0].error_m})
        tracking.log_tags(store, sweep_id, {"mvpose.best_trial": trials[0].id})
        for file, content in files.items():
            write_whole(join(command.output, file), content)
        succeeded = True
    finally:
        tracking.end_run(store, sweep_id, succeeded=succeeded)
    print(tracking.described(store, sweep_id))


def _results(space: Space, trials: Sequence[Trial]) -> dict[str, bytes]:
    """Files by name, the one that says the sweep is complete last."""
    lines = parallel_coordinates(
        scales(space, trials), [t.error_m for t in trials], [t.status == "finished" for t in trials]
    )
    return {
        "parallel.png": to_png(lines),
        "importance.png": to_png(importance_bars(importance(trials, space), len(trials))),
        "trials.md": trials_markdown(trials, space).encode(),
        TABLE: trials_json(trials).encode(),
    }


def scales(space: Space, trials: Sequence[Trial]) -> list[Scale]:
    """The space as scales of parallel coordinates."""
    return [
        Scale(
            path,
            [numbered(values, trial.settings[path]) for trial in trials],
            logarithmic=isinstance(values, LogUniform),
            options=tuple(str(option) for option in values.options) if isinstance(values, Choice) else (),
            whole=isinstance(values, Integer),
            ends=None if isinstance(values, Choice) else (float(values.low), float(values.high)),
        )
        for path, values in space.items()
    ]


def _best_model(command: Tune, best: Trial, sweep_id: str) -> str:
    """Folder of a finished training with the best trial's settings: anew, or the trial's own, which is completed where
    the scheduler had stopped it."""
    if best.status == "failed" or not best.error_m < float("inf"):
        raise ConfigError("no trial found a joint: there is nothing to train anew or to register. Widen the space.")
    config = training_of(best, command.training(), command.space, command.sweep, command.output)
    if not command.retrain_epochs:
        if not finished(best.output):
            print(f"Completing trial {best.id}, which was stopped early.")
            train(config, best.output)
        return best.output
    config = replace(config, optimisation=replace(config.optimisation, epochs=command.retrain_epochs, steps=0))
    output = join(command.output, "best")
    if not finished(output):
        total = Feed.open(config).total_steps
        store, run_id = command.tracking, f"{sweep_id}best"
        tracking.start_run(store, "best, anew", flatten(config), parent=sweep_id, run_id=run_id)

        def tell(step: int, figures: dict[str, float]) -> None:
            print(told(step, total, figures), flush=True)
            tracking.log_metrics(store, run_id, figures, step)

        succeeded = False
        try:
            train(config, output, tell)
            succeeded = True
        finally:
            tracking.end_run(store, run_id, succeeded=succeeded)
    return output


@dataclass(frozen=True)
class Recorder:
    """Tells the terminal and MLflow of trials; each is a child of the sweep's run."""

    config: TrainConfig
    store: TrackingConfig
    sweep_id: str

    def began(self, trial: Trial) -> None:
        """A run for the trial, or the one it had. The settings of PBT change on the way, so tags hold the last ones."""
        tracking.start_run(
            self.store,
            trial.id,
            flatten(applied(self.config, trial.settings)),
            tags={"mvpose.settings": json.dumps(trial.settings), "mvpose.output": trial.output},
            parent=self.sweep_id,
            run_id=self._run(trial),
        )
        print(f"{trial.id}  {', '.join(f'{path} {value}' for path, value in trial.settings.items())}", flush=True)

    def told(self, trial: Trial, figures: dict[str, float]) -> None:
        """One point of each curve."""
        tracking.log_metrics(self.store, self._run(trial), figures, trial.step)
        print(f"{trial.id}  step {trial.step}  lowest MPJPE {1000 * trial.error_m:.1f} mm", flush=True)

    def ended(self, trial: Trial) -> None:
        """The run is closed. A trial that was given up has done what it was to do."""
        tracking.log_tags(self.store, self._run(trial), {"mvpose.trial_status": trial.status})
        if trial.curve:
            tracking.log_figures(self.store, self._run(trial), {"best/mpjpe_m": trial.error_m})
        tracking.end_run(self.store, self._run(trial), succeeded=trial.status != "failed")
        print(f"{trial.id}  {trial.status}{f': {trial.problem}' if trial.problem else ''}", flush=True)

    def _run(self, trial: Trial) -> str:
        return f"{self.sweep_id}{trial.id.replace('_', '')}"
