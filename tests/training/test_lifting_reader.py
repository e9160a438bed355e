"""Windows of 2D joints from a table of samples, and a lifter trained on them through the loop of every network."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import TRAIN, VALIDATION, Labels, SampleImage, SampleScene, scene_samples
from mvpose.datasets.sample_table import write_samples
from mvpose.models.network_settings import LifterConfig, LiftingMethod
from mvpose.models.objective_settings import ObjectiveConfig, WarmUp
from mvpose.models.saved import load_model
from mvpose.rendering.camera_rigs import static_rig
from mvpose.skeleton import HALPE20, HUMAN36M17, SKELETONS
from mvpose.training.feed import Feed
from mvpose.training.lifting_reader import NO_ROW, LiftingReader, Windows, in_camera, root_of
from mvpose.training.order import Take
from mvpose.training.training_config import (
    NONE,
    AugmentationConfig,
    ComputeConfig,
    OptimisationConfig,
    SamplesConfig,
    TrainConfig,
)
from mvpose.training.training_run import train
from tests.models.moving_people import smooth_people

FRAMES = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Four captures of people in the order of HUMAN36M17 before a ring of four cameras; one lacks a frame."""
    uri = str(tmp_path_factory.mktemp("lifting") / "table.parquet")
    rig, motion = static_rig("ring4"), smooth_people(4, FRAMES, seed=3)

    def samples():
        for c, joints in enumerate(motion.numpy()):
            frames = np.array([0, 1, 2, 4, 5] if c == 1 else range(FRAMES))
            split = VALIDATION if c == 3 else TRAIN
            scene = SampleScene(
                capture_id=f"c{c}", subject="", action="", split=split, rig=rig, skeleton=HUMAN36M17, fps=25.0
            )
            labels = Labels(frame=frames, position=np.arange(len(frames)), xyz=joints[frames])
            yield from scene_samples(scene, labels, lambda _: dict.fromkeys(rig.names, SampleImage()))

    write_samples(uri, samples(), HUMAN36M17, "moving")
    return uri


def _method(window=3, **settings) -> LiftingMethod:
    lifter = LifterConfig(window=window, width=16, blocks=1, heads=2, dropout=0.0)
    return LiftingMethod(**{"method": "lifting_transformer", "skeleton": "human36m17", "lifter": lifter, **settings})


def test_a_window_has_the_frames_around_a_row_and_none_of_another_capture(table):
    windows = Windows(RowReader(table), _method())
    assert windows.around(0).tolist() == [NO_ROW, 0, 1]
    assert windows.around(1).tolist() == [0, 1, 2]
    assert windows.around(5).tolist() == [4, 5, NO_ROW]
    # The second capture, rows 6 to 10, lacks its frame 3.
    assert windows.around(8).tolist() == [7, 8, NO_ROW]
    assert windows.around(9).tolist() == [NO_ROW, 9, 10]


def test_a_window_skips_frames_of_faster_footage(table):
    method = _method(lifter=LifterConfig(window=3, fps=12.5))
    assert Windows(RowReader(table), method).around(2).tolist() == [0, 2, 4]


def test_points_are_what_the_camera_sees_of_the_pose_with_the_detectors_errors(table):
    reader = LiftingReader(RowReader(table), _method(1), ("front",), None, 0)
    rows = RowReader(table)
    camera = rows.sample(0).rig.names[2]
    reader = LiftingReader(rows, _method(1), (camera,), None, 0)
    columns = reader[Take(0, 0, tuple(range(FRAMES)))]
    poses, visible = in_camera([rows.sample(i) for i in range(FRAMES)], camera, HUMAN36M17)
    assert visible.mean() > 0.9
    assert np.allclose(columns["poses"][:, 0], poses - root_of(poses, HUMAN36M17)[:, None], atol=1e-5)
    offset = np.linalg.norm(columns["points"][:, 0] - poses[..., :2] / poses[..., 2:], axis=-1)[columns["seen"][:, 0]]
    box = np.ptp(poses[..., 1] / poses[..., 2], axis=1).mean()
    assert 0 < np.median(offset) < 0.05 * box
    assert columns["known"].mean() > 0.5 and columns["points"][~columns["seen"]].max(initial=0.0) == 0.0


