"""A training from settings to a model, killed and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.cli import run as command_line
from mvpose.datasets.origins import pose_digests
from mvpose.datasets.sample_table import write_samples
from mvpose.errors import ConfigError
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.fusion.canonical_fusion import FusionConfig
from mvpose.models.fusion.cross_view_fusion import CrossViewFusion
from mvpose.models.network_settings import CrossViewConfig, CrossViewMethod, FusionMethod
from mvpose.models.objective import ObjectiveConfig
from mvpose.models.objective_settings import WarmUp
from mvpose.models.pictorial_step import PictorialStep
from mvpose.models.saved import load_model
from mvpose.skeleton import HUMAN36M17
from mvpose.storage.locations import read_bytes, read_text
from mvpose.training.checkpoints import Checkpoints, Trained, weights_bytes
from mvpose.training.feed import Feed
from mvpose.training.loop import NetworkWithLoss, begin, one_step
from mvpose.training.optimisation import OptimisationConfig
from mvpose.training.trainer import local_ray, scaling
from mvpose.training.training_config import NONE, CheckpointConfig, ComputeConfig, SamplesConfig, TrainConfig
from mvpose.training.training_run import train
from tests.training.conftest import drawn_sample, people, ring, write_table

TINY = TrainConfig(
    method=FusionMethod(
        size=(64, 64),
        backbone=ResNetBackbone(depth=18, width=4),
        fusion=FusionConfig(points=4, head_width=8, fusion="pooling"),
    ),
    objective=ObjectiveConfig(warm_up=WarmUp(start=0.2, full=0.5)),
    optimisation=OptimisationConfig(batch=4, steps=6, rate=1e-3, average=0.9),
    checkpoints=CheckpointConfig(every=5, keep=2),
    validate_every=3,
    log_every=2,
    compute=ComputeConfig(local=True, loaders=0),
)


def tiny(table: str, **changes) -> TrainConfig:
    return replace(TINY, data=table, **changes)


def test_a_training_leaves_a_model_with_its_lineage_and_its_figures(table, tmp_path):
    output, reported = str(tmp_path / "run"), []
    config = tiny(table, samples=SamplesConfig(margin=1.25))
    figures = train(config, output, lambda step, figures: reported.append((step, figures)))
    model = load_model(f"{output}/model")
    assert model.config == TINY.method
    assert model.rule.crop == config.view.crop and model.rule.crop.margin == 1.25
    assert model.lineage["data_digest"] == Feed.open(config).table.digest()
    assert model.lineage["metrics"]["validation/mpjpe_m"] == figures["validation/mpjpe_m"]
    assert model.lineage["settings"]["optimisation.batch"] == 4
    poses = pose_digests(people(56).astype(np.float32))
    for key, own in (("trained_on", poses[:48]), ("validated_on", poses[48:])):
        seen = {"dataset": "drawn", "recordings": ["walk"], "people": ["s"], "poses": sorted(own)}
        assert model.lineage[key] == [seen]
    lines = [json.loads(line) for line in read_text(f"{output}/metrics.jsonl").splitlines()]
    assert [(line.pop("step"), line) for line in lines] == reported
    assert [step for step, _ in reported] == [2, 3, 4, 6, 6]
    best = min(f["validation/mpjpe_m"] for _, f in reported if "validation/mpjpe_m" in f)
    assert figures["validation/mpjpe_m"] == best


CROSS_VIEW = CrossViewMethod(
    size=(64, 64), backbone=ResNetBackbone(depth=18, width=4), cross_view=CrossViewConfig(head_width=8)
)
MAPS_ALONE = ObjectiveConfig(heatmaps=10.0, points=0.0, joints=0.0)


def test_cross_view_fusion_trains_on_maps_and_leaves_a_model_with_rpsm_and_the_table_s_limbs(table, tmp_path):
    """Fails if limbs are those of other rows, one map is not trained, or further training starts from the search."""
    output, reported = str(tmp_path / "run"), []
    config = tiny(table, method=CROSS_VIEW, objective=MAPS_ALONE)
    train(config, output, lambda step, figures: reported.append(figures))
    assert {"train/heatmaps", "train/heatmaps_unfused"} < set(reported[0])
    model = load_model(f"{output}/model")
    assert isinstance(model.network, PictorialStep) and model.rule.max_views == 4
    truth = people(56)[:48]
    shin = np.linalg.norm(truth[:, 2] - truth[:, 3], axis=-1).mean()
    assert model.lineage["limb_lengths_m"]["right_knee-right_ankle"] == pytest.approx(shin, rel=1e-5)
    further = begin(replace(config, initial=f"{output}/model"), torch.device("cpu")).network
    assert isinstance(further, CrossViewFusion)


def test_a_dense_layer_is_not_trained_on_cameras_that_differ_between_samples(table, tmp_path):
    """Fails if three of four cameras are drawn for each sample, or named ones are refused."""
    three = replace(CROSS_VIEW, cross_view=replace(CROSS_VIEW.cross_view, views=3))
    with pytest.raises(ConfigError, match="belongs to 3 cameras, but samples have 1 set"):
        Feed.open(tiny(table, method=three, samples=SamplesConfig(views=3)))
    named = SamplesConfig(views=3, cameras=("cam0", "cam3", "cam1"))
    assert len(Feed.open(tiny(table, method=three, samples=named)).order) == 48


def test_a_training_whose_model_could_not_be_loaded_does_not_begin(table, tmp_path):
    """Fails if the missing limb is found after the training alone."""
    output = str(tmp_path / "run")
    config = tiny(table, method=replace(CROSS_VIEW, skeleton="mpii16"), objective=MAPS_ALONE)
    with pytest.raises(ConfigError, match="not known: thorax-neck, neck-head"):
        train(config, output)
    assert not os.path.exists(output)


def test_a_finished_training_is_not_done_again(table, tmp_path):
    output = str(tmp_path / "run")
    first = train(tiny(table), output)
    weights = read_bytes(f"{output}/model/weights.safetensors")
    assert train(tiny(table), output, lambda *_: pytest.fail("nothing is left to do")) == first
    assert read_bytes(f"{output}/model/weights.safetensors") == weights


def test_an_output_that_was_begun_with_other_settings_or_data_is_refused(table, tmp_path):
    output = str(tmp_path / "run")
    train(tiny(table), output)
    with pytest.raises(ConfigError, match="seed: was 0, now 1"):
        train(tiny(table, seed=1), output)
    other = write_table(str(tmp_path / "other.parquet"), 12, 4)
    with pytest.raises(ConfigError, match="data_digest"):
        train(tiny(other), output)
    train(tiny(table, compute=ComputeConfig(local=True, loaders=1), log_every=7), output)


def test_a_table_named_in_another_way_or_moved_resumes(table, tmp_path, monkeypatch):
    """Fails if the place of a table is compared, and not its digest."""
    output, copy = str(tmp_path / "run"), str(tmp_path / "copy.parquet")
    shutil.copy(table, copy)
    config = tiny("copy.parquet", samples=SamplesConfig(validation="copy.parquet"))
    monkeypatch.chdir(tmp_path)
    first = train(config, output)
    located = config.located()
    assert located.data == located.samples.validation == copy
    assert train(located, output) == train(tiny(table, samples=SamplesConfig(validation=table)), output) == first
    other = write_table(str(tmp_path / "other.parquet"), 4, 8)
    with pytest.raises(ConfigError, match="validation_digest"):
        train(tiny(table, samples=SamplesConfig(validation=other)), output)


def test_weights_of_the_backbone_are_found_from_any_folder(tmp_path, monkeypatch):
    """Fails if the name of a card becomes a path, or a file's name stays relative."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.pth").write_bytes(b"")
    named = [replace(TINY.method, backbone=replace(TINY.method.backbone, weights=w)) for w in ("start.pth", "a_card")]
    found = [tiny("table", method=method, initial="model").located() for method in named]
    assert [c.method.backbone.weights for c in found] == [str(tmp_path / "start.pth"), "a_card"]
    assert found[0].initial == str(tmp_path / "model") and found[0].samples.validation == ""


