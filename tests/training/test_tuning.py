"""A sweep: its space, its records, its images, and a driver that is killed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from mvpose.cli import parse
from mvpose.cli import run as command_line
from mvpose.commands.network_flags import Train
from mvpose.commands.tune import Tune, scales
from mvpose.config import load_toml
from mvpose.errors import ConfigError
from mvpose.models.network_settings import FieldsMethod
from mvpose.report.figures import to_png
from mvpose.report.page import PageImage
from mvpose.report.sweep_plots import error_curves, importance_bars, parallel_coordinates, sweep_page
from mvpose.storage.locations import read_text
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.inheritance import bequeath, inherit
from mvpose.training.loop import begin
from mvpose.training.training_config import TrainConfig
from mvpose.training.training_run import train
from mvpose.training.tuning import RememberingASHA, SweepConfig, begin_sweep, check_sweep
from mvpose.training.tuning_records import Records
from mvpose.training.tuning_results import importance, recipe, trials_json, trials_markdown
from mvpose.training.tuning_space import (
    Choice,
    Integer,
    LogUniform,
    Uniform,
    applied,
    check_space,
    decoded,
    domains,
)
from mvpose.training.tuning_trial import SweepJob, Trial, ended_trials, record_of, write_record
from tests.training.test_training_run import TINY, tiny

SPACE = {
    "optimisation.rate": LogUniform(low=1e-5, high=1e-1),
    "augmentation.scale": Uniform(low=0.0, high=0.3),
    "method.fusion.points": Integer(low=2, high=8),
    "optimisation.drops": Choice(options=([0.5], [0.6, 0.9])),
}
CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "jobs", "configs")
SWEEPS = sorted(name for name in os.listdir(CONFIGS) if name.startswith("tune-"))


def trial(number: int, error_m: float, **settings) -> Trial:
    random = np.random.default_rng(number)
    sampled = {path: domain.sample(random_state=random) for path, domain in domains(SPACE).items()}
    return Trial(
        id=f"t{number}", settings=decoded(SPACE, sampled) | settings, output="out", status="finished", step=10,
        curve=((1.0, error_m),),
    )  # fmt: skip


@pytest.mark.parametrize("name", SWEEPS)
def test_a_named_sweep_contradicts_nothing(name):
    command = parse("tune", ["--config", os.path.join(CONFIGS, name)])
    check_sweep(command.training(), command.space, command.sweep)


@pytest.mark.parametrize("name", ["split", "validation_split"])
def test_a_sweep_does_not_see_the_test_split(name):
    """Fails if the split by which trials are compared may be the one that the winner is judged on."""
    config = replace(TINY, samples=replace(TINY.samples, **{name: "test"}))
    with pytest.raises(ConfigError, match="sees the test split"):
        check_sweep(config, SPACE, SweepConfig())


def test_a_method_without_an_error_in_metres_is_not_swept():
    config = replace(TINY, method=FieldsMethod(size=(64, 64)))
    with pytest.raises(ConfigError, match="validated by its loss"):
        check_sweep(config, SPACE, SweepConfig())


def test_kinds_of_ranges_are_told_apart_in_a_file():
    text = '[space]\na = { kind = "uniform", low = 1, high = 2 }\nb = { kind = "integer", low = 1, high = 2 }\n'
    text += 'c = { kind = "choice", options = [[64, 64], "x"] }\n'
    a, b, c = load_toml("x.toml", text, Tune).space.values()
    assert (a, b, c) == (Uniform(low=1.0, high=2.0), Integer(low=1, high=2), Choice(options=([64, 64], "x")))


@pytest.mark.parametrize("line", ['kind = "unifrom", low = 1, high = 2', 'kind = "uniform", low = 1, hihg = 2'])
def test_a_misspelt_range_is_a_sentence(line):
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load_toml("x.toml", f"[space]\na = {{ {line} }}\n", Tune)


def test_whatever_is_sampled_of_a_space_is_a_training():
    random = np.random.default_rng(0)
    for _ in range(30):
        values = decoded(SPACE, {path: domain.sample(random_state=random) for path, domain in domains(SPACE).items()})
        config = applied(TINY, values)
        assert config.optimisation.rate == values["optimisation.rate"] and 1e-5 <= config.optimisation.rate <= 1e-1
        assert 2 <= config.method.fusion.points <= 8 and isinstance(config.method.fusion.points, int)
        assert config.optimisation.drops in ((0.5,), (0.6, 0.9))
        assert replace(config, **{n: getattr(TINY, n) for n in ("optimisation", "augmentation", "method")}) == TINY


@pytest.mark.parametrize(
    ("path", "values", "said"),
    [
        ("optimisation.ratte", Uniform(low=0.1, high=1.0), "no searchable setting optimisation.ratte"),
        ("rate", Uniform(low=0.1, high=1.0), r"Did you mean optimisation\.rate\?"),
        ("optimisation", Uniform(low=0.1, high=1.0), r"no searchable setting optimisation\.$"),
        ("data", Choice(options=("a", "b")), "no searchable setting data"),
        ("compute.workers", Integer(low=1, high=2), "no searchable setting compute.workers"),
        ("optimisation.batch", Uniform(low=4.0, high=8.0), "takes integers"),
        ("optimisation.rate", Choice(options=(0.1, "fast")), "fast"),
        ("optimisation.rate", Uniform(low=-1.0, high=1.0), "rate above 0"),
        ("optimisation.schedule", Choice(options=("cosine", "square")), "square"),
    ],
)
def test_a_space_that_a_training_does_not_have_is_refused(path, values, said):
    with pytest.raises(ConfigError, match=said):
        check_space({path: values}, TINY)


@pytest.mark.parametrize("wrong", [(Uniform, 2.0, 1.0), (LogUniform, 0.0, 1.0), (Integer, 3, 3)])
def test_a_range_without_an_inside_is_refused(wrong):
    kind, low, high = wrong
    with pytest.raises(ConfigError):
        kind(low=low, high=high)


def test_population_based_training_changes_rates_only():
    plan = SweepConfig(scheduler="pbt", searcher="random")
    check_sweep(TINY, {"optimisation.rate": SPACE["optimisation.rate"]}, plan)
    with pytest.raises(ConfigError, match="cannot change during training"):
        check_sweep(TINY, {"method.fusion.points": SPACE["method.fusion.points"]}, plan)


def test_a_sweep_with_another_space_is_refused_with_what_changed(table, tmp_path):
    output, config = str(tmp_path / "sweep"), tiny(table)
    first = begin_sweep(config, SPACE, SweepConfig(), output)
    assert begin_sweep(config, SPACE, SweepConfig(concurrent=3), output) == first
    wider = SPACE | {"augmentation.scale": Uniform(low=0.0, high=0.4)}
    with pytest.raises(ConfigError, match=r"space\.augmentation\.scale\.high: was 0\.3, now 0\.4"):
        begin_sweep(config, wider, SweepConfig(), output)
    with pytest.raises(ConfigError, match=r"sweep\.trials: was 16, now 8"):
        begin_sweep(config, SPACE, SweepConfig(trials=8), output)


def test_records_are_read_back_and_the_best_of_the_ended_comes_first(tmp_path):
    trials = [trial(0, 0.08), trial(1, 0.05), replace(trial(2, 0.01), status="running"), trial(3, 1000.0)]
    for each in trials:
        write_record(str(tmp_path), each)
    assert [t.id for t in ended_trials(str(tmp_path))] == ["t1", "t0", "t3"]
    known = record_of(str(tmp_path), "t0")
    assert known is not None and known.curve == trials[0].curve and known.status == "finished"
    assert math.isinf(ended_trials(str(tmp_path))[-1].error_m)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.news: list[tuple[str, int]] = []

    def began(self, trial: Trial) -> None:
        self.news.append(("began", trial.step))

    def on_figures(self, trial: Trial, figures: dict[str, float]) -> None:
        self.news.append(("told", trial.step))

    def ended(self, trial: Trial) -> None:
        self.news.append((trial.status, trial.step))


def test_a_listener_hears_each_thing_once_though_ray_begins_an_ended_trial_again(tmp_path):
    job, heard = SweepJob(config=TINY, space=SPACE, output=str(tmp_path), bequeaths=False), Heard()
    sampled = {path: domain.sample() for path, domain in domains(SPACE).items()}
    for steps in ((2, 4), (4, 6), (6,)):
        records, stand_in = Records(job, heard), SimpleNamespace(trial_id="t", config=sampled, last_result={})
        records.on_trial_start(0, [], stand_in)
        for step in steps:
            stand_in.last_result = {"step": step, "share": step / 6, "error": 0.1, "figures": {}}
            records.on_trial_result(0, [], stand_in, stand_in.last_result)
        if steps[-1] == 6:
            records.on_trial_complete(0, [], stand_in)
    assert heard.news == [("began", 0), ("told", 2), ("told", 4), ("began", 4), ("told", 6), ("finished", 6)]


def test_asha_in_a_new_process_gives_up_what_is_worse_than_trials_that_ended_before(tmp_path):
    for i in range(4):
        write_record(str(tmp_path), replace(trial(i, 0.05), curve=((0.25, 0.06), (1.0, 0.05))))
    decisions = []
    for output in (str(tmp_path), str(tmp_path / "new")):
        scheduler = RememberingASHA(output, SweepConfig(grace=0.25, reduction=2.0))
        scheduler.set_search_properties("error", "min")
        newcomer = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, newcomer)
        decisions.append(scheduler.on_trial_result(None, newcomer, {"share": 0.25, "error": 0.3}))  # pyright: ignore[reportArgumentType]
    assert decisions == ["STOP", "CONTINUE"]


def test_a_training_that_inherits_has_the_weights_of_the_other_and_rates_of_its_own(table, tmp_path):
    config = tiny(table)
    train(config, str(tmp_path / "first"))
    bequeath(str(tmp_path / "first"), str(tmp_path / "copy" / "checkpoints"))
    faster = replace(config, optimisation=replace(config.optimisation, rate=5e-2, steps=9))
    inherit(faster, str(tmp_path / "copy"), str(tmp_path / "second"))
    states = []
    for settings, output in ((config, "first"), (faster, "second")):
        checkpoints, state = (
            Checkpoints(str(tmp_path / output / "checkpoints"), 2),
            begin(settings, torch.device("cpu")),
        )
        assert checkpoints.latest().step == 6
        checkpoints.load(state, checkpoints.latest())
        states.append(state)
    weights = [torch.cat([p.flatten() for p in state.network.parameters()]) for state in states]
    assert torch.equal(*weights)
    assert {g["full_rate"] for g in states[0].optimiser.param_groups} == {1e-3}
    assert {g["full_rate"] for g in states[1].optimiser.param_groups} == {5e-2}
    moments = [len(s.optimiser.state) for s in states]
    assert moments[0] == moments[1] > 0
    steps = []
    train(faster, str(tmp_path / "second"), lambda step, _: steps.append(step))
    assert steps == [8, 9]


def judged_trials(count: int = 24) -> list[Trial]:
    """Trials whose error depends on the rate alone."""
    made = [trial(i, 1.0) for i in range(count)]
    return [
        replace(t, curve=((1.0, 0.03 + 0.02 * abs(math.log10(t.settings["optimisation.rate"]) + 3)),)) for t in made
    ]


def test_the_only_setting_that_matters_is_found():
    shares = importance(judged_trials(60), SPACE)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares, key=lambda path: shares[path]) == "optimisation.rate" and shares["optimisation.rate"] > 0.9


def test_few_or_equal_trials_say_nothing_about_what_matters():
    assert importance(judged_trials(3), SPACE) == {}
    assert importance([trial(i, 0.05) for i in range(9)], SPACE) == {}


def test_tables_hold_every_trial_and_say_where_no_joint_was_found():
    trials = [trial(0, 0.0512), trial(1, 1000.0)]
    rows = json.loads(trials_json(trials))
    assert [row["error_m"] for row in rows] == [0.0512, None]
    table = trials_markdown(trials, SPACE).splitlines()
    assert len(table) == 4 and "51.2" in table[2] and "none found" in table[3] and "optimisation.rate" in table[0]


@pytest.mark.parametrize("count", [0, 1, 24])
def test_images_are_drawn_of_any_number_of_trials(count):
    trials = [*judged_trials(count), trial(99, 1000.0)]
    lines = parallel_coordinates(scales(SPACE, trials), [t.error_m for t in trials], [True] * len(trials))
    (axes, *_) = lines.axes
    assert len(axes.collections) == count
    curves = error_curves([t.curve for t in trials], 1000.0)
    assert len(curves.axes[0].lines) == count
    for image in (to_png(lines), to_png(curves), to_png(importance_bars(importance(trials, SPACE), count))):
        assert image.startswith(b"\x89PNG") and len(image) > 5000


def recipes() -> list[TrainConfig]:
    """Of the named sweeps with sampled values, and of settings that are unlike the defaults of their types."""
    random = np.random.default_rng(3)
    found = [replace(TINY, data='s3://a/"b"\\ü', seed=7)]
    for file in SWEEPS:
        command = parse("tune", ["--config", os.path.join(CONFIGS, file)])
        values = {path: domain.sample(random_state=random) for path, domain in domains(command.space).items()}
        found.append(applied(command.training(), decoded(command.space, values)))
    found.append(applied(TINY, {"optimisation.drops": [0.5, 0.9], "optimisation.rate": 1e-5, "samples.cameras": ["a"]}))
    return found


@pytest.mark.parametrize("config", recipes())
def test_the_recipe_of_a_trial_is_read_back_as_its_settings(config):
    """Fails if a value is left out, rounded, or written under another name."""
    assert load_toml("best.toml", recipe(config), Train).training() == config


def test_the_page_of_a_sweep_has_its_images_every_trial_and_no_code_of_a_name():
    trials = [trial(0, 0.0512), trial(1, 0.06)]
    rows = [["trial", "<script>"], *([t.id, f"{1000 * t.error_m:.1f}"] for t in trials)]
    image = PageImage("Errors", "of trials", "image/png", b"x")
    page = sweep_page("<b>", {"trials": 2}, [image, image], rows, "rate = 1e-05\n")
    assert page.count("data:image/png;base64,eA==") == 2 and "rate = 1e-05" in page
    assert "<td>51.2</td>" in page and "&lt;script&gt;" in page and "<b>" not in page.partition("<h1>")[2][:20]


TOML = """
validate_every = 4
log_every = 4
method = { size = [64, 64], backbone = { depth = 18, width = 4 }, fusion = { fusion = "pooling", points = 4,\
 head_width = 8 } }