def test_the_joints_that_a_table_lacks_are_neither_seen_nor_known(table):
    reader = LiftingReader(RowReader(table), _method(1, skeleton="halpe20"), (), None, 0)
    columns = reader[Take(0, 0, (0, 1))]
    ears = HALPE20.indices("left_ear", "right_ear", "neck")
    assert not columns["seen"][..., ears].any() and not columns["known"][..., ears].any()
    assert columns["known"][..., HALPE20.index("left_knee")].any()


def test_a_sample_depends_on_epoch_and_row_alone(table):
    reader = LiftingReader(RowReader(table), _method(), (), AugmentationConfig(mirror=0.5), 7)
    together, alone = reader[Take(4, 1, (2, 3))], reader[Take(9, 1, (3,))]
    assert all(np.array_equal(together[name][1], alone[name][0]) for name in together)
    assert not np.array_equal(reader[Take(4, 2, (3,))]["points"], alone["points"])


@pytest.mark.parametrize("change", [{"mirror": 1.0}, {"rotation_degrees": 90.0}])
def test_augmented_points_belong_to_the_augmented_pose(table, change):
    """The pose is moved to its true place: the mean offset of points from its projection is the detector's."""
    rows = RowReader(table)
    camera = rows.sample(0).rig.names[0]
    columns = LiftingReader(rows, _method(1), (camera,), replace(NONE, **change), 0)[Take(0, 0, tuple(range(FRAMES)))]
    plain = LiftingReader(rows, _method(1), (camera,), None, 0)[Take(0, 0, tuple(range(FRAMES)))]
    assert not np.allclose(columns["poses"], plain["poses"], atol=1e-2)
    original, _ = in_camera([rows.sample(i) for i in range(FRAMES)], camera, HUMAN36M17)
    depth = root_of(original, HUMAN36M17)[:, 2]
    poses, points = columns["poses"][:, 0].astype(float), columns["points"][:, 0]
    # Least squares for the root's x and y at the known depth.
    z = poses[..., 2] + depth[:, None]
    root = np.median(points * z[..., None] - poses[..., :2], axis=1, keepdims=True)
    seen = columns["seen"][:, 0]
    assert np.median(np.linalg.norm(points - (poses[..., :2] + root) / z[..., None], axis=-1)[seen]) < 0.02


@pytest.mark.parametrize("method", ["lifting_mlp", "lifting_transformer"])
def test_a_lifter_is_trained_saved_and_loaded_like_every_network(table, tmp_path, method):
    config = TrainConfig(
        data=table,
        method=_method(method=method),
        samples=SamplesConfig(views=1, min_views=1),
        augmentation=NONE,
        objective=ObjectiveConfig(points=0.0, warm_up=WarmUp(start=0.0, full=0.0)),
        optimisation=OptimisationConfig(rate=1e-2, batch=8, steps=24, average=0.0),
        validate_every=12,
        compute=ComputeConfig(local=True),
    )
    config.check()
    figures = train(config, str(tmp_path / "out"))
    model = load_model(str(tmp_path / "out" / "model"))
    assert (model.rule.min_views, model.rule.max_views) == (1, 1) and model.config == config.method
    losses = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    first, last = (next(line for line in losses if line["step"] == step) for step in (12, 24))
    assert last["validation/mpjpe_m"] < first["validation/mpjpe_m"] or last["train/loss"] < 0.5
    batch = next(iter(Feed.open(config).validation_batches()))
    with torch.no_grad():
        error = (model.network(batch.points, batch.seen) - batch.poses).norm(dim=-1)[batch.known].mean()
    assert float(error) == pytest.approx(figures["validation/mpjpe_m"], abs=1e-4)
    assert model.lineage["trained_on"][0]["recordings"] == ["c0", "c1", "c2"]
    assert SKELETONS[model.rule.skeleton] is HUMAN36M17
