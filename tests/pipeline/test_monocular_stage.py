"""A network of one image in a job: what it is shown, where its poses end, and what else they change (nothing)."""

import glob
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.errors import ConfigError
from mvpose.exchange.keypoints.import_config import OpenPoseImport
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.input_rule import input_rule
from mvpose.models.method import build_method
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.network_settings import MonocularConfig, MonocularMethod
from mvpose.models.saved import SavedModel, save_model
from mvpose.pipeline.detections import detected
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import reconstruct_archive
from mvpose.pipeline.monocular_stage import MonocularStage
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.lifted_people import lift_people
from mvpose.records import Keypoints2D, Kind
from mvpose.run.pose_tables import keypoints_from_table
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore
from mvpose.scenes import Scene, ring4, two_people_crossing
from mvpose.skeleton import HUMAN36M17
from tests.pipeline.test_job import archive, contents, job  # noqa: F401
from tests.pipeline.test_network_stage import SceneDetector

MARGIN = 1.3
TINY = MonocularMethod(
    skeleton="human36m17",
    size=(64, 64),
    backbone=ResNetBackbone(depth=18, width=8),
    monocular=MonocularConfig(width=8, depth=8),
)


class KnowsTheScene(torch.nn.Module):
    """Says where the person in the middle of the crop is, in the frame whose number is the brightness of the image."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        source, _ = scene.skeleton.remap(HUMAN36M17)
        self.truth = torch.from_numpy(scene.joints[:, :, source]).float()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, crops, projections, present=None, keep_maps=False) -> MultiViewPrediction:
        assert crops.shape[1] == 1 and crops.dtype == torch.uint8
        self.seen += zip(crops[:, 0], projections[:, 0], strict=True)
        frame = crops[:, 0, 0].flatten(1).max(dim=1).values.long() // 50
        found = []
        for t, projection in zip(frame.tolist(), projections[:, 0], strict=True):
            apart = (pixels_of(self.truth[t], projection).mean(dim=1) - 31.5).norm(dim=-1)
            found.append(self.truth[t, int(apart.argmin())])
        joints = torch.stack(found)
        valid = torch.ones(joints.shape[:2], dtype=torch.bool)
        valid[:, HUMAN36M17.index("left_wrist")] = False
        flat = joints[:, None, :, :2]
        return MultiViewPrediction(joints, valid, valid.float(), flat, valid[:, None].float(), valid[:, None])


def pixels_of(points: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    image = points @ projection[:, :3].T + projection[:, 3]
    return image[..., :2] / image[..., 2:]


def alone(scene: Scene) -> Scene:
    """The scene before its first camera alone."""
    first = {name: getattr(scene, name)[:1] for name in ("seen", "detected", "shift_px")}
    return replace(scene, rig=scene.rig.select(scene.rig.names[:1]), **first)


def stage_of(scene: Scene) -> MonocularStage:
    stage = MonocularStage.__new__(MonocularStage)
    stage.detector = SceneDetector(scene)
    stage.skeleton, stage.scale = stage.detector.skeleton, stage.detector.keypoints.scale
    stage.model = SavedModel(KnowsTheScene(scene), input_rule(TINY, MARGIN), TINY, "", {})
    return stage


def keypoints_of(stage: MonocularStage, scene: Scene, frames: int):
    """2D joints and poses of the first frames, whose images are as bright as their numbers say."""
    width, height = scene.rig.size[0].tolist()
    bright = (50 * np.arange(frames, dtype=np.uint8))[:, None, None, None]
    view = ViewFrames(np.broadcast_to(bright, (frames, height, width, 3)).copy(), np.ones(frames, bool))
    return stage.stacked(stage.seen_again([view], detected(stage.detector, [view]), scene.rig))


def test_everybody_before_one_camera_is_put_where_the_network_says():
    """Fails if poses are exchanged between people or frames, or taken for those of the world or of other joints."""
    scene = alone(two_people_crossing(num_frames=40))
    stage = stage_of(scene)
    keypoints = keypoints_of(stage, scene, 4)
    assert keypoints.xy.shape[2] == 2
    poses = lift_people(keypoints, scene.rig, None, ReconstructionConfig(), scene.fps, 8)
    assert poses.skeleton == stage.detector.skeleton and poses.xyz.shape[1] == 2
    known = [j for j in poses.skeleton.joints if j in HUMAN36M17.joints and j != "left_wrist"]
    assert len(known) > 12
    mine, theirs = poses.skeleton.indices(*known), scene.skeleton.indices(*known)
    for p in range(2):
        apart = [np.linalg.norm(poses.xyz[:, p, mine] - scene.joints[:4, q, theirs], axis=-1) for q in range(2)]
        assert min(np.nanmax(each) for each in apart) < 2e-3
    shown = poses.confidence[:, :, mine] > 0
    assert shown.mean() > 0.8 and np.isfinite(poses.xyz[:, :, mine]).all(axis=-1)[shown].all()
    unknown = poses.skeleton.indices("left_wrist", "left_eye")
    assert np.isnan(poses.xyz[:, :, unknown]).all() and (poses.confidence[:, :, unknown] == 0).all()
    assert poses.num_views.max() == 1 and np.isnan(poses.sigma_mm).all()
    # The 2D joints are the detector's own, so that the error is of the pose and not of its own projection.
    assert 0.0 <= np.nanmean(poses.error_px) < 0.5


def test_crops_are_cut_by_the_rule_of_the_network_about_the_joints_in_the_image():
    """Fails with another margin, the detector's boxes, or joints beyond the border."""
    scene = alone(ring4(num_frames=2))
    stage = stage_of(scene)
    keypoints_of(stage, scene, 2)
    network = stage.model.network
    assert isinstance(network, KnowsTheScene) and len(network.seen) == 2
    for t, (crop, projection) in enumerate(network.seen):
        assert crop.shape == (3, 64, 64) and crop.max() == 50 * t
        drawn = pixels_of(torch.from_numpy(scene.joints[t, 0]).float(), projection)
        extent = (drawn.max(dim=0).values - drawn.min(dim=0).values).max()
        assert abs(float(extent) - 64 / MARGIN) < 1.0
    stage.detector.keypoints.xy[:, :, :, scene.skeleton.index("left_wrist")] = -500.0
    stage.model.network.seen.clear()
    keypoints_of(stage, scene, 2)
    drawn = pixels_of(torch.from_numpy(scene.joints[0, 0]).float(), stage.model.network.seen[0][1])
    assert float((drawn.max(dim=0).values - drawn.min(dim=0).values).max()) > 0.8 * 64 / MARGIN


