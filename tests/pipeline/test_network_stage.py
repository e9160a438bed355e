"""A multi-view network as the source of 2D joints: what it is shown, where its answers lie, and which one it is."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.errors import ConfigError, WeightsError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.people import People
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.network_settings import FusionConfig, FusionMethod
from mvpose.models.saved import SavedModel
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.detections import detected
from mvpose.pipeline.job import reconstruct_archive
from mvpose.pipeline.network_stage import NetworkStage
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.run.run_folder import RunFolder
from mvpose.scenes import ring4
from mvpose.skeleton import SKELETONS
from mvpose.tracking import TrackingConfig
from mvpose.tracking.registry import register
from tests.pipeline.test_job import archive, job  # noqa: F401
from tests.tracking.models import SMALL, saved

JOINT = 9
BASELINE = FusionMethod(method="baseline", skeleton="coco17")


class SpotFinder(torch.nn.Module):
    """A network that says where the bright spot of each crop is, for every joint."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, crops, projections, present=None, keep_maps=False) -> MultiViewPrediction:
        light = crops.double().mean(dim=2)
        rows, columns = torch.arange(light.shape[-2]).double(), torch.arange(light.shape[-1]).double()
        total = light.sum(dim=(-1, -2)).clamp_min(1e-9)
        x, y = (light.sum(dim=-2) * columns).sum(-1) / total, (light.sum(dim=-1) * rows).sum(-1) / total
        joints_2d = torch.stack([x, y], dim=-1)[:, :, None].expand(-1, -1, 17, -1).float()
        sure = torch.ones(joints_2d.shape[:3]) * present[..., None]
        shape = (len(crops), 17)
        return MultiViewPrediction(
            joints=torch.zeros(*shape, 3), valid=torch.ones(shape, dtype=torch.bool), confidence=torch.ones(shape),
            joints_2d=joints_2d, confidence_2d=sure, views_used=sure > 0,
        )  # fmt: skip


class SceneDetector:
    """Knows where everybody of a scene is, frame after frame from the first."""

    digest = "scene"

    def __init__(self, scene) -> None:
        self.keypoints = scene.keypoints(noise_px=0.0)
        self.skeleton, self.chunk_frames = self.keypoints.skeleton, 2

    def __call__(self, views):
        return [[_people(self.keypoints, v, t) for t in range(len(frames))] for v, frames in enumerate(views)]


def _people(found, camera: int, frame: int):
    there = found.box_score[camera, frame] > 0
    return People(
        box=found.box[camera, frame, there], score=found.box_score[camera, frame, there],
        xy=np.nan_to_num(found.xy[camera, frame, there]), confidence=found.confidence[camera, frame, there],
    )  # fmt: skip


def network_stage(detector: SceneDetector, margin: float = MARGIN, config: FusionMethod = BASELINE) -> NetworkStage:
    """A stage with a network that finds spots and passes for one of the config."""
    stage = NetworkStage.__new__(NetworkStage)
    stage.detector, stage.config, stage.skeleton = detector, ReconstructionConfig(), detector.skeleton
    stage.model = SavedModel(SpotFinder(), input_rule(config, margin), config, "", {})
    return stage


def blank(scene) -> list[ViewFrames]:
    """Two black frames of every camera."""
    return [ViewFrames(np.zeros((2, h, w, 3), np.uint8), np.ones(2, bool)) for w, h in scene.rig.size.tolist()]


def seen_again(stage: NetworkStage, views: list[ViewFrames], rig: CameraRig) -> list[list[People]]:
    return stage.seen_again(views, detected(stage.detector, views), rig)


def test_a_spot_in_the_images_comes_back_where_it_is_lens_and_crop_and_all():
    scene = ring4(num_frames=2)
    assert scene.rig.lens.coefficients.any(), "a scene without distortion would prove less"
    detector = SceneDetector(scene)
    truth = detector.keypoints.xy[:, :, 0, JOINT]
    views = []
    for v, (width, height) in enumerate(scene.rig.size.tolist()):
        rows, columns = np.mgrid[:height, :width]
        spots = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2)) for x, y in truth[v]]
        images = np.stack([np.repeat((255 * s).astype(np.uint8)[..., None], 3, axis=-1) for s in spots])
        views.append(ViewFrames(images, np.ones(2, bool)))
    stage = network_stage(detector)
    people = seen_again(stage, views, scene.rig)
    for v in range(len(views)):
        for t in range(2):
            assert len(people[v][t].score) == 1
            np.testing.assert_allclose(people[v][t].xy[0, JOINT], truth[v, t], atol=1.0)


