"""A registered version as a service has it: MLflow and the version's requirements, and not mvpose."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.footage.catalogue import CatalogueConfig, find_captures
from mvpose.footage.video.frames import probe, read_frames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.saved import load_model
from mvpose.models.shipped import FUSION, model_folder
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import SECOND_LOOK, Keypoints2D, Poses3D
from mvpose.run.run_folder import RunFolder
from mvpose.tracking.logged_model import requirements
from mvpose.tracking.registry import register
from tests.conftest import REPOSITORY
from tests.tracking.conftest import config, empty_store, free_port, with_weights  # noqa: F401
from tests.tracking.models import question, saved

MOMENTS = (0, 15, 30, 45)
"""Frames of the demo footage."""


def with_dependencies(names: list[str]) -> set[str]:
    """Installed distributions that these need, and theirs."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        key = wanted.name.lower().replace("_", "-")
        try:
            needs = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        if key in found:
            continue
        found.add(key)
        waiting += [r for text in needs if (r := Requirement(text)).marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="session")
def consumer(tmp_path_factory) -> str:
    """Interpreter of an environment that has MLflow and the requirements of a registered network, and nothing else."""
    folder = tmp_path_factory.mktemp("consumer")
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in with_dependencies(["mlflow", *requirements()]):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if not file.parts[0].startswith("..")}:
            source = os.path.join(str(distribution.locate_file("")), top)
            if os.path.exists(source) and not (site / top).exists():
                (site / top).symlink_to(source)
    # pip would have made this script, which `mlflow models serve` starts.
    script = folder / "bin" / "uvicorn"
    script.write_text(f"#!{folder}/bin/python\nfrom uvicorn.main import main\nmain()\n")
    script.chmod(0o755)
    return str(folder / "bin" / "python")


@pytest.fixture
def registered(config, tmp_path):  # noqa: F811
    saved(str(tmp_path / "out" / "model"))
    register(config, str(tmp_path / "out" / "model"), "net")
    return config


def expected(folder: str) -> np.ndarray:
    crops, projections, _ = question()
    with torch.inference_mode():
        found = load_model(folder).network(crops, projections)
    # An answer that everything would give proves nothing.
    assert found.valid.all() and found.joints.std(dim=0).max() > 1e-2 and found.joints.std(dim=1).max() > 1e-2
    return torch.where(found.valid[..., None], found.joints, torch.nan).double().numpy()


def environment_of_consumer(consumer: str, uri: str, home: str) -> dict[str, str]:
    """Of a service: nothing of mvpose, and no weights but those of the version."""
    return {
        "PATH": f"{os.path.dirname(consumer)}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "HOME": home,
        "OMP_NUM_THREADS": "1",
    }


CONSUME = """
import importlib.util, json, sys
assert importlib.util.find_spec("mvpose") is None
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/net@challenger")
assert "mlmodels" not in sys.modules["mvpose"].__file__
print(sys.modules["mvpose"].__file__)
print(model.predict(pandas.DataFrame(json.load(sys.stdin))).to_json(orient="records", double_precision=15))
"""


