"""Labels without 3D truth: the truth of a table is replaced by what views agree on."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.cli import run as command_line
from mvpose.datasets.sample_table import read_samples
from mvpose.errors import CalibrationError, ConfigError
from mvpose.geometry.rigid import Rigid
from mvpose.metrics.joint_errors import n_mpjpe, pa_mpjpe
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.input_rule import input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import FieldsMethod, MonocularConfig, MonocularMethod
from mvpose.models.saved import load_model, save_model
from mvpose.skeleton import HUMAN36M17
from mvpose.training import self_labels
from mvpose.training.batches import CropView, sample_arrays
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import earlier_lineages, with_earlier_origins
from mvpose.training.self_labels import LabelConfig, PooledJoints, SelfLabels, upright
from mvpose.training.training_config import OptimisationConfig, SamplesConfig, TrainConfig
from tests.training.conftest import ring, write_table

METHOD = MonocularMethod(
    size=(64, 64), backbone=ResNetBackbone(depth=18, width=4), monocular=MonocularConfig(head="regression")
)
CONFIG = LabelConfig(min_joints=12)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Forty people before a rig with distorting lenses; the first walks with one camera less."""
    uri = write_table(str(tmp_path_factory.mktemp("people") / "samples.parquet"), 40, 0, rig=ring(lens=True))
    first, *rest = read_samples(uri)
    return [first.select(first.rig.names[1:]), *rest]


@pytest.fixture
def teacher(tmp_path) -> str:
    """Folder of an untrained network: it finds something in every view."""
    torch.manual_seed(0)
    save_model(str(tmp_path / "teacher"), build_method(METHOD), input_rule(METHOD, 1.4), METHOD, {})
    return str(tmp_path / "teacher")


def _true_joints(sample, noise=0.0005):
    """What a good teacher sees: true 2D joints on the plane z = 1, with half a millimetre of noise at 1 m."""
    points = sample.rig.camera_from_world.apply(torch.from_numpy(sample.xyz)[None])
    rng = np.random.default_rng(sample.frame)
    plane = points[..., :2] / points[..., 2:] + torch.from_numpy(rng.normal(0, noise, (*points.shape[:2], 2)))
    return plane, torch.ones_like(plane[..., 0])


def _labelled(samples, config):
    seen = PooledJoints.of(samples, [_true_joints(sample) for sample in samples])
    return list(self_labels._labelled(samples, seen, HUMAN36M17, config))


def test_with_known_cameras_labels_are_the_truth_in_the_world(samples):
    found = _labelled(samples, CONFIG)
    assert len(found) == len(samples)
    for sample, label in zip(samples, found, strict=True):
        assert np.nanmax(np.linalg.norm(label.xyz - sample.xyz, axis=-1)) < 0.02
        assert label.rig is sample.rig and label.images == sample.images


def test_labels_do_not_read_the_table_s_truth(samples):
    blind = [replace(sample, xyz=np.full_like(sample.xyz, np.nan)) for sample in samples]
    seen = PooledJoints.of(samples, [_true_joints(sample) for sample in samples])
    for config in (CONFIG, replace(CONFIG, extrinsics="estimated")):
        one, other = (list(self_labels._labelled(s, seen, HUMAN36M17, config)) for s in (samples, blind))
        assert all(np.array_equal(a.xyz, b.xyz, equal_nan=True) for a, b in zip(one, other, strict=True))


