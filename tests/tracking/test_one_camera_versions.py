"""Networks of one camera in the registry: what they answer, how a job finds them, and what they are compared with."""

import base64
import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import mlflow
from mvpose.errors import ConfigError
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.detection.people import People
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import LifterConfig, LiftingMethod, MonocularConfig, MonocularMethod
from mvpose.models.saved import load_model, save_model
from mvpose.tracking.chosen_model import choose_one_view_model, place_model
from mvpose.tracking.gate import Gate, decide_promotion
from mvpose.tracking.promotion import promote
from mvpose.tracking.registry import register
from tests.tracking.models import SEEN, evaluated, saved

LIFTER = LiftingMethod(lifter=LifterConfig(width=8, dropout=0.0))
OF_IMAGES = MonocularMethod(
    size=(64, 64), backbone=ResNetBackbone(depth=18, width=8), monocular=MonocularConfig(head="regression")
)
ONE = {"views": 1, "cameras": [["a"]] * 48}


def saved_one(folder: str, method: LiftingMethod | MonocularMethod, seed: int = 0, seen: dict = SEEN) -> str:
    torch.manual_seed(seed)
    return save_model(folder, build_method(method).eval(), input_rule(method, MARGIN), method, seen)


def errors(seed: int, better_m: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2 - better_m, 0.01, (12, 4))


def image_row(**columns) -> pd.DataFrame:
    noise = cv2.blur(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8), (9, 9))
    row = {
        "images": [base64.b64encode(cv2.imencode(".png", noise)[1].tobytes()).decode()],
        "intrinsics": [[[300.0, 0.0, 160.0], [0.0, 300.0, 120.0], [0.0, 0.0, 1.0]]],
        "camera_from_world": [[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 4.0]]],
        "boxes": [[[100.0, 20.0, 180.0, 220.0]]],
    }
    return pd.DataFrame([row | columns])


def in_boxes(_images, boxes, score) -> People:
    """Sure joints all over each box: noise shows nobody."""
    low, high = np.array(boxes)[:, None, :2], np.array(boxes)[:, None, 2:]
    xy = low + (high - low) * np.random.default_rng(1).random((len(boxes), 26, 2))
    return People(np.array(boxes, np.float32), np.float32(score), np.float32(xy), np.ones(xy.shape[:2], np.float32))


@pytest.mark.parametrize("method", [LIFTER, OF_IMAGES])
def test_a_version_of_one_camera_answers_whole_images_and_is_found_by_a_job(config, tmp_path, method):
    """Fails if one camera is served by the path of several, which needs two, or the version's kind is lost."""
    digest = saved_one(str(tmp_path / "model"), method)
    version = register(config, str(tmp_path / "model"), "alone")
    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    served = mlflow.pyfunc.load_model(whole)
    model = served.unwrap_python_model()
    model.stage.detector.in_boxes = in_boxes
    (answer,) = served.predict(image_row()).to_dict("records")
    joints = np.array(answer["joints"], dtype=float)
    assert joints.shape == (1, 26, 3)
    known = np.array(answer["valid"][0])
    assert 8 <= known.sum() < 26 and np.isfinite(joints[0][known]).all()
    with pytest.raises(ValueError, match="takes one view, but 2 are given"):
        two = {name: 2 * values for name, values in image_row().to_dict("records")[0].items()}
        served.predict(pd.DataFrame([two]))
    with open(os.path.join(whole, "input_example.json")) as file:
        assert ("images" in json.load(file)["columns"]) == (method is LIFTER)
    if method is LIFTER:
        crop = base64.b64encode(cv2.imencode(".png", np.zeros((256, 256, 3), np.uint8))[1].tobytes()).decode()
        with pytest.raises(ConfigError, match="takes no crops"):
            model.predict(None, pd.DataFrame([{"crops": [crop], "projections": [np.eye(3, 4).tolist()]}]))
    chosen = choose_one_view_model("models:/alone@challenger", config)
    assert (chosen.uri, chosen.weights_sha256) == (version.uri, digest)
    assert chosen.takes_images == (method is OF_IMAGES)
    assert load_model(place_model(chosen, config, str(tmp_path / "run"))).sha256 == digest


def test_a_network_of_several_cameras_is_not_taken_for_one(config, tmp_path):
    saved(str(tmp_path / "model"))
    register(config, str(tmp_path / "model"), "several")
    for uri in ("models:/several/1", str(tmp_path / "model")):
        with pytest.raises(ConfigError, match="of the method canonical_fusion: name a lifter, or one of one image"):
            choose_one_view_model(uri, config)


def test_one_camera_is_not_compared_with_several_nor_with_other_cameras(tmp_path):
    """Fails if the gate looks at samples alone: depth is a guess of one network, and measured by the other."""
    alone = evaluated(str(tmp_path / "alone"), "new", errors(1, 0.05), **ONE)
    several = evaluated(str(tmp_path / "several"), "old", errors(2))
    for pair in ((alone, several), (several, alone)):
        verdict = decide_promotion(*pair, Gate())
        assert not verdict.passed and "one camera, the other with several" in verdict.reason
    another = evaluated(str(tmp_path / "another"), "old", errors(2), views=1, cameras=[["b"]] * 48)
    verdict = decide_promotion(alone, another, Gate())
    assert not verdict.passed and "chose other cameras" in verdict.reason
    assert decide_promotion(alone, evaluated(str(tmp_path / "same"), "old", errors(2), **ONE), Gate()).passed


def test_the_first_of_one_camera_has_no_default_to_beat_and_the_next_must_beat_it(config, tmp_path):
    """Fails if the first is asked to beat the fusion of several cameras, or is not asked what it was trained on."""
    for seed in (0, 1, 2):
        folder = str(tmp_path / f"model{seed}")
        evaluation = str(tmp_path / f"evaluation{seed}")
        columns = ONE if seed else ONE | {"capture": ["walk"] * 24 + ["talk"] * 24, "frame": range(48)}
        digest = saved_one(folder, replace(LIFTER, lifter=LifterConfig(width=8, blocks=1)), seed)
        register(config, folder, "alone", evaluated(evaluation, digest, errors(seed, 0.02 * seed), **columns))
    seen = promote(config, "alone", 1, "champion", Gate())
    assert not seen.moved and "trained on" in seen.verdict.reason
    with pytest.raises(ConfigError, match="no default pipeline takes one camera"):
        promote(config, "alone", 2, "champion", Gate(), rival_evaluation=str(tmp_path / "evaluation2"))
    first = promote(config, "alone", 2, "champion", Gate())
    assert first.moved and "no default pipeline takes one camera" in first.verdict.reason
    assert promote(config, "alone", 3, "champion", Gate()).moved
    worse = promote(config, "alone", 2, "champion", Gate())
    assert not worse.moved and worse.now == 3