def test_a_share_of_the_recordings_validates_where_a_table_has_no_such_split(tmp_path):
    """Fails if frames of one recording are on both sides, or the split depends on the rows' order."""
    rig, poses = ring(), people(12)
    samples = [replace(drawn_sample(rig, poses[i], i), capture_id=f"take{i % 4}") for i in range(12)]
    feeds = []
    for name, rows in (("a", samples), ("b", samples[::-1])):
        write_samples(str(tmp_path / f"{name}.parquet"), rows, HUMAN36M17, "drawn")
        chosen = SamplesConfig(validation_share=0.25)
        feeds.append(Feed.open(tiny(str(tmp_path / f"{name}.parquet"), samples=chosen)))
    lineages = [feed.lineage() for feed in feeds]
    trained, validated = (lineages[0][key][0]["recordings"] for key in ("trained_on", "validated_on"))
    assert len(validated) == 1 and len(feeds[0].validation_rows) == 3 and len(feeds[0].order.rows) == 9
    assert sorted(trained + validated) == ["take0", "take1", "take2", "take3"]
    assert lineages[0] == lineages[1]
    with pytest.raises(ConfigError, match="two recordings or more"):
        write_samples(str(tmp_path / "c.parquet"), samples[::4], HUMAN36M17, "drawn")
        Feed.open(tiny(str(tmp_path / "c.parquet"), samples=SamplesConfig(validation_share=0.25)))


