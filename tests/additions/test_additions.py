"""Every door of `mvpose/README.md`, entered from outside the package through the command line."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from mvpose.cli import run
from mvpose.datasets.sample_table import read_samples
from mvpose.errors import WeightsError
from mvpose.footage.calibration import read_calibration
from mvpose.footage.catalogue import CatalogueConfig, find_captures
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import OwnMethod
from mvpose.models.saved import load_model, save_model
from mvpose.run.run_folder import RunFolder
from mvpose.scenes import ring4
from tests.evaluation.small import some_samples, write_model, write_table
from tests.pipeline import coded_footage

LABORATORY = "tests.additions.laboratory"


@pytest.fixture
def archive(tmp_path) -> str:
    """A capture of 8 frames and its calibration in the laboratory's format as well, named `lab.cal`."""
    capture = coded_footage.write_capture(str(tmp_path / "archive" / "one"), 8)
    rig = coded_footage.scene(40).rig
    pose = rig.camera_from_world
    cameras = {
        name: {
            "size": rig.size[v].tolist(), "K": rig.intrinsics[v].tolist(), "k": rig.lens.coefficients[v, :4].tolist(),
            "R": pose.rotation[v].tolist(), "t_mm": (1000 * pose.translation[v]).tolist(),
        }
        for v, name in enumerate(f"cam{v}" for v in range(len(rig)))
    }  # fmt: skip
    with open(os.path.join(capture, "lab.cal"), "w") as file:
        json.dump(cameras, file)
    with open(os.path.join(capture, "capture.toml"), "w") as file:
        file.write('calibration = "lab.cal"\n')
    return os.path.dirname(capture)


def test_a_calibration_format(archive):
    config = CatalogueConfig(calibration_reader=f"{LABORATORY}:read_lab_json")
    (capture,) = find_captures(archive, config).captures
    known = read_calibration(os.path.join(archive, "one", "calibration", "Calib.toml"))
    for own, theirs in ((capture.rig.focal, known.focal), (capture.rig.centres_world, known.centres_world)):
        np.testing.assert_allclose(own, theirs, atol=1e-6)
    without = find_captures(archive, CatalogueConfig())
    assert not without.captures and "calibration" in without.problems[0].detail


def test_a_detector_and_an_export(archive, tmp_path):
    output = str(tmp_path / "run")
    flags = ["--catalogue.calibration-reader", f"{LABORATORY}:read_lab_json", "--local"]
    coded = ["--detector.detector", coded_footage.DETECTOR, *flags]
    assert run(["reconstruct", archive, "--output", output, *coded]) == 0
    assert run(["export", output, "--format", f"{LABORATORY}:root_path_files"]) == 0
    with open(os.path.join(output, "export", "one", "raw", "one_person0.json")) as file:
        path = json.load(file)
    truth = coded_footage.scene(40)
    hip = truth.joints[:8, 0, RunFolder(output).poses(RunFolder(output).plans()[0]).skeleton.joints.index("hip"), :2]
    np.testing.assert_allclose(path["metres"], hip, atol=0.02)

    brightest = str(tmp_path / "brightest")
    detector = ["--detector.detector", f"{LABORATORY}:BrightestPixel", *flags]
    assert run(["reconstruct", archive, "--output", brightest, *detector]) in (0, 4)
    keypoints = RunFolder(brightest).keypoints(RunFolder(brightest).plans()[0])
    assert keypoints is not None and np.ptp(keypoints.xy, axis=-2).max() == 0


def test_a_metric(tmp_path):
    table = write_table(str(tmp_path / "table"), some_samples(frames=2))
    model = str(tmp_path / "model")
    write_model(model, "baseline")
    assert run(["evaluate", model, "--data", table, "--metrics", f"{LABORATORY}:worst_joint_m", "--worst", "1"]) == 0
    rows = pd.read_parquet(os.path.join(model, "evaluation", "samples.parquet"))
    np.testing.assert_allclose(rows.worst_joint_m, [np.nanmax(e) for e in rows.joint_error_m], rtol=1e-5)
    with open(os.path.join(model, "evaluation", "summary.json")) as file:
        assert json.load(file)["metrics"]["worst_joint_m"] == pytest.approx(rows.worst_joint_m[rows.max_views].mean())
    with open(os.path.join(model, "evaluation", "evaluation.html")) as file:
        assert "WORST JOINT" in file.read()


def test_a_method(tmp_path, monkeypatch):
    name = f"{LABORATORY}:NarrowBaseline"
    config = OwnMethod(network=name, skeleton="halpe26", size=(128, 128), backbone=ResNetBackbone(depth=18, width=8))
    table, model = write_table(str(tmp_path / "table"), some_samples(frames=1)), str(tmp_path / "model")
    save_model(model, build_method(config), input_rule(config, MARGIN), config, {})
    with pytest.raises(WeightsError, match="MVPOSE_TRUSTED_NETWORKS"):
        load_model(model)
    monkeypatch.setenv("MVPOSE_TRUSTED_NETWORKS", f"other:Network,{name}")
    assert run(["evaluate", model, "--data", table, "--worst", "1"]) == 0
    assert os.path.exists(os.path.join(model, "evaluation", "samples.parquet"))


def test_a_dataset(tmp_path):
    output = str(tmp_path / "table")
    own = ["own", "--reader", f"{LABORATORY}:LabWalks", "--folder", "anywhere"]
    assert run(["dataset", "convert", "--output", output, "--local", *own]) == 0
    samples = list(read_samples(output))
    assert len(samples) == 4 and samples[0].rig.names == ring4(num_frames=1).rig.names


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (
            ["reconstruct", "a", "--output", "b", "--detector.detector", f"{LABORATORY}:BrightestPixle"],
            "BrightestPixel",
        ),
        (["export", "a", "--format", f"{LABORATORY}:root_path_file"], "root_path_files"),
        (["export", "a", "--format", "trk"], "did you mean trc"),
        (["export", "a", "--format", "no.such.package:files"], "no.such"),
        (["evaluate", "a", "--data", "b", "--metrics", f"{LABORATORY}:worst_joint"], "worst_joint_m"),
        (
            ["dataset", "convert", "--output", "b", "own", "--reader", f"{LABORATORY}:Walks", "--folder", "a"],
            "LabWalks",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(verb, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coded_footage.write_capture("a/one", 2)
    assert run(verb) == 1 and said in capsys.readouterr().err
