"""Runs in MLflow, in a real SQLite store."""

import logging
import math
import os

import pytest

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.tracking import TrackingConfig


@pytest.fixture
def config(tmp_path) -> TrackingConfig:
    return TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")


def test_a_run_holds_settings_figures_and_pictures(config, tmp_path):
    run_id = tracking.start_run(config, "demo", {"detector.batch_size": 16, "long": "x" * 10_000})
    assert run_id is not None
    tracking.log_figures(config, run_id, {"single person/reprojection_px": 4.5, "odd (name)": 1.0, "none": math.nan})
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "page.html").write_text("<html>")
    tracking.log_files(config, run_id, str(tmp_path / "view"), "view")
    tracking.end_run(config, run_id, succeeded=True)

    client = MlflowClient(config.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "demo"
    assert run.data.params["detector.batch_size"] == "16"
    assert run.data.metrics == {"single person/reprojection_px": 4.5, "odd _name_": 1.0}
    assert [f.path for f in client.list_artifacts(run_id, "view")] == ["view/page.html"]
    assert (tmp_path / "mlartifacts").is_dir()


def test_a_server_that_cannot_be_reached_is_a_warning_and_stops_nothing(caplog):
    nowhere = TrackingConfig(uri="http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        assert tracking.start_run(nowhere, "demo", {}) is None
    assert "goes on without its record" in caplog.text


def test_tracking_that_is_off_opens_no_run(tmp_path):
    assert tracking.start_run(TrackingConfig(enabled=False, uri=f"sqlite:///{tmp_path}/x.db"), "demo", {}) is None
    assert not list(tmp_path.iterdir())


def test_the_environment_names_the_store_unless_the_settings_do(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking.tracking_uri(TrackingConfig()) == "http://server:5000"
    assert tracking.tracking_uri(TrackingConfig(uri="sqlite:////tmp/a.db")) == "sqlite:////tmp/a.db"
    assert tracking.tracking_uri(TrackingConfig(uri="sqlite:///a.db")) == f"sqlite:///{os.getcwd()}/a.db"
