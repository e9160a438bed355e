"""Bottom-up networks in the training loop: images of all people, from settings to a saved model."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import TRAIN, VALIDATION
from mvpose.datasets.sample_table import write_samples
from mvpose.errors import ConfigError
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.field_settings import FieldsConfig
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.objective_settings import ObjectiveConfig, WarmUp
from mvpose.models.saved import load_model
from mvpose.models.single_view.field_network import FieldNetwork
from mvpose.rendering.scene import ImageConfig, scene_people
from mvpose.skeleton import HALPE26
from mvpose.training.batches import GroupBatch
from mvpose.training.feed import Feed
from mvpose.training.group_reader import group_arrays
from mvpose.training.optimisation import OptimisationConfig
from mvpose.training.training_config import NONE, AugmentationConfig, ComputeConfig, SamplesConfig, TrainConfig
from mvpose.training.training_run import train
from tests.rendering.test_scene import Mannequins

IMAGES = ImageConfig(side=96, margin=1.2)
METHOD = FieldsMethod(
    skeleton="halpe20",
    size=(64, 64),
    backbone=ResNetBackbone(depth=18, width=4),
    fields=FieldsConfig(stages=2, width=8, kernel=3, upsampled=3),
)
TINY = TrainConfig(
    method=METHOD,
    objective=ObjectiveConfig(sigma=1.0, warm_up=WarmUp(start=0.0, full=0.0)),
    samples=SamplesConfig(views=2, min_views=1),
    augmentation=NONE,
    optimisation=OptimisationConfig(batch=2, steps=12, rate=3e-3, average=0.5),
    validate_every=6,
    compute=ComputeConfig(local=True),
)


@pytest.fixture(scope="module")
def groups(tmp_path_factory) -> str:
    """Four groups of two to train on and one to validate, by three cameras."""
    folder = tmp_path_factory.mktemp("groups")
    for split, count in ((TRAIN, 4), (VALIDATION, 1)):
        samples = [s for i in range(count) for s in scene_people(9, split, i, Mannequins(), 3, IMAGES, group=2)]
        write_samples(str(folder / f"{split}.parquet"), samples, HALPE26, "rendered-people")
    return str(folder)


def test_a_batch_has_everyone_in_each_image_with_the_joints_of_each_person_together(groups):
    config = replace(TINY, data=groups)
    feed = Feed.open(config)
    assert len(feed.order) == 4 and len(feed.validation_rows) == 1
    batch = next(feed.batches(0))
    assert isinstance(batch, GroupBatch)
    assert batch.images.shape == (4, 3, 64, 64) and batch.people.points.shape == (4, 2, 20, 2)
    table, take = RowReader(groups), feed.order.take(0)
    for i, row in enumerate(take.rows):
        people = [table.sample(row), table.sample(row + 1)]
        assert [(s.capture_id, s.person) for s in people] == [(people[0].capture_id, p) for p in range(2)]
        own = group_arrays(people, config.view, np.random.default_rng([0, take.epoch, row]), NONE)
        np.testing.assert_array_equal(batch.people.points[2 * i : 2 * i + 2].numpy(), own["points"])
        np.testing.assert_array_equal(batch.images[2 * i : 2 * i + 2].numpy(), own["images"])


def test_people_keep_their_places_when_the_image_is_turned_and_moved(groups):
    table, view = RowReader(groups), replace(TINY, data=groups).view
    people = [table.sample(0), table.sample(1)]
    turned = AugmentationConfig(rotation_degrees=30.0, scale=0.2, shift=0.4, colour=0.0, occluders=0.0)
    beyond = False
    for seed in range(5):
        found = group_arrays(people, view, np.random.default_rng(seed), turned)
        assert found["points"].shape == (2, 2, 20, 2) and found["known"].all()
        for p, sample in enumerate(people):
            places = np.concatenate([sample.xyz[:20], np.ones((20, 1))], axis=1) @ found["projections"].swapaxes(1, 2)
            np.testing.assert_allclose(found["points"][:, p], places[..., :2] / places[..., 2:], atol=1e-3)
        edge = (found["points"] >= -0.5).all(axis=-1) & (found["points"] <= 63.5).all(axis=-1)
        np.testing.assert_array_equal(found["inside"], edge)
        beyond |= not edge.all()
    assert beyond


def test_an_empty_slot_is_nobody_and_other_crops_are_refused(groups):
    table, view = RowReader(groups), replace(TINY, data=groups).view
    alone = group_arrays([table.sample(0)], view, np.random.default_rng(0), slots=3)
    assert alone["known"][:, 0].all() and not alone["known"][:, 1:].any()
    with pytest.raises(ConfigError, match="has a crop about each person"):
        group_arrays([table.sample(0), table.sample(2)], view, np.random.default_rng(0))


def test_a_training_lowers_the_loss_and_saves_a_network_of_whole_images(groups, tmp_path):
    seen = []
    figures = train(replace(TINY, data=groups), str(tmp_path / "run"), lambda step, f: seen.append(f))
    losses = [f["validation/loss"] for f in seen if "validation/loss" in f]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert figures["validation/loss"] == min(losses) and math.isfinite(losses[0])
    model = load_model(str(tmp_path / "run" / "model"))
    assert isinstance(model.network, FieldNetwork) and model.rule.one_view
    assert (model.rule.crop.about, model.rule.crop.margin) == ("image", 1.0)


def test_a_table_of_single_people_and_mirroring_are_refused(table):
    with pytest.raises(ConfigError, match=r"no image of .* has several labelled people"):
        Feed.open(replace(TINY, data=table)).reader(training=True)
    with pytest.raises(ConfigError, match="mirror is for samples of one person"):
        replace(TINY, augmentation=AugmentationConfig(mirror=0.5)).check()
