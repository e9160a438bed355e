"""The one Ray layer: what every Ray is started with, and what is kept of its workers' output."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import ray
from ray._raylet import AuthenticationTokenLoader

from mvpose import ray_session as session_module
from mvpose.errors import ConfigError, ResultsError, set_debugging
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.ray_session import LocalRay, debug_worker, ray_session, worker_environment
from mvpose.storage.locations import join, list_folder, read_text
from mvpose.training.trainer import train_on_ray
from mvpose.training.training_config import ComputeConfig
from mvpose.training.tuning import SweepConfig, sweep
from mvpose.training.tuning_space import LogUniform
from tests.training.conftest import write_table
from tests.training.test_training_run import tiny


@pytest.fixture(autouse=True)
def no_ray_yet(stopped_ray):
    stopped_ray.close()
    yield
    AuthenticationTokenLoader.instance().reset_cache()
    set_debugging(False)


class Asked(Exception):
    """Ray was asked for; nothing is started."""


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """The arguments of each `ray.init`, which then refuses."""
    calls: list[dict] = []

    def init(**arguments):
        calls.append(arguments)
        raise Asked

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session_module, "_require_token", lambda _address: None)
    return calls


@pytest.fixture
def no_ray(monkeypatch):
    """A session without a Ray in it."""
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(session_module, "DRAIN_S", 0.0)


def start_job(address, folder: str) -> None:
    Engine(EngineConfig(address=address, workers=2, metrics_port=7), join(folder, "run")).start()


def start_training(address, folder: str) -> None:
    table = write_table(join(folder, "samples.parquet"), 8, 4)
    compute = ComputeConfig(address=address, workers=2, cpus_per_worker=3.0)
    train_on_ray(tiny(table, compute=compute), join(folder, "run"), lambda *_: None)


def start_sweep(address, folder: str) -> None:
    table = write_table(join(folder, "samples.parquet"), 8, 4)
    config = tiny(table, compute=ComputeConfig(address=address, cpus_per_worker=2.0))
    space = {"optimisation.rate": LogUniform(low=1e-5, high=1e-1)}
    sweep(config, space, SweepConfig(concurrent=2), join(folder, "run"), listener=NoListener())


class NoListener:
    def began(self, trial): ...
    def on_figures(self, trial, figures): ...
    def ended(self, trial): ...


STARTS = {"job": (start_job, 1, 3), "training": (start_training, 3, 7), "sweep": (start_sweep, 2, 4)}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_all_three_start_or_join_ray_alike_and_set_up_their_workers(start, address, asked, tmp_path):
    begin, threads, cpus = STARTS[start]
    with pytest.raises(Asked):
        begin(address, str(tmp_path))
    (arguments,) = asked
    environment = arguments["runtime_env"]["env_vars"]
    assert environment["OMP_NUM_THREADS"] == str(threads) and environment["OPENCV_FFMPEG_THREADS"] == "1"
    assert (
        environment.items()
        >= {"job": WORKER_ENVIRONMENT, "sweep": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}.get(start, {}).items()
    )
    assert arguments["log_to_driver"] and arguments["logging_level"] == "ERROR"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    if address:
        assert arguments["address"] == address and "num_cpus" not in arguments
    else:
        assert (arguments["address"], arguments["num_cpus"], arguments["num_gpus"]) == ("local", cpus, 0)
    assert len(os.listdir(tmp_path / "run" / "logs")) == 1


def test_a_ray_that_is_there_is_used_and_left(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it was started by somebody else"))
    with ray_session(None, LocalRay(cpus=2), {}, str(tmp_path)):
        pass
    assert asked == []


TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def head():
    """Address of a server that answers as the head of a Ray that requires a token (2.60)."""

    def answer(_request, context):
        if ("authorization", f"Bearer {TOKEN}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    handlers = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("mode", "token", "requires"), [(None, TOKEN, "a token"), ("token", "f" * 64, "another token")]
)
def test_a_ray_that_requires_a_token_is_named_before_ray_tries_to_connect(
    mode, token, requires, head, monkeypatch, tmp_path
):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would try for half a minute"))
    _use_token(monkeypatch, mode, token)
    with pytest.raises(ConfigError, match=f"{head} requires {requires}: set RAY_AUTH_MODE=token"):
        start_job(head, str(tmp_path))


def test_the_right_token_and_a_ray_that_does_not_answer_are_left_to_ray(head, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments["address"]))
    monkeypatch.setattr(session_module, "DRAIN_S", 0.0)
    _use_token(monkeypatch, "token", TOKEN)
    nobody = "127.0.0.1:9"
    for address in (head, nobody, "auto"):
        with ray_session(address, LocalRay(cpus=1), {}, str(tmp_path)):
            pass
    assert calls == [head, nobody, "auto"]


def _use_token(monkeypatch, mode: str | None, token: str) -> None:
    """The environment of a client; Ray keeps the token that it has read."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    AuthenticationTokenLoader.instance().reset_cache()


