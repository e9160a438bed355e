"""`mvpose evaluate` through its door, on a table of noise: what is written, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mvpose.commands.evaluate import Evaluate, _labels, run
from mvpose.datasets.origins import pose_digests
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.pictorial_step import bone_name
from mvpose.skeleton import HALPE26
from mvpose.tracking.registry import RegistryError, register
from tests.evaluation.small import some_samples, write_model, write_table
from tests.tracking.conftest import config, empty_store  # noqa: F401


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_table(str(folder / "table"), some_samples(frames=3))
    write_model(str(folder / "baseline"), "baseline")
    write_model(str(folder / "fusion"), "fusion")
    return folder


def read(folder) -> tuple[pd.DataFrame, dict]:
    return pd.read_parquet(folder / "samples.parquet"), json.loads((folder / "summary.json").read_text())


def test_a_model_is_judged_in_rows_figures_and_a_page(place, capsys):
    assert run(Evaluate(models=(str(place / "baseline"),), data=(str(place / "table"),), worst=2)) == 0
    rows, summary = read(place / "baseline" / "evaluation")
    assert rows.groupby("views").size().to_dict() == {4: 9, 3: 9, 2: 9}
    assert {"capture", "frame", "person", "subject", "action", "unseen", "mpjpe_relative_m", "pa_mpjpe_m"} < set(rows)
    main = rows[rows.max_views]
    assert summary["metrics"]["mpjpe_m"] == pytest.approx(main.mpjpe_m.mean())
    assert summary["metrics"]["mpjpe_m/filtered"] == pytest.approx(main.mpjpe_m[main.capture != "c"].mean())
    assert summary["metrics"]["mpjpe_m/action_mean"] == pytest.approx(main.groupby("action").mpjpe_m.mean().mean())
    assert summary["metrics"]["mpjpe_m/views=2/seen"] == pytest.approx(rows.mpjpe_m[rows["views"] == 2].mean())
    assert summary["metrics"]["mpjpe_m/joint=nose"] == pytest.approx(np.nanmean([e[0] for e in main.joint_error_m]))
    low, high = summary["intervals"]["mpjpe_m"]
    assert low <= summary["metrics"]["mpjpe_m"] <= high
    assert len(summary["data_sha256"]) == len(summary["model_sha256"]) == 64
    assert (main.mpjve_m.isna() == (main.frame == 0)).all() and main.jdr.notna().all()
    page = (place / "baseline" / "evaluation" / "evaluation.html").read_text()
    assert page.count("data:image/jpeg") == 1 and page.count("data:image/png") == 4 and "http://" not in page
    assert "| MPJPE, mm | samples (seen), 4 views |" in capsys.readouterr().out


def test_several_models_stand_in_one_table_with_a_dash_where_one_cannot_answer(place, tmp_path):
    models = (str(place / "baseline"), str(place / "fusion"))
    command = Evaluate(models=models, data=(str(place / "table"),), output=str(tmp_path), worst=0, unseen=True)
    assert run(command) == 0
    head, _, baseline, fusion = (tmp_path / "comparison.md").read_text().splitlines()
    assert head == "| MPJPE, mm | samples (unseen), 4 views | samples (unseen), 3 views | samples (unseen), 2 views |"
    assert baseline.startswith("| baseline | ") and fusion.endswith("| – | – |")
    records = json.loads((tmp_path / "comparison.json").read_text())
    assert [(r["method"], r["views"]) for r in records] == [("baseline", n) for n in (4, 3, 2)] + [("fusion", 4)]
    rows, summary = read(tmp_path / "baseline")
    assert rows.unseen.all() and summary["metrics"]["mpjpe_m/unseen"] == summary["metrics"]["mpjpe_m"]
    assert (tmp_path / "views.png").stat().st_size > 5000


def test_one_model_is_judged_by_several_3d_steps_in_one_table(place, tmp_path, capsys):
    """Fails if the steps share a folder or an answer, or a search is taken for the model's own step by the gate."""
    model = str(tmp_path / "model")
    shutil.copytree(place / "baseline", model, ignore=shutil.ignore_patterns("evaluation"))
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    description["lineage"] = {"limb_lengths_m": {bone_name(bone): 0.25 for bone in HALPE26.bones}}
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    command = Evaluate(
        models=(model,), data=(str(place / "table"),), output=str(tmp_path), worst=0, views=(4,), solver=("dlt", "psm")
    )
    assert run(command) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| model")]
    assert [line.split(" | ")[0] for line in table] == ["| model-dlt", "| model-psm"]
    (triangulated, own), (searched, psm) = (read(tmp_path / f"model-{solver}") for solver in ("dlt", "psm"))
    assert (triangulated.mpjpe_m - searched.mpjpe_m).abs().min() > 1e-3
    assert own["protocol"] == "every sample of split test, views 4" and psm["protocol"] == f"{own['protocol']}, psm"
    with pytest.raises(ConfigError, match="needs the mean limb lengths"):
        run(replace(command, models=(str(place / "baseline"),), solver=("rpsm",)))