@pytest.mark.slow
def test_a_consumer_who_has_not_mvpose_gets_the_eager_answer(registered, consumer, tmp_path):
    _, _, rows = question()
    environment = environment_of_consumer(consumer, registered.uri, str(tmp_path))
    done = subprocess.run(
        [consumer, "-c", CONSUME], input=json.dumps(rows), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    code, answer = done.stdout.splitlines()[-2:]
    assert "/code/mvpose/" in code
    found = np.array([row["joints"] for row in json.loads(answer)], dtype=np.float64)
    np.testing.assert_allclose(found[:, 0], expected(str(tmp_path / "out" / "model")), atol=1e-5)


@contextmanager
def served(consumer: str, uri: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve` of net@challenger; its URL."""
    port = free_port()
    command = [consumer, "-m", "mlflow", "models", "serve", "-m", "models:/net@challenger", "--env-manager", "local"]
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment_of_consumer(consumer, uri, str(folder)),
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log_of(folder)
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def asked(url: str, rows: list[dict]) -> list[dict]:
    body = json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["predictions"]


def log_of(folder: Path) -> str:
    return (folder / "serve.log").read_text()[-3000:]


@pytest.mark.slow
def test_a_served_version_answers_a_real_request_as_the_network_does(registered, consumer, tmp_path):
    _, _, rows = question()
    with served(consumer, registered.uri, tmp_path) as url:
        answers = asked(url, rows)
    found = np.array([row["joints"] for row in answers], dtype=np.float64)
    np.testing.assert_allclose(found[:, 0], expected(str(tmp_path / "out" / "model")), atol=1e-5)


@pytest.fixture(scope="module")
def moments(footage, tmp_path_factory) -> Path:
    """Frames of the demo footage, 0.25 s apart, as an archive of JPEGs whose calibration is that of these images."""
    folder = tmp_path_factory.mktemp("moments")
    demo = os.path.join(footage, "Demo_SinglePerson")
    (folder / "original" / "take" / "calibration").mkdir(parents=True)
    shutil.copy(f"{demo}/calibration/Calib_scene.toml", folder / "original" / "take" / "calibration")
    shutil.copytree(f"{demo}/videos", folder / "original" / "take" / "videos")
    (capture,) = find_captures(str(folder / "original"), CatalogueConfig()).captures
    take = folder / "archive" / "take"
    (take / "calibration").mkdir(parents=True)
    (take / "calibration" / "Calib.toml").write_text(pose2sim_toml(capture.rig))
    # At 2 frames/s the job judges views by each frame alone.
    (take / "capture.toml").write_text('fps = 2.0\nunit = "m"\n')
    for video in capture.videos:
        images = take / "videos" / video.camera
        images.mkdir(parents=True)
        shown = probe(video.uri, video.camera)
        for k, frame in enumerate(MOMENTS):
            (image,) = next(iter(read_frames(shown, frame, frame + 1, 1)))
            cv2.imwrite(str(images / f"{k:04d}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder / "archive"


def by_the_job(archive: Path, output: Path) -> tuple[Poses3D, Keypoints2D, CameraRig]:
    """Of `mvpose reconstruct --model`, where people are looked for in every frame, as a service has to."""
    reconstruct_archive(
        ReconstructJob(
            archive=str(archive), output=str(output), engine=EngineConfig(local=True), model=FUSION,
            detector=DetectorConfig(chunk_frames=1),
        )
    )  # fmt: skip
    run_folder = RunFolder(str(output))
    (plan,) = run_folder.plans()
    poses, keypoints = run_folder.poses(plan), run_folder.keypoints(plan)
    assert poses is not None and keypoints is not None
    return poses, keypoints, plan.capture.rig


def distances(answer: list, poses: Poses3D, frame: int) -> np.ndarray:
    """Metres between the joints of an answer and those of the job, by person of the job; both know the same joints."""
    people = np.array(answer, dtype=np.float64)
    known = poses.xyz[frame][np.isfinite(poses.xyz[frame]).any(axis=(1, 2))]
    assert len(known) and known.shape == people.shape and (np.isfinite(known).all(axis=-1).sum(axis=1) >= 20).all()
    apart = np.linalg.norm(people[:, None] - known, axis=-1)
    nearest = apart[np.nanmean(apart, axis=2).argmin(axis=0), np.arange(len(known))]
    np.testing.assert_array_equal(np.isfinite(nearest), np.isfinite(known).all(axis=-1))
    return nearest


@pytest.mark.slow
@pytest.mark.footage
def test_the_example_client_gets_the_joints_of_the_job_from_whole_images(moments, consumer, config, tmp_path):  # noqa: F811
    """Fails if a camera, its lens, the detector, the matching or the triangulation is another than in the job."""
    poses, keypoints, rig = by_the_job(moments, tmp_path / "run")
    register(config, model_folder(FUSION), "net")
    take = moments / "take"
    calibration, cameras = take / "calibration" / "Calib.toml", sorted((take / "videos").iterdir())
    with served(consumer, config.uri, tmp_path) as url:
        for k in range(len(MOMENTS)):
            command = [consumer, os.path.join(REPOSITORY, "jobs", "ask_service.py"), url, str(calibration)]
            images = [str(camera / f"{k:04d}.jpg") for camera in cameras]
            done = subprocess.run([*command, *images], capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, done.stderr + log_of(tmp_path)
            assert np.nanmax(distances(json.loads(done.stdout), poses, k)) < 1e-3
        found = keypoints.box_score[:, -1] > SECOND_LOOK
        row = {
            "images": [base64.b64encode((camera / f"{k:04d}.jpg").read_bytes()).decode() for camera in cameras],
            "intrinsics": rig.intrinsics.tolist(),
            "distortion": rig.lens.coefficients.tolist(),
            "camera_from_world": rig.camera_from_world.matrix().tolist(),
            "boxes": [own[there].tolist() for own, there in zip(keypoints.box[:, -1], found, strict=True)],
        }
        (answer,) = asked(url, [row])
        # The table's boxes are rounded to float32, and 3e-5 px of a box move 2D joints by up to 1 px in bfloat16.
        assert np.nanmean(distances(answer["joints"], poses, k)) < 5e-3
        (nobody,) = asked(url, [row | {"boxes": [[]] * len(cameras)}])
        assert nobody["joints"] == []
