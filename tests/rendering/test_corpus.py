"""The corpus as users make it: in shards, through the verb, with the people that it is for."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import tyro

from mvpose.cli import parse
from mvpose.commands import dataset as command
from mvpose.datasets.crops import CropConfig
from mvpose.datasets.sample_table import read_samples
from mvpose.errors import ConfigError
from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.pipeline.dataset_shards import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.rendering.camera_rigs import static_rig
from mvpose.rendering.corpus import Rendered
from mvpose.rendering.motion import person_split
from mvpose.rendering.scene import SPLITS, ImageConfig
from mvpose.skeleton import RENDERED
from tests.conftest import REPOSITORY

SMALL = ImageConfig(side=64)
LOCAL = EngineConfig(local=True)


def corpus(assets: str, **changes) -> Rendered:
    return replace(
        Rendered(assets=assets, train=3, validation=0, test=1, shard_samples=2, people=40, images=SMALL), **changes
    )


def files(folder: str) -> dict[str, bytes]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".parquet"):
                with open(os.path.join(root, name), "rb") as file:
                    found[os.path.relpath(os.path.join(root, name), folder)] = file.read()
    return found


def test_a_corpus_of_groups_has_a_sample_for_each_of_their_people(assets):
    made = corpus(assets, people_in_image=3)
    samples = list(made.read("train/00000"))
    assert [(s.capture_id, s.person) for s in samples] == [
        (f"train-{i:06d}", person) for i in range(2) for person in range(3)
    ]
    assert len({s.subject for s in samples[:3]}) > 1
    with pytest.raises(ConfigError, match="a group has 2 people or more"):
        corpus(assets, people_in_image=1)


def test_shards_hold_all_samples_of_all_splits_and_nobody_is_in_two(assets):
    made = corpus(assets, rig="random", min_views=2, max_views=3, train=3, validation=1, test=2)
    assert made.shards() == ["train/00000", "train/00001", "validation/00000", "test/00000"]
    samples = [sample for shard in made.shards() for sample in made.read(shard)]
    assert [s.split for s in samples] == ["train"] * 3 + ["validation"] + ["test"] * 2
    assert len({s.capture_id for s in samples}) == 6
    cast = {split: [(s.subject, s.action) for s in samples if s.split == split] for split in SPLITS}
    for one, other in itertools.combinations(cast.values(), 2):
        for part in (0, 1):
            assert not {t[part] for t in one} & {t[part] for t in other}
    for sample in samples:
        assert len(sample.rig) in (2, 3) and sample.skeleton == RENDERED and sample.valid.all()
        assert 0.3 < np.ptp(sample.xyz, axis=0).max() < 2.3 and sample.xyz[:, 2].min() > -0.2
        assert sample.visible.mean() > 0.1


def test_the_same_shard_is_the_same_bytes_in_another_process_whatever_else_is_made(assets, tmp_path):
    settings = {"rig": "random", "test": 0, "shard_samples": 1}
    list(convert(corpus(assets, train=2, **settings), CropConfig(), str(tmp_path / "here"), LOCAL))
    run = [sys.executable, "-m", "mvpose", "dataset", "render", "--output", str(tmp_path / "there"), "--assets", assets]
    run += [
        "--rig",
        "random",
        "--train",
        "1",
        "--validation",
        "0",
        "--test",
        "0",
        "--shard-samples",
        "1",
        "--people",
        "40",
    ]
    subprocess.run([*run, "--images.side", "64", "--local"], check=True, capture_output=True)
    here, there = files(str(tmp_path / "here")), files(str(tmp_path / "there"))
    (name,) = there
    assert len(here) == 2 and here[name] == there[name]


@pytest.mark.slow
def test_ray_data_makes_the_bytes_of_a_plain_loop_and_goes_on_where_it_stopped(assets, tmp_path, shared_ray):
    made = {}
    for name, engine in (("loop", LOCAL), ("ray", EngineConfig(workers=1))):
        output = str(tmp_path / name)
        assert sum(r.rows for r in convert(corpus(assets), CropConfig(), output, engine)) == 4
        made[name] = files(output)
    assert made["loop"] == made["ray"] and len(made["ray"]) == 3
    os.remove(tmp_path / "loop" / "samples" / "train" / "00001.parquet")
    again = list(convert(corpus(assets), CropConfig(), str(tmp_path / "loop"), LOCAL))
    assert [r.rows for r in again] == [-1, 1, -1] and files(str(tmp_path / "loop")) == made["loop"]


def test_a_corpus_is_rendered_for_the_cameras_of_a_users_file(assets, tmp_path):
    rig, uri = static_rig("ring4"), str(tmp_path / "calib.toml")
    with open(uri, "w") as file:
        file.write(pose2sim_toml(rig))
    (sample,) = corpus(assets, calibration=uri, train=1, test=0).read("train/00000")
    assert set(sample.rig.names) <= set(rig.names) and len(sample.rig) >= 2
    of_file = rig.select(sample.rig.names)
    torch.testing.assert_close(sample.rig.camera_from_world.rotation, of_file.camera_from_world.rotation)
    torch.testing.assert_close(sample.rig.lens.coefficients, of_file.lens.coefficients)


def test_the_verb_renders_and_says_with_what(assets, tmp_path, capsys):
    arguments = [
        "render",
        "--assets",
        assets,
        "--train",
        "1",
        "--validation",
        "0",
        "--test",
        "0",
        "--images.side",
        "48",
        "--local",
    ]
    parsed = tyro.cli(command.Dataset, args=[*arguments, "--output", str(tmp_path / "out")])
    assert command.run(parsed) == command.COMPLETE
    said = capsys.readouterr().out
    assert "rendering on " in said and "train/00000: 1 samples" in said
    (sample,) = read_samples(str(tmp_path / "out"))
    image = cv2.imdecode(np.frombuffer(sample.images[0].crop or b"", np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (48, 48, 3) and image.std() > 10


@pytest.mark.parametrize(
    ("named", "rig", "train"),
    [("render-ring4", "ring4", 18000), ("render-unseen-rig", "random", 18000), ("render-eight-views", "random", 20000)],
)
def test_the_named_corpora_of_the_benchmarks_are_read_and_flags_override_them(named, rig, train):
    uri = os.path.join(REPOSITORY, "jobs", "configs", f"{named}.toml")
    parsed = parse("dataset", ["render", "--config", uri, "--test", "7"])
    assert isinstance(parsed, command.Render)
    assert (parsed.corpus.rig, parsed.corpus.train, parsed.corpus.test) == (rig, train, 7)


def test_settings_that_make_no_corpus_are_refused():
    with pytest.raises(ConfigError, match="non-negative number"):
        Rendered(train=-1)
    with pytest.raises(ConfigError, match="min_views 5, max_views 4"):
        Rendered(min_views=5, max_views=4)
    other = "train" if person_split(0) == "test" else "test"
    with pytest.raises(ConfigError, match=f"none of 1 people is in the {other} split"):
        list(corpus("nowhere", people=1).read(f"{other}/00000"))
