"""A bottom-up network in place of the default detector: from footage to 3D, in a loop and on Ray, named and refused."""

import json
import os
import shutil
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.benchmarks.reliability import ConfidenceBenchmark
from mvpose.benchmarks.reliability import run as fit_confidence
from mvpose.cli import run as mvpose
from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.errors import ConfigError
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.field_settings import FieldsConfig
from mvpose.models.input_rule import input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.saved import save_model, write_confidence
from mvpose.models.shipped import FUSION, model_folder
from mvpose.models.single_view.affinity_fields import limb_tree
from mvpose.models.single_view.field_network import LabelledPeople, field_objective
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, reconstruct_archive
from mvpose.records import Kind
from mvpose.run.pose_tables import keypoints_from_table
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore
from mvpose.scenes import Scene
from mvpose.skeleton import HALPE20
from tests.pipeline import coded_footage
from tests.pipeline.test_job import contents
from tests.pipeline.test_monocular_stage import saved_tiny

SIZE = (128, 96)
ZOOM = 2.0
FRAMES = 12
METHOD = FieldsMethod(
    skeleton="halpe20",
    size=SIZE,
    backbone=ResNetBackbone(depth=18, width=8),
    fields=FieldsConfig(stages=1, width=32, kernel=3, upsampled=3),
)


def standing() -> Scene:
    """Somebody who does not move and fills the small images of four cameras: 60 to 85 of 96 rows are one body."""
    plain = scenes.ring4(num_frames=1, skeleton=HALPE20)
    size = torch.tensor([SIZE] * len(plain.rig))
    rig = plain.rig.resized(ZOOM * size / plain.rig.size.to(torch.float64), (ZOOM * size).long())
    pixels, _ = rig.project(torch.from_numpy(plain.joints[0, 0]))
    middle = (pixels.amin(dim=1) + pixels.amax(dim=1)) / 2
    return replace(plain, rig=rig.cropped((middle - size / 2).round(), size))


