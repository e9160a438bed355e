"""Captures of one camera beside those of several, as a user types it: lifted, marked as such, resumed and exported."""

import json
import os
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mvpose.cli import run
from mvpose.models.input_rule import input_rule
from mvpose.models.network_settings import LifterConfig, LiftingMethod
from mvpose.models.saved import load_model, save_model
from mvpose.models.single_view.lifting import lifter
from mvpose.pipeline.stages import SavedLifter
from mvpose.quality.findings import CheckKind
from mvpose.quality.judgement import Grade
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.lifted_people import lift_people
from mvpose.records import Kind
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore
from mvpose.run.verdict_table import findings_of
from mvpose.scenes import Scene, ring4, two_people_crossing
from mvpose.skeleton import HALPE20, HALPE26
from tests.commands.test_import import calibration, openpose, pixels

FRAMES = 24
LOCAL = ("--local", "--tracking.no-enabled", "--clip-frames", "12")
ALONE, TOGETHER = "one", "four"


def in_camera(scene: Scene, camera: int) -> np.ndarray:
    """T P J 3 in the axes of a camera, metres."""
    rigid = scene.rig.camera_from_world
    return scene.joints @ rigid.rotation[camera].numpy().T + rigid.translation[camera].numpy()


@pytest.fixture(scope="module")
def walk() -> Scene:
    return ring4(num_frames=FRAMES, skeleton=HALPE26)


@pytest.fixture(scope="module")
def model(walk, tmp_path_factory) -> str:
    """A lifter that knows the scene by heart, as seen by all of its cameras."""
    torch.manual_seed(0)
    method = LiftingMethod(lifter=LifterConfig(width=64, dropout=0.0))
    network = lifter(method).train()
    kept = HALPE26.indices(*HALPE20.joints)
    poses = torch.from_numpy(np.concatenate([in_camera(walk, v)[:, 0, kept] for v in range(4)])).float()[:, None]
    points, relative = poses[..., :2] / poses[..., 2:], poses - poses[:, :, [HALPE20.index("hip")]]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        optimiser.zero_grad()
        (network(points) - relative).norm(dim=-1).mean().backward()
        optimiser.step()
    folder = str(tmp_path_factory.mktemp("lifter"))
    save_model(folder, network, input_rule(method, 1.4), method, {})
    return folder


@pytest.fixture(scope="module")
def archive(walk, tmp_path_factory) -> str:
    """Two captures of one scene: by four cameras, and by the first of them alone."""
    folder = tmp_path_factory.mktemp("archive")
    for capture_id in (TOGETHER, ALONE):
        calibration(folder / capture_id, walk)
        openpose(folder / capture_id / "json", walk)
    for camera in walk.rig.names[1:]:
        os.rename(folder / ALONE / "json" / f"{camera}_json", folder / f"{camera}_hidden")
        for file in os.listdir(folder / f"{camera}_hidden"):
            os.remove(folder / f"{camera}_hidden" / file)
        os.rmdir(folder / f"{camera}_hidden")
    return str(folder)


def imported(archive: str, output, *arguments: str, exit_code: int = 0) -> RunFolder:
    command = ["import", "openpose", archive, "--fps", "30", "--output", str(output), *LOCAL, *arguments]
    assert run(command) == exit_code
    return RunFolder(str(output))


@pytest.fixture(scope="module")
def finished(archive, model, tmp_path_factory) -> RunFolder:
    return imported(archive, tmp_path_factory.mktemp("output") / "run", "--monocular", model)


def plan_named(folder: RunFolder, capture_id: str):
    (plan,) = [p for p in folder.plans() if p.capture_id.split("/")[0] == capture_id]
    return plan


def test_one_camera_is_lifted_and_put_where_the_person_is(finished, walk):
    poses = finished.poses(plan_named(finished, ALONE))
    known = HALPE26.indices(*HALPE20.joints)
    error = np.linalg.norm(poses.xyz[:, 0, known] - walk.joints[:, 0, known], axis=-1)
    assert poses.skeleton == HALPE26 and poses.xyz.shape[1] == 1
    assert np.nanmean(error) < 0.15 and np.nanmax(error) < 0.6
    hip = HALPE26.index("hip")
    relative = (poses.xyz - poses.xyz[:, :, [hip]])[:, 0, known] - (walk.joints - walk.joints[:, :, [hip]])[:, 0, known]
    assert np.linalg.norm(relative, axis=-1).mean() < 0.06
    # What the lifter does not know is missing, and nothing claims more than one view.
    assert np.isnan(poses.xyz[:, :, HALPE26.index("left_heel")]).all()
    assert poses.num_views.max() == 1 and np.isnan(poses.sigma_mm).all()


def test_the_other_captures_are_reconstructed_as_without_a_lifter(finished, archive, tmp_path):
    without = imported(archive, tmp_path / "run", exit_code=4)
    one, other = (plan_named(folder, TOGETHER) for folder in (finished, without))
    assert (one.poses, one.keypoints, one.filtered) == (other.poses, other.keypoints, other.filtered)
    assert np.array_equal(finished.poses(one).xyz, without.poses(other).xyz, equal_nan=True)