def test_a_benchmark_takes_its_own_samples_and_views(place, tmp_path):
    models = (str(place / "baseline"),)
    data = (str(place / "table"),) * 2
    names = ("rendered-ring4", "rendered-unseen-rig")
    run(Evaluate(models=models, data=data, benchmark=names, output=str(tmp_path), worst=1, views=(2,)))
    rows, summary = read(tmp_path)
    # The protocol leaves out the damaged capture.
    assert set(rows.capture) == {"a", "b"} and (rows.unseen == (rows.benchmark == "rendered-unseen-rig")).all()
    assert summary["protocol"] == "rendered-ring4, views 2 + rendered-unseen-rig, views 2"
    assert summary["metrics"]["mpjpe_m/seen"] == pytest.approx(summary["metrics"]["mpjpe_m/unseen"])


def test_only_the_test_split_is_judged_unless_another_is_named(place, tmp_path):
    """Fails if all rows count by default."""
    samples = some_samples()
    mixed = write_table(
        str(tmp_path / "mixed"), [replace(s, split="train") if s.capture_id == "a" else s for s in samples]
    )
    for split, captures in ((None, {"b", "c"}), ("train", {"a"})):
        run(Evaluate(models=(str(place / "baseline"),), data=(mixed,), output=str(tmp_path / f"{split}"), split=split))
        rows, summary = read(tmp_path / f"{split}")
        assert set(rows.capture) == captures and set(rows.dataset) == {"rendered"}
        assert summary["protocol"] == f"every sample of split {split or 'test'}"


SEEN = pose_digests(some_samples()[0].xyz[None])[0]
"""The pose of one sample of the table."""


def seen_by(place, folder: str, key: str, **origins) -> str:
    """A model whose lineage names other origins than it has; of the other key it has none."""
    shutil.copytree(place / "baseline", folder, ignore=shutil.ignore_patterns("evaluation"))
    with open(f"{folder}/model.json") as file:
        description = json.load(file)
    named = {"dataset": "rendered", "recordings": [], "people": []} | origins
    description["lineage"] = {"trained_on": [], "validated_on": []} | {key: [named]}
    with open(f"{folder}/model.json", "w") as file:
        json.dump(description, file)
    return folder


@pytest.mark.parametrize(
    ("origins", "common"),
    [
        ({"recordings": ["sit"]}, "motions sit of rendered"),
        ({"people": ["S1", "S9"]}, "people S1 of rendered"),
        ({"dataset": "another", "poses": [SEEN]}, "the poses of 1 or more of these samples, under other names"),
    ],
)
def test_a_model_is_not_judged_on_what_it_was_trained_on(place, tmp_path, origins, common):
    """Fails if the lineage is not compared with the selected samples, or the evaluation is written all the same."""
    model = seen_by(place, str(tmp_path / "model"), "trained_on", **origins)
    with pytest.raises(ConfigError, match=f"^model was trained on {common}: evaluate it on a table"):
        run(Evaluate(models=(model,), data=(str(place / "table"),)))
    assert not (tmp_path / "model" / "evaluation").exists()


