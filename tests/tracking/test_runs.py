"""Runs in MLflow, in a real SQLite store."""

import json
import logging
import math
import os
from dataclasses import replace

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.tracking import TrackingConfig
from mvpose.tracking.delivery import remote_run
from mvpose.tracking.spool import Spool


def found(config: TrackingConfig, run_id: str):
    client = MlflowClient(config.uri)
    remote = remote_run(client, run_id)
    assert remote is not None
    return client, client.get_run(remote)


def test_experiments_open_on_the_page_for_training_unless_a_user_chose_another(config, tmp_path):
    """Fails if new experiments, or those of earlier versions, have no kind, or a user's choice is overwritten."""
    client, kind = MlflowClient(config.uri), "mlflow.experimentKind"
    client.create_experiment("earlier", str(tmp_path / "mlartifacts"))
    client.create_experiment("chosen", str(tmp_path / "mlartifacts"), tags={kind: "genai_development"})
    for name in ("earlier", "chosen", "new"):
        tracking.start_run(replace(config, experiment=name), "run", {})
    kinds = {name: client.get_experiment_by_name(name).tags[kind] for name in ("earlier", "chosen", "new")}
    assert kinds == {
        "earlier": "custom_model_development", "chosen": "genai_development", "new": "custom_model_development",
    }  # fmt: skip


def test_a_run_holds_settings_circumstances_figures_curves_and_images(config, tmp_path):
    settings = {"detector.batch_size": 16, "long": "x" * 10_000, "odd (key)": math.inf}
    run_id = tracking.start_run(config, "demo", settings, tags={"data": "sha"})
    tracking.log_figures(config, run_id, {"single person/reprojection_px": 4.5, "odd (name)": 1.0, "none": math.nan})
    for step in range(3):
        tracking.log_metrics(config, run_id, {"loss": 1.0 / (step + 1)}, step)
    tracking.log_figures(config, run_id, tracking.system_figures())
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "page.html").write_text("<html>")
    tracking.log_files(config, run_id, str(tmp_path / "view"), "view")
    tracking.end_run(config, run_id, succeeded=True)

    client, run = found(config, run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "demo"
    assert run.data.params["detector.batch_size"] == "16" and run.data.tags["data"] == "sha"
    assert len(run.data.tags["mlflow.source.git.commit"]) >= 40
    assert {"single person/reprojection_px": 4.5, "odd _name_": 1.0}.items() <= run.data.metrics.items()
    assert "none" not in run.data.metrics and run.data.metrics["system/process_memory_megabytes"] > 10
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in curve] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "view")] == ["view/page.html"]
    with open(client.download_artifacts(run.info.run_id, "environment.json")) as file:
        assert json.load(file)["packages"]["torch"]
    assert (tmp_path / "mlartifacts").is_dir()


def test_a_trial_is_a_child_of_its_sweep(config):
    sweep = tracking.start_run(config, "sweep", {})
    trial = tracking.start_run(config, "trial", {"lr": 0.1}, parent=sweep)
    _, parent = found(config, sweep)
    _, child = found(config, trial)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_run_named_by_its_caller_is_taken_up_again(config):
    for value in (1, 2):
        tracking.start_run(config, "train", {"epochs": 3, "resumed": value}, run_id="abc123")
        tracking.log_metrics(config, "abc123", {"loss": float(value)}, value)
        tracking.end_run(config, "abc123", succeeded=value == 2)
    client, run = found(config, "abc123")
    assert run.info.status == "FINISHED" and run.data.params["resumed"] == "1"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_run_is_taken_up_from_another_machine(config, tmp_path):
    elsewhere = TrackingConfig(uri=config.uri, folder=str(tmp_path / "elsewhere"))
    tracking.start_run(config, "train", {"epochs": 3}, run_id="abc123")
    tracking.start_run(elsewhere, "train", {"epochs": 4}, run_id="abc123")
    tracking.log_figures(elsewhere, "abc123", {"mpjpe_m": 0.02})
    client, run = found(config, "abc123")
    assert run.data.params["epochs"] == "3" and run.data.metrics == {"mpjpe_m": 0.02}
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_server_that_cannot_be_reached_is_a_warning_and_stops_nothing(caplog, tmp_path):
    nowhere = TrackingConfig(uri="http://127.0.0.1:9", folder=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        run_id = tracking.start_run(nowhere, "demo", {})
        tracking.log_metrics(nowhere, run_id, {"loss": 1.0}, 0)
    assert caplog.text.count("The job continues; the record is kept in") == 1
    assert [record["kind"] for record, _ in Spool(str(tmp_path), run_id).records()] == ["start", "metrics"]
    assert "not yet in MLflow: mvpose track sync" in tracking.described(nowhere, run_id)


def test_tracking_that_is_off_sends_nothing_and_keeps_the_record(config):
    off = TrackingConfig(enabled=False, uri=config.uri, folder=config.folder)
    run_id = tracking.start_run(off, "demo", {})
    tracking.end_run(off, run_id, succeeded=True)
    assert not MlflowClient(config.uri).search_runs(["0"]) and len(MlflowClient(config.uri).search_experiments()) == 1
    assert tracking.sync_runs(config) == (1, 2)
    assert found(config, run_id)[1].info.status == "FINISHED"


def test_the_environment_names_the_store_unless_the_settings_do(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking.tracking_uri(TrackingConfig()) == "http://server:5000"
    assert tracking.tracking_uri(TrackingConfig(uri="sqlite:////tmp/a.db")) == "sqlite:////tmp/a.db"
    assert tracking.tracking_uri(TrackingConfig(uri="sqlite:///a.db")) == f"sqlite:///{os.getcwd()}/a.db"