def colours() -> np.ndarray:
    """Another pattern for each camera (V H W 3), by which a network can know it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 3, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(pattern, SIZE, interpolation=cv2.INTER_CUBIC) for pattern in coarse])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A network that has learnt the images of the four cameras by heart."""
    torch.manual_seed(0)
    scene, network, steps = standing(), build_method(METHOD).train(), 120
    pixels, _ = scene.rig.project(torch.from_numpy(scene.joints[0, 0]))
    everything = torch.ones(len(pixels), 1, len(HALPE20.joints), dtype=torch.bool)
    people = LabelledPeople(pixels[:, None].float(), everything, everything)
    images = torch.from_numpy(colours().transpose(0, 3, 1, 2).copy())
    # With the usual betas, joints are off by 1.5 pixels of the images after as many steps, and by 0.2 with these.
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3, betas=(0.7, 0.9))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimiser.zero_grad()
        sum(field_objective(network(images), people, limb_tree(HALPE20), SIZE, 1.0, 1.0).values()).backward()
        optimiser.step()
    folder = str(tmp_path_factory.mktemp("network") / "model")
    save_model(folder, network, input_rule(METHOD, 1.4), METHOD, {})
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("archive"))
    for part in ("videos", "calibration"):
        os.makedirs(os.path.join(folder, "trial", part))
    for camera, image in enumerate(colours()):
        with av.open(os.path.join(folder, "trial", "videos", f"cam{camera}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for _ in range(FRAMES):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    coded_footage.write_calibration(os.path.join(folder, "trial", "calibration", "Calib.toml"), standing())
    return folder


def job(archive: str, output, network: str, **changes) -> ReconstructJob:
    settings = {"clip_frames": 6, "engine": EngineConfig(local=True), "detector": DetectorConfig(detector=network)}
    return ReconstructJob(archive=archive, output=str(output), **(settings | changes))


@pytest.fixture(scope="module")
def finished(archive, model, tmp_path_factory) -> RunFolder:
    output = tmp_path_factory.mktemp("finished") / "run"
    assert not reconstruct_archive(job(archive, output, model)).failures
    return RunFolder(str(output))


def keypoints(run: RunFolder):
    store, (plan,) = ClipStore(run.uri, Kind.KEYPOINTS), run.plans()
    task = plan.tasks(Kind.KEYPOINTS)[0]
    return keypoints_from_table(store.read(store.committed(task.clip, task.fingerprint)))[0]


def test_footage_becomes_poses_of_the_joint_set_of_the_network(finished):
    """Fails if points stay in pixels of the maps, or confidences, boxes or joints are another person's."""
    (plan,) = finished.plans()
    poses, scene = finished.poses(plan), standing()
    assert poses.skeleton == HALPE20 and poses.xyz.shape[:2] == (FRAMES, 1)
    error = np.linalg.norm(poses.xyz[:, 0] - scene.joints[0, 0], axis=-1)
    # A pixel of the maps is 8 cm at the person; points left in such pixels would be metres off.
    assert np.isfinite(error).mean() > 0.9 and np.nanmedian(error) < 0.04
    found = keypoints(finished)
    assert found.xy.shape[:3] == (4, 6, 1) and found.skeleton == HALPE20
    known = found.confidence > 0
    assert known.mean() > 0.9 and 0.3 < found.confidence[known].mean() < 1.0
    np.testing.assert_array_equal(found.box[..., :2], np.nanmin(found.xy, axis=3))
    np.testing.assert_array_equal(found.box[..., 2:], np.nanmax(found.xy, axis=3))


def test_the_run_names_its_network_and_resumes_with_it(finished, archive, model):
    with open(os.path.join(finished.uri, "run.json")) as file:
        settings = json.load(file)["settings"]
    assert settings["detector.network"] == model and len(settings["detector.network_sha256"]) == 64
    notes = finished.summary().notes
    assert f"people and their joints are found bottom-up by the network in {model}" in notes
    assert any(note.startswith("triangulated without canonical fusion") for note in notes)
    before = contents(finished.uri)
    reconstruct_archive(job(archive, finished.uri, model))
    assert contents(finished.uri) == before


def test_ray_gives_the_same_bytes_as_the_plain_loop(finished, archive, model, tmp_path, shared_ray):
    """Run alone, it also fails if the plain loop computes in as many threads as torch happens to have."""
    reconstruct_archive(job(archive, tmp_path / "run", model, engine=EngineConfig(workers=2)))
    assert contents(str(tmp_path / "run")) == contents(finished.uri)


def test_other_thresholds_of_the_same_weights_are_another_detector(archive, model, tmp_path):
    """Fails if fingerprint or the copy in the run go by the weights alone."""
    own, output = str(tmp_path / "own" / "model"), tmp_path / "run"
    shutil.copytree(model, own)
    reconstruct_archive(job(archive, output, own))
    before = RunFolder(str(output)).plans()[0]
    with open(os.path.join(own, "model.json")) as file:
        description = json.load(file)
    description["config"]["fields"]["grouping"]["min_joints"] = 21
    with open(os.path.join(own, "model.json"), "w") as file:
        json.dump(description, file)
    with pytest.raises(ConfigError, match="detector: was"):
        reconstruct_archive(job(archive, output, own))
    reconstruct_archive(job(archive, output, own, replan=True))
    assert RunFolder(str(output)).plans()[0].keypoints != before.keypoints
    assert keypoints(RunFolder(str(output))).xy.shape[2] == 0


def test_a_fitted_confidence_scale_is_of_the_model_and_makes_another_detector(archive, model, tmp_path):
    """Fails if the scale is lost on loading, if it is not in the tables, or if a run resumes with another one."""
    own, output = str(tmp_path / "own" / "model"), tmp_path / "run"
    shutil.copytree(model, own)
    reconstruct_archive(job(archive, output, own))
    assert keypoints(RunFolder(str(output))).scale == AS_STATED
    scale = ConfidenceScale(likelihood=((0.0, 0.0), (0.5, 0.9)), border_odds=0.5)
    write_confidence(own, scale)
    with pytest.raises(ConfigError, match="detector: was"):
        reconstruct_archive(job(archive, output, own))
    reconstruct_archive(job(archive, output, own, replan=True))
    assert keypoints(RunFolder(str(output))).scale == scale


def test_only_a_trained_network_takes_a_fitted_scale(model):
    """Fails if a scale of another meaning of right, or of a detector with a card, is written."""
    bottom_up = DetectorConfig(detector=model)
    for config in (
        ConfidenceBenchmark(write=True),
        ConfidenceBenchmark(write=True, detector=bottom_up, right_within=0.1),
    ):
        with pytest.raises(ConfigError, match="--write needs a trained network"):
            fit_confidence(config)


def test_a_dry_run_says_what_finds_the_people(archive, model, tmp_path, capsys):
    words = ["reconstruct", archive, "--output", str(tmp_path / "run"), "--local", "--detector.detector", model]
    assert mvpose([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"note: people and their joints are found bottom-up by the network in {model}" in said
    assert f"detector.detector = {model}" in said and not (tmp_path / "run").exists()


def test_settings_that_contradict_it_are_refused_with_both_names(archive, model, tmp_path):
    output, other = tmp_path / "run", str(tmp_path / "other")
    saved_tiny(other)
    fusion = model_folder(FUSION)
    for changes, complaint in (
        ({"detector": DetectorConfig(detector=model, min_box_score=0.5)}, rf"detector\.min-box-score .*{model}"),
        ({"detector": DetectorConfig(detector=model, precision="bfloat16")}, rf"detector\.precision .*{model}"),
        ({"model": fusion}, rf"--model {fusion} fuses the tokens .*{model}"),
        ({"model": model}, rf"--model {model} .* name it as --detector\.detector"),
        ({"detector": DetectorConfig(detector=other)}, rf"{other} is a network of monocular, .* --model"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            plan_job(job(archive, output, model, **changes))
    assert not output.exists()
