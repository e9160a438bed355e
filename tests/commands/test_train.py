"""`mvpose train` as a user runs it: lines on the terminal, curves in MLflow, nothing done twice."""

import pytest

from mvpose.cli import run
from mvpose.tracking import TrackingConfig, tracking_uri
from tests.training.conftest import table  # noqa: F401

TOML = """
validate_every = 4
log_every = 2
method = { size = [64, 64], backbone = { depth = 18, width = 4 }, fusion = { fusion = "pooling", points = 4,\
 head_width = 8 } }
optimisation = { batch = 8, steps = 8 }
"""


@pytest.fixture
def arguments(table, tmp_path, monkeypatch) -> list[str]:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "tiny.toml").write_text(TOML)
    return ["train", "--config", "tiny.toml", "--data", table, "--output", "out", "--local"]


def test_figures_are_told_and_reach_mlflow_once(arguments, capsys):
    from mlflow import MlflowClient

    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "48 samples" in said and "samples/s" in said and "waiting for data" in said and "validation MPJPE" in said
    assert run(arguments) == 0
    assert "Nothing to do" in capsys.readouterr().out
    client = MlflowClient(tracking_uri(TrackingConfig()))
    (recorded,) = client.search_runs([client.get_experiment_by_name("train").experiment_id])
    assert recorded.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(recorded.info.run_id, "train/loss")] == [2, 4, 6, 8]
    assert [m.step for m in client.get_metric_history(recorded.info.run_id, "validation/mpjpe_m")] == [4, 8]
    assert recorded.data.tags["mvpose.data_digest"] and recorded.data.params["optimisation.batch"] == "8"


def test_a_dry_run_writes_nothing(arguments, tmp_path, capsys):
    assert run([*arguments, "--dry-run"]) == 0
    assert "8 steps" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_without_a_table_the_message_says_how_to_name_one(capsys):
    assert run(["train", "--output", "out"]) == 1
    assert "--data TABLE" in capsys.readouterr().err