def test_without_extrinsics_labels_and_cameras_agree_and_have_a_unit_and_a_vertical(samples):
    nowhere = [replace(s, rig=replace(s.rig, camera_from_world=Rigid.identity(len(s.rig)))) for s in samples]
    seen = PooledJoints.of(nowhere, [_true_joints(sample) for sample in samples])
    found = list(self_labels._labelled(nowhere, seen, HUMAN36M17, replace(CONFIG, extrinsics="estimated")))
    predicted, truth = (torch.from_numpy(np.stack([s.xyz for s in x])) for x in (found, samples))
    assert pa_mpjpe(predicted, truth, torch.ones(40, 17, dtype=torch.bool)).max() < 0.01
    legs = predicted[:, HUMAN36M17.indices("left_hip", "left_knee", "left_ankle")]
    length = (legs[:, 1:] - legs[:, :-1]).norm(dim=-1).sum(dim=-1).median()
    assert abs(length - 0.491 * 1.7) < 0.02
    assert ((predicted[:, HUMAN36M17.index("head")] - predicted[:, 0])[:, 2] > 0.4).all()
    for sample, label in zip(samples, found, strict=True):
        pixels, _ = label.rig.project(torch.from_numpy(label.xyz))
        true, _ = sample.rig.project(torch.from_numpy(sample.xyz))
        assert (pixels - true).norm(dim=-1).median() < 1.0
        assert label.rig.names == sample.rig.names
    camera = [s.rig.camera_from_world.apply(torch.from_numpy(s.xyz)[None])[0] for s in (found[5], samples[5])]
    assert n_mpjpe(camera[0][None], camera[1][None], (0,), torch.ones(1, 17, dtype=torch.bool)) < 0.01


def test_a_joint_of_one_view_has_no_label_and_a_sample_of_few_joints_is_left_out(samples):
    seen = [_true_joints(sample) for sample in samples[:3]]
    seen[1][1][1:, :4] = 0.0
    seen[2][1][1:] = 0.0
    found = list(self_labels._labelled(samples[:3], PooledJoints.of(samples[:3], seen), HUMAN36M17, CONFIG))
    assert [label.frame for label in found] == [samples[0].frame, samples[1].frame]
    assert np.isnan(found[1].xyz[:4]).all() and np.isfinite(found[1].xyz[4:]).all()
    assert not found[1].visible[:, :4].any()


def test_a_body_without_legs_has_no_unit(samples):
    points = torch.from_numpy(np.stack([s.xyz for s in samples[:4]]))
    valid = torch.ones(4, 17, dtype=torch.bool)
    valid[:, HUMAN36M17.indices("left_ankle", "right_ankle")] = False
    with pytest.raises(CalibrationError, match="no leg"):
        upright(points, valid, Rigid.identity(4), HUMAN36M17, 1.7)


def test_a_bottom_up_teacher_is_refused(tmp_path):
    method = FieldsMethod(size=(64, 64), backbone=METHOD.backbone)
    save_model(str(tmp_path / "fields"), build_method(method), input_rule(method, 1.4), method, {})
    with pytest.raises(ConfigError, match="is a network of affinity_fields"):
        SelfLabels.of(str(tmp_path / "table"), LabelConfig(teacher=str(tmp_path / "fields"))).teacher_origins()


def test_joints_of_a_network_are_put_on_the_rays_of_its_crops(samples, teacher):
    sample, model = samples[3], load_model(teacher)
    plane, weights = self_labels._by_network(model, sample)
    rule = model.rule
    view = CropView(skeleton=HUMAN36M17, crop=rule.crop, views=len(sample.rig))
    arrays = sample_arrays(sample, view, np.random.default_rng(0))
    with torch.no_grad():
        found = model.network(*(torch.from_numpy(arrays[k])[:, None] for k in ("crops", "projections", "present")))
    ray = 3.0 * torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
    world = sample.rig.camera_from_world.inverse().apply(ray)
    image = torch.cat([world, torch.ones_like(world[..., :1])], dim=-1) @ torch.from_numpy(
        arrays["projections"]
    ).double().transpose(-1, -2)
    pixels = image[..., :2] / image[..., 2:]
    assert torch.allclose(pixels, found.joints_2d[:, 0].double(), atol=0.05)
    assert (weights == 1).all()


