"""A server comes from the user's settings alone, and what opens it is found in nothing that a run leaves."""

import base64
import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mvpose import cli, tracking
from mvpose.commands.reconstruct import Reconstruct
from mvpose.config import flatten
from mvpose.errors import ConfigError, ResultsError
from mvpose.tracking import TrackingConfig, UnreachableError
from mvpose.tracking.delivery import client_of, remote_run
from mvpose.tracking.output_record import output_record
from mvpose.tracking.registry import resolve
from mvpose.tracking.spool import Arrived, Spool
from tests.pipeline import coded_footage

SECRET = "hunter2hunter2"


class Listener:
    """A server that lets nobody in, and remembers who came."""

    def __init__(self) -> None:
        self.credentials: list[str | None] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        reported = self.credentials

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reported.append(self.headers.get("Authorization"))
                self.send_error(401)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str | None]]]:
    made = Listener()
    with made.running() as address:
        yield address, made.credentials


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch) -> None:
    """All that is written, in the user's data folder too, is below `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for variable in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{variable}", "")


@pytest.fixture
def own(tmp_path, empty_store, monkeypatch) -> TrackingConfig:
    """The user's own store, named by the environment, and a password for it."""
    shutil.copy(empty_store, tmp_path / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    return TrackingConfig(folder="tracking")


OFFLINE = TrackingConfig(enabled=False, folder="tracking")


def reconstruct(tmp_path, *flags: str) -> int:
    if not (tmp_path / "archive").exists():
        coded_footage.write_capture(str(tmp_path / "archive" / "one"), 6)
    paths = [str(tmp_path / "archive"), "--output", str(tmp_path / "run")]
    return cli.run(["reconstruct", *paths, "--local", "--detector.detector", coded_footage.DETECTOR, *flags])


def test_an_output_s_own_address_is_compared_and_never_called(own, listener, tmp_path, capfd):
    address, calls = listener
    assert reconstruct(tmp_path, "--tracking.no-enabled") == 0
    os.remove(tmp_path / "run" / "summary.json")  # as of a job that was interrupted
    (tmp_path / "run" / "tracking.json").write_text(json.dumps({"run_id": "abc123", "uri": f"http://{address}"}))
    assert reconstruct(tmp_path) == 0
    assert f"note: earlier records are at http://{address}; new ones go to sqlite" in capfd.readouterr().out
    assert cli.run(["view", str(tmp_path / "run")]) == 0
    assert f"Pages not recorded: the run is tracked at http://{address}" in capfd.readouterr().out
    client = client_of(own)
    assert client.get_run(remote_run(client, "abc123") or "").data.metrics["clips"] == 1.0
    assert calls == []


@pytest.mark.parametrize("planted", [None, "[" * 100_000, "{}", '{"run_id": "../x", "uri": ""}', '{"run_id": 1}'])
def test_a_record_in_an_output_that_is_none_is_refused(tmp_path, planted):
    path = tmp_path / "tracking.json"
    os.makedirs(path) if planted is None else path.write_text(planted)
    with pytest.raises(ResultsError, match="is not a run record"):
        output_record(str(tmp_path))


def test_a_spool_s_own_address_is_compared_and_never_called(own, listener, tmp_path):
    address, calls = listener
    run_id = tracking.start_run(OFFLINE, "demo", {"a": 1})
    spool = Spool(own.folder, run_id)
    spool.mark(Arrived(f"http://{address}", "0" * 32, 0))
    with pytest.raises(ConfigError, match=f"at http://{address}.* but your settings name sqlite.*choose .* --tracking"):
        tracking.sync_runs(own)
    assert calls == []
    named = replace(own, uri=os.environ["MLFLOW_TRACKING_URI"])
    assert tracking.sync_runs(named) == (1, 1) and calls == []


def test_a_spool_reaches_no_file_but_its_own(own, tmp_path):
    """A copy that is elsewhere, or a link: its files would be sent, and removed once they are."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text(SECRET)
    for name, copy in (("elsewhere", "../../private"), ("link", "a1"), ("linked", "b1")):
        tracking.start_run(OFFLINE, name, {}, run_id=name)
        Spool("tracking", name).append({"kind": "files", "time": 1, "copy": copy, "artifact_path": "x"})
    os.makedirs("tracking/link.files")
    os.makedirs("tracking/linked.files/b1")
    os.symlink(tmp_path / "private", "tracking/link.files/a1")
    os.symlink(tmp_path / "private" / "key", "tracking/linked.files/b1/key")
    with pytest.raises(ConfigError, match="is not a valid run name"):
        tracking.sync_runs(own)
    os.unlink("tracking/elsewhere.jsonl")
    tracking.sync_runs(own)
    assert (tmp_path / "private" / "key").read_text() == SECRET
    assert found_in(tmp_path) == [str(tmp_path / "private" / "key")]
    for run_id in ("../x", "a/b", "", "a.b"):
        with pytest.raises(ConfigError, match="is not a valid run name"):
            Spool("tracking", run_id)


def test_pages_are_kept_without_what_their_links_lead_to(own, tmp_path):
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "page.html").write_text("page")
    (tmp_path / "key").write_text(SECRET)
    os.symlink(tmp_path / "key", tmp_path / "view" / "x.html")
    run_id = tracking.start_run(own, "demo", {})
    tracking.log_files(own, run_id, str(tmp_path / "view"), "view")
    assert found_in(tmp_path) == [str(tmp_path / "key"), str(tmp_path / "view" / "x.html")]


def test_a_run_of_another_is_not_written_to(own):
    theirs = tracking.start_run(own, "theirs", {})
    mine = tracking.start_run(OFFLINE, "mine", {})
    arrived = Spool(own.folder, theirs).arrived()
    assert arrived is not None
    Spool(own.folder, mine).mark(Arrived(arrived.uri, arrived.remote_id, 0))
    tracking.sync_runs(own)
    client = client_of(own)
    assert remote_run(client, mine) not in (None, arrived.remote_id)


@pytest.mark.parametrize("raises", [False, True])
def test_a_secret_in_an_address_is_left_nowhere(raises, listener, tmp_path, monkeypatch, empty_store, capfd, caplog):
    """It is in the URI of the server, and of what a detector raises; then all that is kept is sent to SQLite."""
    address, calls = listener
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("CODED_RAISES", "0" if raises else "")
    monkeypatch.setenv("CODED_SAYS", f"no weights at https://me:{SECRET}@host/net.onnx?token={SECRET}")
    caplog.set_level(logging.DEBUG, "mvpose")
    uri = f"http://me:{SECRET}@{address}"
    command = Reconstruct(archive=".", output="run", tracking=TrackingConfig(uri=uri))
    print("\n".join(f"{key} = {value}" for key, value in flatten(command).items()))
    assert reconstruct(tmp_path, "--tracking.uri", uri) == (4 if raises else 0)
    assert calls and set(calls) == {f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"}
    assert cli.run(["track", "sync", "--tracking.uri", uri]) == 1
    assert cli.run(["track", "sync", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 0
    printed = capfd.readouterr()
    assert address in printed.out and SECRET not in printed.out + printed.err + caplog.text
    assert found_in(tmp_path) == []
    assert os.path.isfile("run/tracking.json") and os.listdir("data/mvpose/tracking")
    assert bool(found_in(tmp_path / "run", "no weights at https://host/net.onnx")) == raises


SLOW_TO_IMPORT = [pytest.param(verb, marks=pytest.mark.slow) for verb in ("evaluate", "train", "tune")]


@pytest.mark.parametrize("verb", ["register", "promote", "reconstruct", *SLOW_TO_IMPORT])
def test_settings_and_errors_of_every_verb_are_without_credentials(verb, listener, tmp_path, capfd):
    uri = f"http://me:{SECRET}@{listener[0]}"
    command = cli.parse(verb, ["--tracking.uri", uri])
    assert SECRET not in repr(flatten(command)) and listener[0] in repr(flatten(command))
    with pytest.raises(UnreachableError, match=listener[0]) as error:
        resolve(command.tracking, "models:/net@champion")
    chain: BaseException | None = error.value
    while chain is not None:
        assert SECRET not in repr(chain)
        chain = chain.__cause__ or chain.__context__
    location = f"s3://me:{SECRET}@bucket/x"
    flags = {"evaluate": [location], "register": [location], "promote": ["net", "--evaluation", location]}
    assert cli.run([verb, *flags.get(verb, ["--output", location])]) == 1
    assert cli.run([verb, f"--tracking.folder={location}"]) == 1
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err and found_in(tmp_path) == []


def found_in(folder, text: str = SECRET) -> list[str]:
    """Files with the secret in them, byte by byte, or in their names."""
    paths = [os.path.join(where, file) for where, _, files in os.walk(folder) for file in files]
    return sorted(path for path in paths if text.encode() in path.encode() + open(path, "rb").read())
