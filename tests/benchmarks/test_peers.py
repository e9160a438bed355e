"""The whole job beside Pose2Sim: what is measured and compared. The command itself installs 2 GB and takes minutes."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from mvpose.benchmarks import peers, pose2sim_job
from mvpose.benchmarks.peers import (
    DECODING,
    JOB,
    PARALLEL,
    PeersBenchmark,
    TurnCost,
    measured,
    pose2sim_environment,
    repeated_footage,
    run,
    table,
    triangulated_frames,
)
from mvpose.errors import ConfigError, MvposeError
from mvpose.footage.demo_footage import CAPTURES, VIDEOS
from mvpose.footage.video.frames import probe, read_frames
from mvpose.footage.video.video_writer import write_video

# A child works, and waits for a file that says that its time has been read; for a minute, where nobody reads it.
WORK = """
import os, sys, time
while time.process_time() < 0.8: pass
for _ in range(600):
    if os.path.exists(sys.argv[1]): break
    time.sleep(0.1)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}, sys.argv[1]], check=True)"
PIPELINE = """
import json
class Pose2SimPipeline:
    def __init__(self, config): print(json.dumps(config))
    def poseEstimation(self): pass
    def synchronization(self): raise AssertionError
    def personAssociation(self): pass
    def triangulation(self): pass
"""


def test_the_table_compares_minima_and_medians_of_the_turns_and_costs_by_camera_frame():
    costs = {
        JOB: [TurnCost(10.0, 20.0), TurnCost(40.0, 16.0), TurnCost(12.0, 18.0)],
        PARALLEL: [TurnCost(20.0, 40.0), TurnCost(24.0, 32.0), TurnCost(80.0, 36.0)],
        DECODING: [TurnCost(1.0, 2.0)] * 3,
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(costs, 400)][2:]
    assert rows == [
        [JOB, "10.0", "40.0", "1.00 (1.00)", "1.00"],
        [PARALLEL, "20.0", "80.0", "0.50 (0.50)", "0.50"],
        [DECODING, "1.0", "5.0", "10.00 (12.00)", "8.00"],
    ]


def test_the_cost_of_a_command_includes_the_processes_that_it_starts(tmp_path, monkeypatch):
    read_times, was_read = peers._read_times, tmp_path / "read"

    def read(pid: int, spent: dict[int, float]) -> None:
        read_times(pid, spent)
        if sum(spent.values()) > 0.7:
            was_read.touch()

    monkeypatch.setattr(peers, "_read_times", read)
    command = [sys.executable, "-c", PARENT, str(was_read)]
    assert measured("work", command, str(tmp_path / "log")).core_seconds > 0.7


def test_a_step_that_fails_is_named_with_the_end_of_its_output(tmp_path):
    command = [sys.executable, "-c", "import sys; print('first'); sys.exit('no network')"]
    with pytest.raises(MvposeError, match=r"could not install it \(exit code 1, all output in .*log\): no network"):
        measured("install it", command, str(tmp_path / "log"))


def test_the_environment_is_kept_until_it_is_to_have_other_versions(tmp_path, monkeypatch):
    calls: list[str] = []

    def install(what: str, command: list[str], log: str) -> TurnCost:
        calls.append(what)
        os.makedirs(tmp_path / "pose2sim", exist_ok=True)
        if "broken==1" in command:
            raise MvposeError(what)
        return TurnCost(1.0, 1.0)

    monkeypatch.setattr(peers, "measured", install)
    expected = []
    for requirement, steps in (("broken==1", 2), ("broken==1", 2), ("peer==1", 2), ("peer==1", 0), ("peer==2", 2)):
        monkeypatch.setattr(peers, "REQUIREMENTS", (requirement,))
        expected += ["create an environment for Pose2Sim", f"install {requirement} with pip"][:steps]
        with nullcontext() if requirement != "broken==1" else pytest.raises(MvposeError, match=requirement):
            assert pose2sim_environment(str(tmp_path)) == str(tmp_path / "pose2sim" / "bin" / "python")
        assert calls == expected


def test_more_workers_than_cores_are_refused_before_anything_is_installed(tmp_path):
    with pytest.raises(ConfigError, match="100000 workers need as many cores"):
        run(PeersBenchmark(folder=str(tmp_path / "peers"), workers=100_000))
    assert os.listdir(tmp_path / "peers") == []


def test_the_footage_of_the_demo_is_repeated_whole_and_once(tmp_path, monkeypatch):
    for demo, calibration in CAPTURES.values():
        for file in (*VIDEOS, calibration):
            path = tmp_path / "source" / demo / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file == calibration:
                path.write_text("a calibration")
            else:
                write_video(str(path), (np.full((32, 48, 3), 40 * k, dtype=np.uint8) for k in range(5)), 30.0)
    monkeypatch.setenv("MVPOSE_FOOTAGE", str(tmp_path / "source"))
    archive, frames = repeated_footage(str(tmp_path / "peers"), 8)
    assert frames == 10 and repeated_footage(str(tmp_path / "peers"), 10) == (archive, 10)
    for file in VIDEOS:
        video = probe(os.path.join(archive, "single_person", file), "cam")
        (shown,) = read_frames(video, 0, 10, 10)
        assert np.abs(shown.mean(axis=(1, 2, 3)) - 40.0 * (np.arange(10) % 5)).max() < 4
    assert sorted(os.listdir(tmp_path / "peers")) == ["10", "demo"]


def test_frames_that_pose2sim_triangulated_are_counted_in_its_file(tmp_path):
    assert triangulated_frames(str(tmp_path)) == 0
    (tmp_path / "pose-3d").mkdir()
    header = "PathFileType\t4\t(X/Y/Z)\tp.trc\nDataRate\tCameraRate\tNumFrames\tNumMarkers\n60\t60\t97\t22\n"
    (tmp_path / "pose-3d" / "p.trc").write_text(header)
    assert triangulated_frames(str(tmp_path)) == 97


def test_pose2sim_runs_from_videos_to_triangulation_with_the_networks_it_is_given(tmp_path):
    (tmp_path / "Pose2Sim" / "Demo_SinglePerson").mkdir(parents=True)
    (tmp_path / "Pose2Sim" / "__init__.py").touch()
    (tmp_path / "Pose2Sim" / "Pose2Sim.py").write_text(PIPELINE)
    (tmp_path / "Pose2Sim" / "Demo_SinglePerson" / "Config.toml").write_text("its = 'defaults'")
    script = [sys.executable, "-P", pose2sim_job.__file__, str(tmp_path)]
    networks = ["boxes.onnx", "416", "416", "joints.onnx", "192", "256"]
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*script, *networks, "auto"], env=environment, capture_output=True, text=True, check=True)
    config, *steps = done.stdout.splitlines()
    pose = json.loads(config)["pose"]
    assert steps == ["step poseEstimation", "step personAssociation", "step triangulation"]
    assert "'det_model': 'boxes.onnx', 'det_input_size': [416, 416]" in pose["mode"]
    assert "'pose_model': 'joints.onnx', 'pose_input_size': [192, 256]" in pose["mode"]
    assert pose["parallel_workers_pose"] == "auto" and (tmp_path / "Config.toml").read_text() == "its = 'defaults'"
