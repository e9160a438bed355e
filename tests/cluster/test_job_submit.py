"""`ray job submit` as a user types it, to a head that a test starts: tokens on, ports of its own."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from mvpose.pipeline.job import reconstruct_archive
from mvpose.run.verification import verify_run
from tests.pipeline import coded_footage
from tests.pipeline.drivers import REPOSITORY
from tests.pipeline.test_job import contents, job

RAY = os.path.join(os.path.dirname(sys.executable), "ray")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def head(tmp_path, monkeypatch):
    """(address of its job server, its metrics port, its own address).

    `ray stop` would end every Ray of the machine: it is not used.
    """
    gcs, dashboard, agent, agent_grpc, metrics = free_ports(5)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("PYTHONPATH", REPOSITORY)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [RAY, "start", "--head", "--block", "--num-cpus=3", f"--port={gcs}", "--node-ip-address=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    command += [f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}"]
    command += [f"--temp-dir=/tmp/r{os.getpid()}", "--object-store-memory=100000000"]
    said = open(tmp_path / "head.txt", "wb")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    yield f"http://127.0.0.1:{dashboard}", metrics, f"127.0.0.1:{gcs}"
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    said.close()


def submit(address: str, *entrypoint: str) -> subprocess.CompletedProcess:
    command = [RAY, "job", "submit", "--address", address, "--", *entrypoint]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wait_for(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.5)


@pytest.mark.slow
def test_a_job_that_is_submitted_ends_with_the_bytes_of_a_plain_loop(head, tmp_path):
    address, metrics, gcs = head
    wait_for(address)
    archive, output, alone = (str(tmp_path / name) for name in ("archive", "run", "alone"))
    coded_footage.write_capture(os.path.join(archive, "one"), 20)
    script = os.path.join(REPOSITORY, "jobs", "reconstruct.py")
    flags = ["--output", output, "--clip-frames", "10", "--detector.detector", coded_footage.DETECTOR]
    entrypoint = [sys.executable, script, archive, *flags, "--tracking.no-enabled"]
    done = submit(address, *entrypoint)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    reconstruct_archive(job(archive, alone))
    assert contents(output) == contents(alone)
    assert verify_run(output).findings == ()

    join = [sys.executable, "-m", "mvpose", "reconstruct", archive, "--output", str(tmp_path / "second"), *flags[2:]]
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    second = subprocess.run([*join, "--address", gcs], env=without, capture_output=True, text=True, check=False)
    assert second.returncode == 1 and f"the Ray at {gcs} requires a token" in second.stderr

    refused = submit(address, *entrypoint, "--clip-frames", "5")
    assert refused.returncode != 0 and "clip_frames: was 10, now 5" in refused.stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
        assert "ray_" in answer.read().decode()