optimisation = { batch = 8, steps = 24, average = 0.9, rise = 2 }
objective = { warm_up = { start = 0.1, full = 0.3 } }
checkpoints = { every = 4 }
sweep = { trials = 8, grace = 0.3, reduction = 2.0, concurrent = 2 }
[space]
"optimisation.rate" = { kind = "loguniform", low = 1e-5, high = 3e-2 }
"optimisation.optimiser" = { kind = "choice", options = ["adamw", "sgd"] }
"""


def test_a_dry_run_says_what_would_be_searched_and_writes_nothing(table, tmp_path, capsys):
    (tmp_path / "tune.toml").write_text(TOML)
    output = str(tmp_path / "out")
    arguments = ["tune", "--config", str(tmp_path / "tune.toml"), "--data", table, "--output", output, "--dry-run"]
    assert command_line(arguments) == 0
    assert "8 trials" in capsys.readouterr().out and not os.path.exists(output)


def weights_dates(output: str) -> dict[str, int]:
    """When the model of each trial that has one was written."""
    found = [(t.id, f"{t.output}/model/weights.safetensors") for t in ended_trials(output)]
    return {name: os.stat(path).st_mtime_ns for name, path in found if os.path.exists(path)}


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_goes_on_and_repeats_no_trial_that_had_ended(table, tmp_path):
    from mlflow import MlflowClient

    (tmp_path / "tune.toml").write_text(TOML)
    output = str(tmp_path / "out")
    command = [sys.executable, "-m", "mvpose", "tune", "--config", "tune.toml", "--data", table, "--output", output]
    settings = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": os.getcwd()}
    settings["XDG_DATA_HOME"] = str(tmp_path)
    driver = subprocess.Popen(command, cwd=tmp_path, env=settings)
    try:
        while len(ended_trials(output)) < 3:
            assert driver.poll() is None, "the sweep ended before it could be killed"
            time.sleep(0.1)
        below = psutil.Process(driver.pid).children(recursive=True)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    psutil.wait_procs(below)
    before, dates = {t.id: t for t in ended_trials(output)}, weights_dates(output)
    assert 3 <= len(before) < 8
    second = subprocess.run([*command, "--register", "swept"], cwd=tmp_path, env=settings, stdout=subprocess.PIPE)
    assert second.returncode == 0
    said = second.stdout.decode()

    trials = ended_trials(output)
    assert len(trials) == 8 and {t.status for t in trials} == {"finished", "stopped"}
    # Those that had ended are as they were, and nobody trained them again.
    assert {t.id: t for t in trials if t.id in before} == before
    assert {name: date for name, date in weights_dates(output).items() if name in dates} == dates
    told_again = {line.split()[0] for line in said.splitlines() if " lowest MPJPE " in line}
    assert told_again and not told_again & before.keys()

    client = MlflowClient(f"sqlite:///{tmp_path}/mvpose/mlflow.db")
    experiment = client.get_experiment_by_name("tune")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(str(r.info.run_name) for r in children) == sorted(t.id for t in trials)
    assert {r.info.status for r in runs} == {"FINISHED"}
    for child in children:
        record = record_of(output, str(child.info.run_name))
        assert record is not None and child.data.metrics["best/mpjpe_m"] == pytest.approx(record.error_m)
        steps = {m.step for m in client.get_metric_history(child.info.run_id, "validation/mpjpe_m")}
        assert steps == set(range(4, record.step + 1, 4))
    files = {f.path for f in client.list_artifacts(parent.info.run_id, "sweep")}
    assert files >= {
        "sweep/parallel.png",
        "sweep/importance.png",
        "sweep/trials.md",
        "sweep/trials.json",
        "sweep/index.html",
    }
    best = load_toml("best.toml", read_text(f"{output}/best.toml"), Train).training()
    assert best.optimisation.rate == trials[0].settings["optimisation.rate"]
    assert "models:/swept/1" in said

    third = subprocess.run(command, cwd=tmp_path, env=settings, stdout=subprocess.PIPE)
    assert third.returncode == 0 and b"none is repeated" in third.stdout
    assert len(client.search_runs([experiment.experiment_id])) == 9


@pytest.mark.slow
def test_trials_of_two_workers_each_train_to_the_end_and_are_compared(table, tmp_path):
    """Fails if a trial's workers never get resources, or its figures do not reach the search."""
    (tmp_path / "tune.toml").write_text(TOML.replace("trials = 8", "trials = 2").replace("steps = 24", "steps = 8"))
    output = str(tmp_path / "out")
    command = ["tune", "--config", "tune.toml", "--data", table, "--output", output, "--workers", "2"]
    settings = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": os.getcwd()}
    settings["XDG_DATA_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mvpose", *command], cwd=tmp_path, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = ended_trials(output)
    assert len(trials) == 2 and {t.status for t in trials} <= {"finished", "stopped"}
    best = trials[0]
    assert best.status == "finished" and best.step == 8 and best.curve[-1][0] == 1.0
    assert os.path.exists(f"{best.output}/ray"), "the trial trained in its own process, and not on workers"
    lines = [json.loads(line) for line in read_text(f"{best.output}/metrics.jsonl").splitlines()]
    assert best.error_m == min(line["validation/mpjpe_m"] for line in lines if line.get("validation/mpjpe_m"))
    found = load_toml("best.toml", read_text(f"{output}/best.toml"), Train).training()
    assert found.compute.workers == 2 and found.optimisation.rate == best.settings["optimisation.rate"]