def lines_of(output: str) -> str:
    return "".join(read_text(uri) for uri in list_folder(join(output, "logs")))


@pytest.mark.fault
@pytest.mark.parametrize("debugging", [False, True], ids=["quiet", "debugging"])
def test_what_workers_print_before_they_die_is_kept_and_debugging_reaches_them(debugging, tmp_path, capsys):
    set_debugging(debugging)
    with ray_session(None, LocalRay(cpus=2), worker_environment(1, WORD="from-the-environment"), str(tmp_path)):

        @ray.remote(max_retries=0)
        def last_words():
            logging.getLogger("mvpose.example").debug("a detail")
            logging.getLogger("mvpose.example").warning("a warning")
            print(os.environ["WORD"], "s3://key:secret@bucket/a", flush=True)
            os.abort()

        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(last_words.remote())
    kept = lines_of(str(tmp_path))
    assert "START mvpose" in kept and "last_words: from-the-environment s3://bucket/a" in kept
    assert "a warning" in kept and "SIGABRT" in kept
    assert ("a detail" in kept) == debugging
    shown = capsys.readouterr()
    assert ("from-the-environment" in shown.out + shown.err) == debugging
    assert not ray.is_initialized()


def said_by_a_worker(text: str, pid: object = 12) -> None:
    session_module._worker_output().emit({"ip": "10.0.0.2", "pid": pid, "lines": [text], "task_name": "poses"})


def test_each_start_has_a_file_of_its_own_and_the_autoscaler_none(no_ray, tmp_path):
    for start in ("first", "second"):
        with ray_session("auto", LocalRay(cpus=1), {}, str(tmp_path)):
            said_by_a_worker(f"line of the {start} start")
            said_by_a_worker("Autoscaler status", "autoscaler")
            logging.getLogger("mvpose.run").warning("warned in the %s start", start)
    said_by_a_worker("too late")
    logs = [read_text(uri) for uri in list_folder(join(str(tmp_path), "logs"))]
    assert sorted("second" in log for log in logs) == [False, True]
    for log in logs:
        assert log.count("\n") == 3 and "10.0.0.2 pid 12 poses: line of the" in log and "warned in the" in log


def test_logs_of_a_run_on_s3_are_uploaded_when_it_ends_though_it_failed(no_ray, s3):
    output = join(s3, "run")
    with pytest.raises(ResultsError, match="full"), ray_session("auto", LocalRay(cpus=1), {}, output):
        said_by_a_worker("last words")
        raise ResultsError("full")
    assert "pid 12 poses: last words" in lines_of(output)


def test_a_folder_that_cannot_be_written_ends_with_a_sentence_and_starts_no_ray(asked, tmp_path):
    (tmp_path / "logs").write_text("a file of the user")
    with (
        pytest.raises(ResultsError, match=r"cannot write .*logs"),
        ray_session("auto", LocalRay(cpus=1), {}, str(tmp_path)),
    ):
        pass
    assert asked == []


def test_debugging_raises_the_level_of_ray_and_of_its_workers(asked, tmp_path):
    set_debugging(True)
    with pytest.raises(Asked):
        start_job("auto", str(tmp_path))
    (arguments,) = asked
    assert arguments["logging_level"] == "INFO" and logging.getLogger("ray.data").level == logging.INFO
    assert arguments["runtime_env"]["worker_process_setup_hook"] == "mvpose.ray_session.debug_worker"
    set_debugging(False)
    debug_worker()
    assert logging.getLogger("mvpose.pipeline.worker").isEnabledFor(logging.DEBUG)