def test_without_a_lifter_the_message_names_what_is_missing(archive, tmp_path, capsys):
    folder = imported(archive, tmp_path / "run", exit_code=4)
    said = capsys.readouterr().out
    assert "only one camera has both footage and a calibration" in said and "--monocular MODEL" in said
    (failure,) = folder.summary().failures
    assert failure.clip.capture_id.startswith(ALONE)


def test_tables_and_verdict_say_that_one_camera_was_lifted(finished):
    alone, together = plan_named(finished, ALONE), plan_named(finished, TOGETHER)
    marked = {}
    for plan in (alone, together):
        for kind in (Kind.POSES, Kind.FILTERED):
            commits = [ClipStore(finished.uri, kind).committed(t.clip, t.fingerprint) for t in plan.tasks(kind)]
            tables = [ClipStore(finished.uri, kind).read(commit) for commit in commits]
            marked[plan, kind] = {json.loads(t.schema.metadata[b"mvpose"]).get("monocular", False) for t in tables}
        (task,) = plan.tasks(Kind.QUALITY)
        quality = ClipStore(finished.uri, Kind.QUALITY)
        found = findings_of(quality.read(quality.committed(task.clip, task.fingerprint)))
        left_out = [f for f in found if f.check == CheckKind.LEFT_OUT]
        assert len(left_out) == 1 and left_out[0].measured == (plan is together)
    assert marked == {(alone, k): {True} for k in (Kind.POSES, Kind.FILTERED)} | {
        (together, k): {False} for k in (Kind.POSES, Kind.FILTERED)
    }
    summary = finished.summary()
    verdict = summary.verdicts[alone.capture_id]
    assert verdict.grade != Grade.GOOD
    figures = summary.figures
    assert figures[alone.capture_id]["body_used_mean_px"] > 0, "its error is told"
    assert figures[alone.capture_id]["monocular"] == 1.0 and "monocular" not in figures[together.capture_id]
    rows = pq.read_table(f"{finished.uri}/verdicts.parquet").to_pylist()
    assert any("lifted" in row["reason"] for row in rows if row["capture"] == alone.capture_id)


def test_another_lifter_changes_the_fingerprint_of_the_lifted_capture_alone(finished, archive, model, tmp_path):
    other = str(tmp_path / "other")
    torch.manual_seed(1)
    method = LiftingMethod(lifter=LifterConfig(width=8))
    save_model(other, lifter(method), input_rule(method, 1.4), method, {})
    changed = imported(archive, tmp_path / "run", "--monocular", other)
    assert plan_named(changed, TOGETHER).poses == plan_named(finished, TOGETHER).poses
    assert plan_named(changed, ALONE).poses != plan_named(finished, ALONE).poses
    assert plan_named(changed, ALONE).keypoints == plan_named(finished, ALONE).keypoints


def test_a_finished_run_is_resumed_verified_and_exported(finished, archive, model, tmp_path, capsys):
    assert run(
        ["import", "openpose", archive, "--fps", "30", "--output", finished.uri, *LOCAL, "--monocular", model]
    ) in (0, 3)
    assert "Nothing to do" in capsys.readouterr().out
    assert run(["verify", finished.uri]) == 0
    assert run(["export", finished.uri, "--format", "trc", "csv_long", "--output", str(tmp_path), "--filtered"]) == 0
    assert [f for _, _, files in os.walk(tmp_path) for f in files if f.endswith(".trc")]


def test_a_network_that_is_no_lifter_is_refused(archive, tmp_path, capsys):
    imported(archive, tmp_path / "run", "--monocular", "canonical_tokens_halpe26", exit_code=1)
    assert "name a lifter" in capsys.readouterr().err


def test_two_people_before_one_camera_keep_their_identities(model):
    scene = two_people_crossing(num_frames=40)
    keypoints = scene.keypoints(noise_px=1.0)
    by_view = ("xy", "confidence", "box", "box_score")
    keypoints = replace(keypoints, **{name: getattr(keypoints, name)[:1] for name in by_view})
    rig = scene.rig.select(scene.rig.names[:1])
    lift = SavedLifter(model, load_model(model).sha256).opened()
    poses = lift_people(keypoints, rig, lift, ReconstructionConfig(), scene.fps, 8)
    projected = pixels(scene)[0]
    long = [p for p in range(poses.xyz.shape[1]) if np.isfinite(poses.xyz[:, p, :, 0]).any(axis=1).sum() > 30]
    assert len(long) == 2
    drawn, _ = rig.project(torch.from_numpy(np.nan_to_num(poses.xyz)).double())
    knee = HALPE26.index("left_knee")
    for p in long:
        there = np.isfinite(poses.xyz[:, p, knee, 0])
        apart = np.linalg.norm(drawn[0, :, p, knee].numpy()[:, None] - projected[:, :, knee], axis=-1)[there]
        nearest = apart.argmin(axis=1)
        assert (nearest == np.bincount(nearest).argmax()).mean() > 0.9