@pytest.mark.slow
def test_reading_ahead_in_other_processes_changes_nothing(table, tmp_path):
    for loaders in (0, 1):
        train(tiny(table, compute=ComputeConfig(local=True, loaders=loaders)), str(tmp_path / str(loaders)))
    first, second = (read_bytes(str(tmp_path / n / "model" / "weights.safetensors")) for n in ("0", "1"))
    assert first == second


def test_a_training_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(table, tmp_path):
    undisturbed, killed = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    config = tmp_path / "tiny.toml"
    config.write_text(KILLED_TOML)
    arguments = ["train", "--config", str(config), "--data", table, "--local", "--tracking.no-enabled", "--output"]
    assert command_line([*arguments, undisturbed]) == 0
    # 12 steps are an epoch and checkpoints come every 5 and 8: at 19 much of an epoch is done, and part of it is lost.
    process = subprocess.run([sys.executable, "-c", DIES_AT_19, *arguments, killed], stdout=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL
    position = Checkpoints(f"{killed}/checkpoints", 2).latest()
    assert position.step == 16 and not os.path.exists(f"{killed}/model")
    assert command_line([*arguments, killed]) == 0
    first, second = (read_bytes(f"{o}/model/weights.safetensors") for o in (undisturbed, killed))
    assert first == second
    steps = [
        json.loads(line)["step"] for line in read_text(f"{killed}/metrics.jsonl").splitlines() if "train/loss" in line
    ]
    assert steps == list(range(1, 33))


KILLED_TOML = """
validate_every = 8
log_every = 1
method = { method = "volumetric", size = [128, 128], backbone = { depth = 18, width = 4 }, volumetric = { voxels = 8,\
 channels = 4, widths = [4, 8], algebraic = { head_width = 8, confidence_widths = [8, 8] } } }
objective = { joints_as = "absolute", volume = 0.01, coarse = 1.0, warm_up = { start = 0.1, full = 0.2 } }
optimisation = { batch = 4, steps = 32, average = 0.9 }
checkpoints = { every = 5 }
"""


DIES_AT_19 = """
import os, signal, sys
from mvpose.cli import run
from mvpose.training.metrics_log import Journal
write = Journal.write
def write_and_die(journal, step, figures):
    write(journal, step, figures)
    if step == 19:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.write = write_and_die
run(sys.argv[1:])
"""


def test_a_training_in_a_bucket_goes_on_from_there(table, s3):
    output = f"{s3}/run"

    def stop(step: int, figures: dict[str, float]) -> None:
        if step >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(table), output, stop)
    assert Checkpoints(f"{output}/checkpoints", 2).latest().step == 3
    steps = []
    assert train(tiny(table), output, lambda step, _: steps.append(step))["step"] in (3, 6)
    assert steps == [4, 6, 6]