def saved_tiny(folder: str, seed: int = 0) -> str:
    torch.manual_seed(seed)
    return save_model(folder, build_method(TINY).eval(), input_rule(TINY, MARGIN), TINY, {})


@pytest.fixture(scope="module")
def mixed(archive, tmp_path_factory) -> str:  # noqa: F811
    """A capture by four cameras, and one by one of them."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("one", "solo"):
        shutil.copytree(os.path.join(archive, "one"), folder / name)
    for camera in ("cam1", "cam2", "cam3"):
        os.remove(folder / "solo" / "videos" / f"{camera}.mp4")
    return str(folder)


@pytest.fixture(scope="module")
def lifted_run(mixed, tmp_path_factory) -> RunFolder:
    """Of the mixed archive by a plain loop, with the network in `model` beside it."""
    folder = tmp_path_factory.mktemp("lifted")
    saved_tiny(str(folder / "model"))
    assert not reconstruct_archive(job(mixed, str(folder / "run"), monocular=str(folder / "model"))).failures
    return RunFolder(str(folder / "run"))


def model_beside(run: RunFolder) -> str:
    return os.path.join(os.path.dirname(run.uri), "model")


def plan_named(run: RunFolder, name: str):
    (plan,) = [p for p in run.plans() if p.capture_id.startswith(name)]
    return plan


def first_clip(run: RunFolder, plan) -> Keypoints2D:
    """2D joints of the first clip of a capture."""
    store, task = ClipStore(run.uri, Kind.KEYPOINTS), plan.tasks(Kind.KEYPOINTS)[0]
    return keypoints_from_table(store.read(store.committed(task.clip, task.fingerprint)))[0]


def test_a_mixed_archive_has_poses_of_both_kinds_in_the_same_tables(mixed, lifted_run, tmp_path):
    """Fails if the network touches captures of several cameras, or its digest is no part of the lone one's plan."""
    saved_tiny(str(tmp_path / "model"), 1)
    assert not reconstruct_archive(job(mixed, str(tmp_path / "run"), monocular=str(tmp_path / "model"))).failures
    runs = lifted_run, RunFolder(str(tmp_path / "run"))
    reconstruct_archive(job(mixed, str(tmp_path / "without")))
    without = RunFolder(str(tmp_path / "without"))
    together = [plan_named(run, "one") for run in (*runs, without)]
    assert len({(p.keypoints, p.poses, p.filtered) for p in together}) == 1
    solo = [plan_named(run, "solo") for run in runs]
    assert len({p.keypoints for p in solo}) == len({p.poses for p in solo}) == 2
    lifted = first_clip(runs[0], solo[0]).lifted
    assert lifted is not None and first_clip(runs[0], together[0]).lifted is None
    rig = runs[0].rig(solo[0]).camera_from_world
    xyz = runs[0].poses(solo[0]).xyz[: lifted.shape[1], 0]
    in_camera = xyz @ rig.rotation[0].numpy().T + rig.translation[0].numpy()
    known = np.isfinite(in_camera)
    assert known.any(axis=-1).mean() > 0.5 and np.abs(lifted[0, :, 0] - in_camera)[known].max() < 1e-3
    figures = runs[0].summary().figures
    assert figures[solo[0].capture_id]["monocular"] == 1.0 and figures[solo[0].capture_id]["body_used_mean_px"] > 0
    assert reconstruct_archive(job(mixed, runs[0].uri, monocular=model_beside(runs[0]))).clips == 8