def test_a_network_of_another_number_of_views_is_refused():
    scene = ring4(num_frames=2)
    stage = network_stage(SceneDetector(scene), config=replace(BASELINE, method="fusion", fusion=FusionConfig(views=3)))
    with pytest.raises(ConfigError, match="takes exactly 3 views, but 4 are given"):
        seen_again(stage, blank(scene), scene.rig)
    pooling = FusionMethod(skeleton="coco17", fusion=FusionConfig(views=3, fusion="pooling"))
    stage = network_stage(SceneDetector(scene), config=pooling)
    assert seen_again(stage, blank(scene), scene.rig)


def test_the_margin_that_a_network_was_trained_with_is_that_of_its_crops():
    scene, cameras = ring4(num_frames=2), []
    for margin in (MARGIN, 2 * MARGIN):
        stage = network_stage(SceneDetector(scene), margin)
        stage.model.network.register_forward_pre_hook(lambda _, inputs: cameras.append(inputs[1]))
        seen_again(stage, blank(scene), scene.rig)
    # A crop of twice the margin shows twice as much: its focal lengths are half.
    lengths = [torch.linalg.cross(p[..., 0, :3], p[..., 2, :3]).norm(dim=-1) for p in cameras]
    torch.testing.assert_close(lengths[0], 2 * lengths[1])


def test_a_joint_that_the_network_does_not_answer_for_has_no_confidence_in_any_view():
    """Fails if the confidence of a view's map counts where the network found no joint."""
    scene = ring4(num_frames=2)
    stage = network_stage(SceneDetector(scene))

    def without_joint(module, inputs, answer: MultiViewPrediction) -> MultiViewPrediction:
        valid = answer.valid.clone()
        valid[:, JOINT] = False
        return replace(answer, valid=valid)

    stage.model.network.register_forward_hook(without_joint)
    people = seen_again(stage, blank(scene), scene.rig)
    confidence = np.stack([people[v][t].confidence[0] for v in range(4) for t in range(2)])
    assert (confidence[:, JOINT] == 0).all() and (np.delete(confidence, JOINT, axis=1) == 1).all()
    seen = stack_people(people, SKELETONS["coco17"])
    assert np.isnan(seen.xy[..., JOINT, :]).all() and np.isfinite(np.delete(seen.xy, JOINT, axis=3)).all()


@pytest.fixture
def own(archive, tmp_path) -> str:  # noqa: F811
    shutil.copytree(os.path.join(archive, "one"), tmp_path / "archive" / "one")
    return str(tmp_path / "archive")


def test_a_saved_network_makes_the_2d_joints_of_a_run_and_its_digest_is_part_of_the_plan(own, tmp_path):
    digest = saved(str(tmp_path / "model"))
    settings = {"model": str(tmp_path / "model")}
    output = str(tmp_path / "run")
    summary = reconstruct_archive(job(own, output, **settings))
    assert summary.clips == 4
    run_folder = RunFolder(output)
    keypoints = run_folder.keypoints(run_folder.plans()[0])
    assert keypoints.skeleton.name == SMALL.skeleton and (keypoints.confidence > 0).any()
    with open(os.path.join(output, "run.json")) as file:
        assert json.load(file)["settings"]["model_sha256"] == digest
    assert os.path.isfile(os.path.join(output, "models", digest[:16], "weights.safetensors"))
    saved(str(tmp_path / "model"), seed=3)
    with pytest.raises(ConfigError, match="model_sha256: was"):
        reconstruct_archive(job(own, output, **settings))


@pytest.mark.usefixtures("weights")
@pytest.mark.slow
def test_an_alias_is_resolved_once_and_one_that_has_moved_is_not_overlooked(own, tmp_path):
    registry = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "tracking"))
    for seed in (0, 3):
        saved(str(tmp_path / f"model{seed}"), seed)
    first = register(registry, str(tmp_path / "model0"), "net")
    settings = {"model": "models:/net@challenger", "tracking": registry}
    output, direct = str(tmp_path / "run"), str(tmp_path / "direct")
    reconstruct_archive(job(own, output, **settings))
    with open(os.path.join(output, "run.json")) as file:
        reported = json.load(file)["settings"]
    assert (reported["model"], reported["model_sha256"]) == ("models:/net/1", first.weights_sha256)
    reconstruct_archive(job(own, direct, model=str(tmp_path / "model0")))
    ours, theirs = (folder.keypoints(folder.plans()[0]) for folder in map(RunFolder, (output, direct)))
    np.testing.assert_array_equal(ours.xy, theirs.xy)
    register(registry, str(tmp_path / "model3"), "net")
    with pytest.raises(ConfigError, match="model: was 'models:/net/1', now 'models:/net/2'"):
        reconstruct_archive(job(own, output, **settings))


def test_a_folder_without_a_model_is_told_before_any_work(own, tmp_path):
    with pytest.raises(WeightsError, match="no model in"):
        reconstruct_archive(job(own, str(tmp_path / "run"), model=str(tmp_path)))
    assert not (tmp_path / "run").exists()