def test_what_is_known_of_a_training_is_noted(place, tmp_path, capsys):
    run(Evaluate(models=(str(place / "baseline"),), data=(str(place / "table"),), output=str(tmp_path / "a"), worst=0))
    assert "the lineage of baseline does not name what it was trained on" in capsys.readouterr().out
    model = seen_by(place, str(tmp_path / "model"), "validated_on", people=["S1"])
    run(Evaluate(models=(model,), data=(str(place / "table"),), worst=0))
    assert "the best step of the training of model was chosen by people S1 of rendered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, "no model or run given"),
        ({"split": "validation"}, "it needs any dataset, split validation.* it has the splits rendered test"),
        ({"benchmark": ("shelf",), "split": "test"}, "--split is part of a benchmark or protocol"),
        ({"data": ()}, "no ground truth given"),
        ({"benchmark": ("octopus",)}, "no benchmark is named 'octopus'"),
        ({"benchmark": ("rendered-ring4",), "data": ("nowhere",)}, "mvpose dataset render --rig ring4"),
        ({"benchmark": ("shelf",), "data": ()}, "benchmarks/shelf"),
        ({"benchmark": ("shelf",), "protocol": "shelf"}, "part of a benchmark"),
        ({"benchmark": ("shelf", "campus")}, "2 benchmarks need as many"),
        ({"benchmark": ("shelf",)}, "no sample for this protocol"),
        ({"views": (9,)}, "as many cameras"),
    ],
)
def test_what_cannot_be_judged_is_said(place, settings, message):
    given = {"models": (str(place / "baseline"),), "data": (str(place / "table"),), **settings}
    with pytest.raises(ConfigError, match=message):
        run(Evaluate(**given))


@pytest.mark.usefixtures("weights")
def test_a_version_of_the_registry_is_judged_as_its_folder_and_told_by_its_number(
    place,
    config,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    monkeypatch.chdir(tmp_path)
    register(config, str(place / "baseline"), "net")
    data = (str(place / "table"),)
    for uri in ("models:/net@challenger", str(place / "baseline")):
        run(Evaluate(models=(uri,), data=data, tracking=config, worst=0))
    assert "models:/net@challenger is models:/net/1\n" in capsys.readouterr().out
    rows, summary = read(tmp_path / "evaluation" / "net-1")
    expected_rows, expected = read(place / "baseline" / "evaluation")
    pd.testing.assert_frame_equal(rows, expected_rows)
    assert summary == expected
    both = Evaluate(models=("models:/net/1", uri), data=data, tracking=config, worst=0, output="both", views=(2,))
    assert run(both) == 0
    assert [line.split()[1] for line in (tmp_path / "both" / "comparison.md").read_text().splitlines()[2:]] == [
        "net-1",
        "baseline",
    ]
    with pytest.raises(RegistryError, match=r"version 7.*versions 1"):
        run(Evaluate(models=("models:/net/7",), data=data, tracking=config))


def test_a_folder_without_a_model_is_refused(place):
    with pytest.raises(WeightsError, match="no model in"):
        run(Evaluate(models=(str(place / "table"),), data=(str(place / "table"),)))


@pytest.mark.parametrize(
    ("uris", "labels"),
    [
        (("out/fused/model",), ["model"]),
        (("out/fused/model", "out/plain/model/"), ["fused", "plain"]),
        (("a/net/model", "b/net/model", "run"), ["a-net-model", "b-net-model", "run"]),
        (("models:/net/1", "models:/net/2", "out/net"), ["net-1", "net-2", "net"]),
        (("same", "same"), ["same", "same"]),
    ],
)
def test_several_are_told_apart_by_what_is_their_own(uris, labels):
    assert _labels(uris) == labels
