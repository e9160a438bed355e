"""Records reach a server exactly once: one that is down at first, dies in mid-run, or whose sender does."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.commands.track import TrackSync
from mvpose.commands.track import run as track
from mvpose.tracking import TrackingConfig, UnreachableError, delivery
from mvpose.tracking.delivery import remote_run
from mvpose.tracking.spool import Arrived, Spool


def curve(client: MlflowClient, run_id: str, key: str = "loss") -> list[tuple[int, float]]:
    remote = remote_run(client, run_id)
    assert remote is not None
    return [(m.step, m.value) for m in client.get_metric_history(remote, key)]


@pytest.mark.slow
def test_what_a_server_missed_while_it_was_down_is_there_exactly_once_after_sync(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(delivery, "SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(delivery, "PATIENCE", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = TrackingConfig(uri=server.uri, folder=str(tmp_path / "tracking"))
    sweep = tracking.start_run(config, "sweep", {"trials": 1})
    trial = tracking.start_run(config, "trial", {"lr": 0.1}, parent=sweep)
    for step in range(10):
        tracking.log_metrics(config, trial, {"loss": float(step)}, step)
    with pytest.raises(UnreachableError):
        track(TrackSync(folder=config.folder, tracking=TrackingConfig(uri=server.uri)))

    server.start()
    tracking.log_figures(config, trial, {"mpjpe_m": 0.03})
    for step in range(10, 20):
        tracking.log_metrics(config, trial, {"loss": float(step)}, step)
    server.kill()
    for step in range(20, 30):
        tracking.log_metrics(config, trial, {"loss": float(step)}, step)
    (tmp_path / "overlay.png").write_bytes(b"image")
    tracking.log_files(config, trial, str(tmp_path / "overlay.png"), "overlays")
    (tmp_path / "overlay.png").unlink()
    tracking.end_run(config, trial, succeeded=True)
    tracking.end_run(config, sweep, succeeded=True)

    server.start()
    assert track(TrackSync(folder=config.folder, tracking=TrackingConfig(uri=server.uri))) == 0
    assert track(TrackSync(folder=config.folder, tracking=TrackingConfig(uri=server.uri))) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing to do: all records were already sent."
    client = MlflowClient(server.uri)
    assert curve(client, trial) == [(step, float(step)) for step in range(30)]
    remote = client.get_run(remote_run(client, trial))
    assert remote.info.status == "FINISHED" and remote.data.metrics["mpjpe_m"] == 0.03
    assert remote.data.tags["mlflow.parentRunId"] == remote_run(client, sweep)
    assert [f.path for f in client.list_artifacts(remote.info.run_id, "overlays")] == ["overlays/overlay.png"]
    assert not [f for f in os.listdir(config.folder) if f.endswith(".files")]
    assert len(client.search_runs(["0", remote.info.experiment_id])) == 2


def test_records_sent_again_are_taken_for_the_same(config):
    run_id = tracking.start_run(config, "demo", {"a": 1})
    for step in range(5):
        tracking.log_metrics(config, run_id, {"loss": float(step)}, step)
    tracking.end_run(config, run_id, succeeded=True)
    spool, client = Spool(config.folder, run_id), MlflowClient(config.uri)
    arrived = spool.arrived()
    assert arrived is not None
    # The sender died before it noted any arrival, at the worst before that of the run itself.
    for forgotten in (Arrived(arrived.uri, arrived.remote_id, 0), None):
        if forgotten is None:
            os.unlink(os.path.join(config.folder, f"{run_id}.sent.json"))
        else:
            spool.mark(forgotten)
        tracking.sync_runs(config)
        assert curve(client, run_id) == [(step, float(step)) for step in range(5)]
    experiments = [e.experiment_id for e in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 1 and client.get_run(arrived.remote_id).info.status == "FINISHED"


WRITER = """
import sys
from mvpose import tracking
config = tracking.TrackingConfig(uri=sys.argv[1], folder=sys.argv[2])
run_id = tracking.start_run(config, "killed", {})
print(run_id, flush=True)
for step in range(10**9):
    tracking.log_metrics(config, run_id, {"loss": step / 7}, step)
    print(step, flush=True)
"""


def test_a_job_killed_at_any_point_loses_no_record_that_it_had_made(config):
    command = [sys.executable, "-c", WRITER, config.uri, config.folder]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    run_id = writer.stdout.readline().strip()
    for line in writer.stdout:
        if int(line) >= 300:
            break
    writer.send_signal(signal.SIGKILL)
    made = [int(line) for line in writer.stdout] or [300]
    writer.wait()
    # A line that was being written when its process died.
    with open(Spool(config.folder, run_id).path, "ab") as file:
        file.write(b'{"time": 1, "kind": "metr')
    tracking.sync_runs(config)
    sent = curve(MlflowClient(config.uri), run_id)
    assert sent == [(step, step / 7) for step in range(len(sent))] and len(sent) in (made[-1] + 1, made[-1] + 2)
    tracking.log_figures(config, run_id, {"after": 1.0})
    assert curve(MlflowClient(config.uri), run_id, "after") == [(0, 1.0)]


def test_a_record_that_the_store_never_takes_is_set_aside_and_holds_nothing_up(config, caplog):
    run_id = tracking.start_run(config, "demo", {})
    tracking.log_metrics(config, run_id, {"good": 1.0}, 0)
    tracking.log_metrics(config, run_id, {"../bad": 1.0}, 0)
    tracking.log_figures(config, run_id, {"later": 2.0})
    client = MlflowClient(config.uri)
    assert curve(client, run_id, "good") == [(0, 1.0)] and curve(client, run_id, "later") == [(0, 2.0)]
    with open(os.path.join(config.folder, f"{run_id}.refused.jsonl")) as file:
        assert [json.loads(line)["record"]["figures"] for line in file] == [{"../bad": 1.0}]
    assert "set aside" in caplog.text


def test_a_run_can_be_sent_to_a_second_store_whole(config, tmp_path, empty_store):
    run_id = tracking.start_run(config, "demo", {"a": 1})
    tracking.log_figures(config, run_id, {"mpjpe_m": 0.02})
    shutil.copy(empty_store, tmp_path / "second.db")
    second = TrackingConfig(uri=f"sqlite:///{tmp_path}/second.db", folder=config.folder)
    assert tracking.sync_runs(second) == (1, 2)
    assert curve(MlflowClient(second.uri), run_id, "mpjpe_m") == [(0, 0.02)]
