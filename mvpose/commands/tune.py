"""`mvpose tune`: search training settings and record every trial in MLflow."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvpose import tracking
from mvpose.commands.network_flags import Tune
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.report.figures import to_png
from mvpose.report.page import PageImage
from mvpose.report.sweep_plots import Scale, error_curves, importance_bars, parallel_coordinates, sweep_page
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import absolute, exists, join, name
from mvpose.storage.output_folder import require_output
from mvpose.tracking import TrackingConfig
from mvpose.tracking.registry import register
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import with_placed_weights
from mvpose.training.metrics_log import progress_line
from mvpose.training.training_config import TrainConfig
from mvpose.training.training_run import finished, train
from mvpose.training.tuning import begin_sweep, check_sweep, sweep, training_of
from mvpose.training.tuning_results import importance, numbered, recipe, trial_rows, trials_json, trials_markdown
from mvpose.training.tuning_space import Choice, Integer, LogUniform, Space, applied
from mvpose.training.tuning_trial import WORST_M, Trial, ended_trials

IMAGES = {
    "parallel": (
        "Settings and errors",
        "Each line is a trial, from its settings at the left to its error.",
    ),
    "importance": (
        "Settings that matter",
        "Share of the error's variance that a setting explains (fANOVA). With few trials this is a guess.",
    ),
    "curves": ("Errors during training", "Trials that end early were stopped by the scheduler."),
}
TABLE = "trials.json"
"""Written last: its presence marks a complete sweep."""


def run(command: Tune) -> int:
    """Exit code 0; failures raise."""
    if not command.data or not command.output:
        raise ConfigError(
            "missing data or output: mvpose tune --config jobs/configs/tune-small-canonical-fusion.toml "
            "--data TABLE --output OUT"
        )
    config, plan, output = command.training(), command.sweep, command.output
    check_sweep(config, command.space, plan)
    print(
        f"Searching {', '.join(command.space)} of {config.method.method} with {plan.trials} trials "
        f"({plan.searcher}, {plan.scheduler}) on {config.data}."
    )
    if command.dry_run:
        return 0
    require_output(output, "mvpose tune", "sweep.json", "initial")
    command = with_placed_weights(command, command.tracking, output)
    config = command.training()
    sweep_id = begin_sweep(config, command.space, plan, output)
    if exists(join(output, TABLE)):
        print("All trials have ended: none is repeated.")
    else:
        _search(command, sweep_id)
    trials = ended_trials(output)
    print(trials_markdown(trials, command.space), end="")
    print(f"Page: {join(output, 'index.html')}. Recipe of the best trial: {join(output, 'best.toml')}")
    if command.retrain_epochs or command.register:
        model = _best_model(command, trials[0], sweep_id)
        print(f"Best network: {join(model, 'model')}")
        if command.register:
            version = register(command.tracking, join(model, "model"), command.register)
            print(f"{version.uri}, alias challenger. Next: mvpose promote {version.name} {version.version}")
    return 0


def _search(command: Tune, sweep_id: str) -> None:
    """Run the sweep in its MLflow run, with a child run per trial; then write its table and images."""
    config, store = command.training(), command.tracking
    settings = flatten(config) | flatten(command.space, "space.") | flatten(command.sweep, "sweep.")
    tracking.start_run(
        store, name(command.output), settings, tags={"mvpose.output": absolute(command.output)}, run_id=sweep_id
    )
    succeeded = False
    try:
        trials = sweep(config, command.space, command.sweep, command.output, Recorder(config, store, sweep_id))
        best = training_of(trials[0], config, command.space, command.sweep, command.output)
        files = _results(name(command.output), command.space, trials, replace(best, compute=config.compute))
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


def _results(title: str, space: Space, trials: Sequence[Trial], best: TrainConfig) -> dict[str, bytes]:
    """Files by name; the one that marks the sweep as complete comes last."""
    lines = parallel_coordinates(
        scales(space, trials), [t.error_m for t in trials], [t.status == "finished" for t in trials]
    )
    bars = importance_bars(importance(trials, space), len(trials))
    curves = error_curves([t.curve for t in trials], WORST_M)
    plots = {name: to_png(f) for name, f in {"parallel": lines, "importance": bars, "curves": curves}.items()}
    images = [PageImage(IMAGES[name][0], IMAGES[name][1], "image/png", data) for name, data in plots.items()]
    ended = Counter(t.status for t in trials)
    figures = {"trials": len(trials), **ended, "MPJPE_mm": 1000 * trials[0].error_m}
    toml = recipe(best)
    return {
        **{f"{name}.png": data for name, data in plots.items()},
        "best.toml": toml.encode(),
        "index.html": sweep_page(title, figures, images, trial_rows(trials, space), toml).encode(),
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
    """Folder of a finished training with the best trial's settings: retrained, or the trial itself, completed if the
    scheduler stopped it."""
    if best.status == "failed" or not best.error_m < float("inf"):
        raise ConfigError("no trial found any joint, so there is nothing to retrain or register: widen the space.")
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
        tracking.start_run(store, "best, retrained", flatten(config), parent=sweep_id, run_id=run_id)

        def report_line(step: int, figures: dict[str, float]) -> None:
            print(progress_line(step, total, figures), flush=True)
            tracking.log_metrics(store, run_id, figures, step)

        succeeded = False
        try:
            train(config, output, report_line)
            succeeded = True
        finally:
            tracking.end_run(store, run_id, succeeded=succeeded)
    return output


@dataclass(frozen=True)
class Recorder:
    """Reports trials to the terminal and MLflow; each trial is a child of the sweep's run."""

    config: TrainConfig
    store: TrackingConfig
    sweep_id: str

    def began(self, trial: Trial) -> None:
        """Start or reopen the trial's run. PBT changes settings during training, so tags hold the latest ones."""
        tracking.start_run(
            self.store,
            trial.id,
            flatten(applied(self.config, trial.settings)),
            tags={"mvpose.settings": json.dumps(trial.settings), "mvpose.output": trial.output},
            parent=self.sweep_id,
            run_id=self._run(trial),
        )
        print(f"{trial.id}  {', '.join(f'{path} {value}' for path, value in trial.settings.items())}", flush=True)

    def on_figures(self, trial: Trial, figures: dict[str, float]) -> None:
        """Log one point of each curve."""
        tracking.log_metrics(self.store, self._run(trial), figures, trial.step)
        print(f"{trial.id}  step {trial.step}  lowest MPJPE {1000 * trial.error_m:.1f} mm", flush=True)

    def ended(self, trial: Trial) -> None:
        """Close the run. A trial that was stopped early still counts as a success."""
        tracking.log_tags(self.store, self._run(trial), {"mvpose.trial_status": trial.status})
        if trial.curve:
            tracking.log_figures(self.store, self._run(trial), {"best/mpjpe_m": trial.error_m})
        tracking.end_run(self.store, self._run(trial), succeeded=trial.status != "failed")
        print(f"{trial.id}  {trial.status}{f': {trial.problem}' if trial.problem else ''}", flush=True)

    def _run(self, trial: Trial) -> str:
        return f"{self.sweep_id}{trial.id.replace('_', '')}"
