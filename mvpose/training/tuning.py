"""Hyperparameter search on Ray Tune: train with many settings from a space, and stop poor trials early.

OUTPUT/sweep.json   space, settings and digest of the data, written once
       trials/      a record and a training for each trial (see `mvpose.training.tuning_trial`)
       ray/         Ray Tune's state, used to resume a sweep

The schedulers measure progress as the completed share of a training, so trainings of different lengths are comparable.
Ray restores the searcher but not the scheduler, so the results of completed trials are replayed to ASHA.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from mvpose.config import differences, flatten
from mvpose.datasets import TEST
from mvpose.errors import ConfigError
from mvpose.models.network_settings import BOTTOM_UP
from mvpose.ray_session import LocalRay, ray_session
from mvpose.storage.commits import create_once
from mvpose.storage.locations import absolute, join, read_text
from mvpose.training.feed import Feed
from mvpose.training.loop import TrainingError
from mvpose.training.training_config import ComputeConfig, TrainConfig, without_places
from mvpose.training.tuning_records import Listener, Records
from mvpose.training.tuning_space import Space, SweepConfig, applied, check_space, domains
from mvpose.training.tuning_trial import SweepJob, Trial, ended_trials, trial_function

SNAPSHOT_SECONDS = "1"
"""Interval of Ray Tune's snapshots. With its default of 10, a sweep killed before the first one started over."""


def check_sweep(config: TrainConfig, space: Space, plan: SweepConfig) -> None:
    """Raise ConfigError if space, training and search settings contradict each other."""
    config.check()
    if TEST in (config.samples.split, config.samples.validation_split):
        raise ConfigError(
            "a sweep that sees the test split cannot be judged on it: train and validate on other splits."
        )
    if config.method.method == BOTTOM_UP:
        raise ConfigError(f"a sweep compares trials by MPJPE, and {BOTTOM_UP} is validated by its loss alone.")
    check_space(space, config, mutable=plan.scheduler == "pbt")
    if plan.scheduler == "pbt" and plan.searcher != "random":
        raise ConfigError("PBT needs a random searcher: set sweep.searcher to random.")


def begin_sweep(config: TrainConfig, space: Space, plan: SweepConfig, output: str) -> str:
    """Record the space, the settings and the digest of the data; return the ID of the sweep. Resuming keeps the ID.

    ConfigError if the space is invalid, or if `output` was created with other settings.
    """
    check_sweep(config, space, plan)
    search = {name: value for name, value in flatten(plan).items() if name != "concurrent"}
    settings = {
        **{f"train.{name}": value for name, value in config.settings().items() if name not in space},
        **{f"space.{path}.{name}": v for path, values in space.items() for name, v in flatten(values).items()},
        **{f"sweep.{name}": value for name, value in search.items()},
        **Feed.open(config).digests(),
    }
    uri = join(output, "sweep.json")
    if not create_once(uri, json.dumps({"id": uuid.uuid4().hex, "settings": settings}, indent=1, default=str).encode()):
        known = json.loads(read_text(uri))["settings"]
        changed = differences(*(without_places(each, "train.") for each in (known, settings)))
        if changed:
            raise ConfigError(
                f"{output} belongs to another sweep ({'; '.join(changed)}). Use another output, or the same space and "
                "settings to resume."
            )
    return json.loads(read_text(uri))["id"]


def sweep(config: TrainConfig, space: Space, plan: SweepConfig, output: str, listener: Listener) -> list[Trial]:
    """Start a search, or resume one that was interrupted; return all trials, best first.

    ConfigError as in `begin_sweep`. TrainingError if trials are missing at the end.
    """
    begin_sweep(config, space, plan, output)
    if len(ended_trials(output)) < plan.trials:
        job = _job(config, space, plan, output)
        _set_up_tune()
        compute, environment = config.compute, config.compute.environment | {"RAY_CHDIR_TO_TRIAL_DIR": "0"}
        with ray_session(compute.address, _local_ray(compute, plan), environment, output):
            _tuner(job, plan, listener).fit()
    trials = ended_trials(output)
    if len(trials) < plan.trials:
        raise TrainingError(f"{len(trials)} of {plan.trials} trials have ended: rerun the same command to resume.")
    return trials


