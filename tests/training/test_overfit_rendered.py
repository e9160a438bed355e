"""Every method learns people: by the loop of `mvpose train` it comes to millimetres on its rendered training set."""

from dataclasses import replace
from itertools import repeat

import pytest

from mvpose.datasets.sample import TRAIN
from mvpose.datasets.sample_table import write_samples
from mvpose.models.algebraic import AlgebraicConfig
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.fusion.canonical_fusion import FusionConfig
from mvpose.models.multiview import Decoding
from mvpose.models.network_settings import AlgebraicMethod, FusionMethod, VolumetricMethod
from mvpose.models.objective import ObjectiveConfig
from mvpose.models.objective_settings import WarmUp
from mvpose.models.volumes.volumetric import VolumetricConfig
from mvpose.rendering.corpus import Rendered
from mvpose.rendering.scene import ImageConfig
from mvpose.skeleton import RENDERED
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.feed import Feed
from mvpose.training.loop import Length, Process, train_loop
from mvpose.training.metrics_log import Report
from mvpose.training.optimisation import OptimisationConfig
from mvpose.training.training_config import NONE, SamplesConfig, TrainConfig
from tests.rendering.conftest import assets

__all__ = ["assets"]

SAMPLES, STEPS = 16, 400
DECODING = Decoding(sharpness=100.0)
FUSION = FusionConfig(points=32, head_width=48, keep_own_view=True, decoding=DECODING)
ALGEBRAIC = AlgebraicConfig(head_width=48, confidence_widths=(32, 16), floor=0.02, decoding=DECODING)
POINTS_FIRST = ObjectiveConfig(warm_up=WarmUp(start=0.2, full=0.4))
METHODS = {
    "baseline": (FusionMethod(method="baseline", fusion=FUSION), POINTS_FIRST),
    "fusion": (FusionMethod(method="fusion", fusion=FUSION), POINTS_FIRST),
    "concatenation": (FusionMethod(method="canonical_fusion", fusion=FUSION), POINTS_FIRST),
    "pooling": (FusionMethod(method="canonical_fusion", fusion=replace(FUSION, fusion="pooling")), POINTS_FIRST),
    "algebraic": (AlgebraicMethod(algebraic=ALGEBRAIC), POINTS_FIRST),
    "volumetric": (
        VolumetricMethod(
            volumetric=VolumetricConfig(
                voxels=16, channels=16, widths=(16, 32, 32), turn_in_training=False, algebraic=ALGEBRAIC
            ),
        ),
        ObjectiveConfig(
            joints_as="absolute",
            volume=0.02,
            volume_at="trilinear",
            coarse=1.0,
            warm_up=WarmUp(start=0.0, full=0.1),
        ),
    ),
}
# Measured after 300 steps: pooling 3.1 mm, concatenation 3.5, fusion 4.0, algebraic 4.3, baseline 4.8. Volumetric, with
# voxels 156 mm wide, comes to 2.5 mm, and to 1.1 after 400; with the nearest voxel alone it stayed at 6.8.
LIMIT_M = 0.005


@pytest.fixture(scope="session")
def rendered_people(assets, tmp_path_factory) -> str:
    """A table of rendered people by four cameras."""
    made = Rendered(
        assets=assets, train=SAMPLES, test=0, shard_samples=SAMPLES, people=40, images=ImageConfig(side=128)
    )
    uri = str(tmp_path_factory.mktemp("people") / "samples.parquet")
    write_samples(uri, made.read("train/00000"), RENDERED, made.name)
    return uri


def training(name: str, table: str) -> TrainConfig:
    """All samples in every step, as they are (0.3 s of one core, 0.8 s volumetric); judged on the same at the end."""
    method, objective = METHODS[name]
    return TrainConfig(
        data=table,
        method=replace(method, size=(128, 128), backbone=ResNetBackbone(depth=18, width=16)),
        samples=SamplesConfig(validation_split=TRAIN),
        augmentation=NONE,
        objective=objective,
        optimisation=OptimisationConfig(
            rate=3e-3, batch=SAMPLES, steps=STEPS, rise=40, average=0.9, clip=1.0, weight_decay=0.0
        ),
        validate_every=STEPS,
    )


def overfitted(config: TrainConfig, folder: str, report: Report) -> dict[str, float]:
    """Figures of the validation after the last step. The one batch is decoded once: without augmentation it is always
    the same, and decoding it 400 times would take longer than the training."""
    batch = next(Feed.open(config).batches(0))
    position = train_loop(
        config,
        Length(STEPS, STEPS),
        lambda _: repeat(batch),
        lambda: iter([batch]),
        Process(),
        Checkpoints(folder, keep=1),
        report,
    )
    assert position.best is not None
    return position.best.figures


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_overfits_rendered_people_to_millimetres(name, rendered_people, tmp_path):
    figures = overfitted(training(name, rendered_people), str(tmp_path), lambda step, figures: None)
    assert figures["validation/valid_share"] == 1.0
    assert figures["validation/mpjpe_m"] < LIMIT_M