def test_a_batch_in_parts_moves_weights_as_the_whole_does(table):
    """Without normalisation over the batch in the way: the backbone is frozen, heads in evaluation mode."""
    moved = []
    for parts in (1, 2):
        config = tiny(table, augmentation=NONE)
        config = replace(config, optimisation=replace(config.optimisation, accumulate=parts, batch=8, optimiser="sgd"))
        state = begin(config, torch.device("cpu"))
        batch = next(Feed.open(config).batches(0))
        state.network.eval()
        one_step(NetworkWithLoss(state.network, config), state, batch, config, 0, 1.0, 0.0)
        moved.append(torch.cat([p.flatten() for p in state.network.parameters()]))
    torch.testing.assert_close(moved[0], moved[1], atol=1e-6, rtol=1e-5)


def test_a_frozen_backbone_keeps_no_activations_and_no_statistics(table):
    method = replace(TINY.method, backbone=replace(TINY.method.backbone, frozen=True))
    config = tiny(table, method=method)
    state: Trained = begin(config, torch.device("cpu"))
    before = weights_bytes(state.network.get_submodule("backbone"))
    features = state.network.get_submodule("backbone")(torch.rand(2, 3, 64, 64))
    assert features.grad_fn is None
    one_step(NetworkWithLoss(state.network, config), state, next(Feed.open(config).batches(0)), config, 0, 1.0, 0.0)
    assert weights_bytes(state.network.get_submodule("backbone")) == before


IN_PARTS = replace(TINY.optimisation, batch=8, accumulate=2)


def test_a_number_of_workers_may_be_a_range():
    """Fails if Ray is asked for a fixed number, or the batch must be a multiple of every number in between."""
    compute = ComputeConfig(workers="2-5", loaders=3)
    reserved = scaling(compute)
    assert reserved.num_workers == (2, 5) and (reserved.resources_per_worker or {})["CPU"] == 4.0
    assert scaling(ComputeConfig(workers=3)).num_workers == 3
    replace(TINY, compute=compute, optimisation=replace(TINY.optimisation, batch=32)).check()
    assert local_ray(compute).cpus == 21
    for wrong in ("5-2", "0-2", "2-", "two"):
        with pytest.raises(ConfigError, match="workers"):
            ComputeConfig(workers=wrong)


def test_settings_that_contradict_each_other_are_refused(table):
    wrong = [
        (tiny(table, optimisation=replace(TINY.optimisation, batch=5, accumulate=2)), "multiple of 2"),
        (
            tiny(table, method=replace(TINY.method, fusion=FusionConfig(views=3))),
            r"method\.fusion\.views\) and samples\.views",
        ),
        (tiny(table, objective=ObjectiveConfig(points=0.0)), "warm_up.start"),
        (tiny(table, compute=ComputeConfig(workers="2-5"), optimisation=IN_PARTS), "among 3 workers in 2 parts"),
        (tiny(table, samples=SamplesConfig(split="trian")), "its splits: train, validation"),
        (tiny(table, samples=SamplesConfig(cameras=("cam0", "cam9"))), "no sample of split 'train' with at least 2"),
    ]
    for config, message in wrong:
        with pytest.raises(ConfigError, match=message):
            train(config, "/nowhere")


def test_a_table_of_fewer_views_than_places_trains(tmp_path):
    table = write_table(str(tmp_path / "two.parquet"), 8, 4, rig=ring(2, lens=True))
    assert train(tiny(table), str(tmp_path / "run"))["validation/valid_share"] > 0