def training_of(trial: Trial, config: TrainConfig, space: Space, plan: SweepConfig, output: str) -> TrainConfig:
    """The settings of a trial's training, with which it can be resumed in `trial.output`."""
    return applied(_job(config, space, plan, output).config, trial.settings)


def _job(config: TrainConfig, space: Space, plan: SweepConfig, output: str) -> SweepJob:
    alone = config.compute.max_workers == 1
    config = replace(config.located(), compute=replace(config.compute, local=alone))
    return SweepJob(config=config, space=space, output=absolute(output), bequeaths=plan.scheduler == "pbt")


def _tuner(job: SweepJob, plan: SweepConfig, listener: Listener) -> tune.Tuner:
    function = tune.with_resources(trial_function(job), trial_resources(job.config))
    path, samples = join(job.output, "ray"), dict(domains(job.space))
    if tune.Tuner.can_restore(path):
        return tune.Tuner.restore(path, trainable=function, param_space=samples)
    return tune.Tuner(
        function,
        param_space=samples,
        tune_config=tune.TuneConfig(
            metric="error",
            mode="min",
            num_samples=plan.trials,
            max_concurrent_trials=plan.concurrent or None,
            search_alg=_searcher(plan),
            scheduler=_scheduler(job, plan),
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=job.output,
            callbacks=[Records(job, listener)],
            failure_config=tune.FailureConfig(max_failures=job.config.compute.max_failures),
            verbose=0,
        ),
    )


def trial_resources(config: TrainConfig) -> dict[str, float]:
    """Resources of a trial's process. With several workers it only supervises; the workers reserve their own."""
    compute = config.compute
    if compute.max_workers > 1:
        return {"CPU": 1.0}
    cpus = {"CPU": compute.cpus_per_worker + compute.loaders}
    return cpus | ({"GPU": compute.gpus} if compute.gpus > 0 else {})


def _searcher(plan: SweepConfig):
    if plan.searcher == "random":
        return BasicVariantGenerator(random_state=plan.seed)
    return OptunaSearch(metric="error", mode="min", seed=plan.seed)


def _scheduler(job: SweepJob, plan: SweepConfig) -> TrialScheduler | None:
    match plan.scheduler:
        case "asha":
            return RememberingASHA(job.output, plan)
        case "pbt":
            return PopulationBasedTraining(
                time_attr="share",
                perturbation_interval=plan.perturb_every,
                hyperparam_mutations=dict(domains(job.space)),
            )
        case "none":
            return None


class RememberingASHA(ASHAScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020) that starts with the results of completed trials."""

    def __init__(self, output: str, plan: SweepConfig) -> None:
        # Ray annotates the first rung as an integer; its code also accepts shares.
        rungs: dict[str, Any] = {"max_t": 1, "grace_period": plan.grace, "reduction_factor": plan.reduction}
        super().__init__(time_attr="share", stop_last_trials=False, **rungs)
        self._output, self._remembers = output, False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Before the first trial of this process, replay the trials that ended in an earlier one."""
        if not self._remembers:
            self._remembers = True
            for known in ended_trials(self._output):
                stand_in: Any = SimpleNamespace(trial_id=known.id)
                super().on_trial_add(tune_controller, stand_in)
                for share, error in known.curve:
                    self.on_trial_result(tune_controller, stand_in, {"share": share, "error": error})
        super().on_trial_add(tune_controller, trial)


def _set_up_tune() -> None:
    os.environ |= {
        "TUNE_GLOBAL_CHECKPOINT_S": SNAPSHOT_SECONDS,
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Otherwise Ray Tune treats Ctrl-C as a regular end.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }


def _local_ray(compute: ComputeConfig, plan: SweepConfig) -> LocalRay:
    """A local Ray for as many concurrent trials as fit."""
    alone = compute.max_workers == 1
    each = compute.max_workers * (compute.cpus_per_worker + compute.loaders) + (0 if alone else 2)
    room = max(int((os.cpu_count() or 1) / each), 1)
    cpus = max(int((plan.concurrent or room) * each + 0.5), 1)
    # Ray Train frees the resources of a stopped trial through the dashboard. Without it, trials with several workers
    # wait forever (measured).
    return LocalRay(cpus=cpus, gpus=compute.gpus, dashboard=not alone)
