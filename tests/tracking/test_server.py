"""The server of mlflow/compose.yaml: its file as far as it can be judged unrun, and its command on this machine."""

import configparser
import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest
import yaml

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.tracking import TrackingConfig, UnreachableError
from mvpose.tracking.registry import register, resolve
from tests.conftest import REPOSITORY
from tests.tracking.conftest import Server, free_port
from tests.tracking.models import saved

SERVICE_KEYS = {
    "image", "build", "command", "environment", "volumes", "ports", "depends_on", "healthcheck", "restart", "configs"
}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> dict:
    with open(os.path.join(REPOSITORY, "mlflow", "compose.yaml")) as file:
        return yaml.safe_load(file)


def test_services_name_what_there_is(compose):
    assert set(compose) == {"name", "services", "configs", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for other, when in service.get("depends_on", {}).items():
            needed = compose["services"][other]
            healthy = when["condition"] == "service_healthy"
            assert "healthcheck" in needed if healthy else needed["restart"] == "no", f"{name} waits for {other}"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
        if service["restart"] != "no":
            assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"]), name
        assert not service["image"].endswith(":latest") and ":" in service["image"]


def test_databases_are_named_with_the_driver_that_the_image_has(compose):
    """SQLAlchemy's default for postgresql:// is another one from version 2.1 on."""
    server = compose["services"]["server"]
    assert "psycopg2-binary" in server["build"]["dockerfile_inline"]
    assert server["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    assert "database_uri = postgresql+psycopg2://" in compose["configs"]["auth"]["content"]


def test_no_password_stands_in_the_file_and_each_must_be_given(compose):
    with open(os.path.join(REPOSITORY, "mlflow", "compose.yaml")) as file:
        text = file.read()
    with open(os.path.join(REPOSITORY, "mlflow", ".env.example")) as file:
        example = dict(line.strip().split("=", 1) for line in file if "=" in line and not line.startswith("#"))
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    for secret in ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY"):
        assert example[secret] == "" and f"${{{secret}:?" in text
    assert "--app-name=basic-auth" in compose["services"]["server"]["command"]
    exposed = [name for name, service in compose["services"].items() if service.get("ports")]
    assert exposed == ["server"]


def test_the_server_has_the_version_of_mlflow_that_is_tested_here(compose):
    import mlflow

    assert f"mlflow[auth]=={mlflow.__version__}" in compose["services"]["server"]["build"]["dockerfile_inline"]


@pytest.fixture
def postgres():
    """A PostgreSQL of its own on a port of this machine; its URI."""
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [os.path.dirname(shutil.which("initdb") or "")]
    if not os.path.exists(os.path.join(programs[-1], "initdb")):
        pytest.skip("no PostgreSQL is installed here")
    # Not below pytest's folder, which none but root may enter where root runs the tests; PostgreSQL refuses to be root.
    folder, port = tempfile.mkdtemp(), free_port()
    who = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    if who:
        shutil.chown(folder, "postgres")

    def command(program: str, *words: str) -> list[str]:
        return [os.path.join(programs[-1], program), *words]

    made = command("initdb", "-D", f"{folder}/data", "-U", "mlflow", "--auth=trust", "-E", "UTF8")
    subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL, **who)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    served = command("postgres", "-D", f"{folder}/data", "-p", str(port), *options)
    process = subprocess.Popen(served, cwd=folder, stderr=subprocess.DEVNULL, **who)
    try:
        where = ["-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
        while subprocess.run(command("pg_isready", "-q", *where)).returncode:
            assert process.poll() is None
            time.sleep(0.1)
        subprocess.run(command("createdb", *where, "mlflow"), check=True)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("authentication", [False, True])
def test_the_command_of_the_compose_file_serves_runs_and_models_from_postgresql(
    compose, postgres, tmp_path, monkeypatch, authentication
):
    service = compose["services"]["server"]
    words = [word for word in service["command"] if not word.startswith(("--host", "--port", "--workers", "--art"))]
    environment = {"MLFLOW_BACKEND_STORE_URI": postgres, "MLFLOW_FLASK_SERVER_SECRET_KEY": "s3cret"}
    arguments = [*words[2:], f"--artifacts-destination={tmp_path}/artifacts"]
    arguments = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word).replace("localhost", "127.0.0.1") for word in arguments]
    if authentication:
        pytest.importorskip("flask_wtf", reason="the auth app of MLflow needs mlflow[auth]")
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(compose["configs"]["auth"]["content"])
        parser["mlflow"]["database_uri"] = postgres
        with open(tmp_path / "auth.ini", "w") as file:
            parser.write(file)
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": f"{tmp_path}/auth.ini", "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-one-1"}
    else:
        arguments.remove("--app-name=basic-auth")
    server = Server(tmp_path, free_port(), arguments, environment)
    config = TrackingConfig(uri=server.uri, folder=str(tmp_path / "tracking"))
    try:
        server.start()
        if authentication:
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            with pytest.raises(UnreachableError):
                resolve(config, "models:/net@champion")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-one-1")
        run_id = tracking.start_run(config, "demo", {"a": 1})
        tracking.log_metrics(config, run_id, {"loss": 0.5}, 3)
        tracking.end_run(config, run_id, succeeded=True)
        assert tracking.described(config, run_id).startswith("MLflow run ")
        saved(str(tmp_path / "model"))
        version = register(config, str(tmp_path / "model"), "net")
        assert resolve(config, "models:/net@challenger") == version
        assert MlflowClient(server.uri).get_model_version("net", "1").tags["mvpose.weights_sha256"]
    finally:
        server.kill()