def test_ray_goes_on_where_the_plain_loop_was_interrupted_and_ends_with_the_same_bytes(
    mixed, lifted_run, tmp_path, shared_ray
):
    """Fails if a network of one image answers otherwise in a worker of Ray, or sees what other clips left there."""
    plain, output = lifted_run.uri, str(tmp_path / "run")
    # All that is kept of the results is the first clip of one camera's 2D joints, with what the network made of them.
    kinds = ("commits", "keypoints", "tracks", "identities", "poses", "filtered", "quality", "summary.json")
    shutil.copytree(plain, output, ignore=lambda folder, _: kinds if folder == plain else ())
    for first in glob.glob("**/keypoints/solo/0000000-0000010.*", root_dir=plain, recursive=True):
        os.makedirs(os.path.dirname(os.path.join(output, first)))
        shutil.copyfile(os.path.join(plain, first), os.path.join(output, first))
    assert len(RunFolder(output).plans()) == 2 and contents(output).keys() < contents(plain).keys()
    before = first_clip(RunFolder(output), plan_named(RunFolder(output), "solo")).lifted
    assert before is not None
    reconstruct_archive(job(mixed, output, monocular=model_beside(lifted_run), engine=EngineConfig(workers=2)))
    assert contents(output) == contents(plain)


def test_a_network_of_images_is_refused_where_2d_joints_are_imported(mixed, tmp_path):
    saved_tiny(str(tmp_path / "model"))
    with pytest.raises(ConfigError, match="takes images, but 2D joints are imported: name a lifter"):
        reconstruct_archive(
            job(mixed, str(tmp_path / "run"), monocular=str(tmp_path / "model"), imported=OpenPoseImport())
        )
    assert not (tmp_path / "run").exists()