def test_the_verb_writes_a_table_that_says_what_its_labels_are(teacher, tmp_path, monkeypatch):
    source = tmp_path / "source" / "samples"
    source.mkdir(parents=True)
    write_table(str(source / "walk.parquet"), 12, 4)
    monkeypatch.setattr(self_labels, "_by_network", lambda model, sample: _true_joints(sample))
    output = str(tmp_path / "labels")
    flags = ["--local", str(tmp_path / "source"), "--teacher", teacher, "--output", output]
    assert command_line(["dataset", "label", *flags]) == 0
    assert len(list(read_samples(f"{output}/samples/walk.parquet"))) == 16
    made = json.loads((tmp_path / "labels" / "dataset.json").read_text())
    assert made["dataset"] == "drawn" and made["dataset.teacher_sha256"] == load_model(teacher).sha256
    assert made["dataset.config.extrinsics"] == "known"
    config = TrainConfig(
        data=output, method=METHOD, samples=SamplesConfig(min_views=1), optimisation=OptimisationConfig(batch=4)
    )
    assert Feed.open(config).lineage()["table"] == made


def test_labels_made_on_ray_are_those_of_a_plain_loop(teacher, tmp_path, shared_ray, capsys):
    """Fails if workers have another teacher or other settings than a plain loop."""
    source = tmp_path / "source" / "samples"
    source.mkdir(parents=True)
    for shard in ("walk", "talk"):
        write_table(str(source / f"{shard}.parquet"), 6, 2)
    # The teacher is untrained: its views agree within a thousand metres.
    labels = [str(tmp_path / "source"), "--teacher", teacher, "--max-error-px", "1e6", "--min-joints", "1"]
    made = {}
    for way, flags in (("ray", ["--workers", "2"]), ("loop", ["--local"])):
        output = tmp_path / way
        assert command_line(["dataset", "label", *flags, *labels, "--output", str(output)]) == 0
        made[way] = {str(f.relative_to(output)): f.read_bytes() for f in output.rglob("*.parquet")}
        made[way] |= {name: (output / name).read_bytes() for name in ("dataset.json", "teacher.json")}
    assert len(made["ray"]) == 4 and made["ray"] == made["loop"]
    capsys.readouterr()
    assert command_line(["dataset", "label", "--workers", "2", *labels, "--output", str(tmp_path / "ray")]) == 0
    assert "2 shards already existed" in capsys.readouterr().out


SEEN = {"trained_on": [{"dataset": "drawn", "recordings": ["held"], "people": ["a"]}], "validated_on": []}


@pytest.mark.parametrize("says", [True, False])
def test_a_student_has_seen_what_its_teacher_has_seen(tmp_path, monkeypatch, says):
    """Fails if the lineage names the labelled samples alone: the gate would judge the student on the teacher's data."""
    teacher = str(tmp_path / "teacher")
    save_model(teacher, build_method(METHOD), input_rule(METHOD, 1.4), METHOD, SEEN if says else {})
    table = write_table(str(tmp_path / "samples.parquet"), 12, 4)
    monkeypatch.setattr(self_labels, "_by_network", lambda model, sample: _true_joints(sample))
    labels = str(tmp_path / "labels")
    assert command_line(["dataset", "label", "--local", table, "--teacher", teacher, "--output", labels]) == 0
    config = TrainConfig(
        data=labels, method=METHOD, samples=SamplesConfig(min_views=1), optimisation=OptimisationConfig(batch=4)
    )
    for student in (config, replace(config, data=table, samples=replace(config.samples, validation=labels))):
        lineage = with_earlier_origins(Feed.open(student).lineage(), earlier_lineages(student))
        assert ("trained_on" in lineage) == says
        assert not says or lineage["trained_on"][0]["recordings"] == ["held", "walk"]
    # A table labelled before teachers were named does not say what its teacher has seen.
    os.remove(f"{labels}/teacher.json")
    assert "trained_on" not in with_earlier_origins(Feed.open(config).lineage(), earlier_lineages(config))


def test_a_card_s_network_has_seen_no_table_of_samples(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    table = write_table(str(tmp_path / "samples.parquet"), 1, 0)
    assert self_labels.SelfLabels.of(table, LabelConfig()).teacher_origins() == {"trained_on": [], "validated_on": []}
