"""`predict` of a registered version, in this process."""

import base64
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc.model import PythonModelContext

import mlflow
from mvpose.confidence import AS_STATED
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.saved import SavedModel, load_model
from mvpose.pipeline.network_stage import NetworkStage
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.scenes import Scene, ring4
from mvpose.serving.served_model import ServedModel
from mvpose.skeleton import SKELETONS
from mvpose.tracking.logged_model import requirements
from tests.evaluation.small import write_model
from tests.pipeline.test_network_stage import BASELINE, JOINT, SceneDetector, SpotFinder
from tests.serving.test_service import registered, with_dependencies, with_weights  # noqa: F401
from tests.tracking.conftest import config, empty_store  # noqa: F401
from tests.tracking.models import question

FRAME = 0


@pytest.fixture
def whole(registered, tmp_path) -> str:  # noqa: F811
    """Folder of the registered version."""
    (found,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    return found


PREDICT = """
import json, sys
import mlflow, pandas
mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame(json.load(sys.stdin)))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_all_that_a_version_imports_is_required_by_it(whole):
    """Fails if a distribution is missing from the requirements, as a service would find out only when it starts."""
    command = [sys.executable, "-c", PREDICT, whole]
    done = subprocess.run(command, input=json.dumps(question()[2]), capture_output=True, text=True, check=True)
    known = packages_distributions()
    there = with_dependencies(["mlflow", *requirements()])
    missing = {
        module: known[module]
        for module in json.loads(done.stdout.splitlines()[-1])
        if module in known and not there & {distribution.lower().replace("_", "-") for distribution in known[module]}
    }
    assert set(missing) <= {"mvpose", "tqdm"}  # torch takes tqdm if it is there


def test_wrong_crops_are_answered_with_what_is_wrong(whole):
    model = mlflow.pyfunc.load_model(whole)
    _, _, rows = question(people=1)
    for change, said in (
        ({"crops": ["!!"] * 3}, "row 0: a crop is not base64"),
        ({"crops": ["aGVsbG8="] * 3}, "row 0: a crop is neither JPEG nor PNG"),
        ({"projections": rows[0]["projections"][:2]}, "row 0: 3 views need as many 3 x 4 `projections`"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(pd.DataFrame([rows[0] | change]))
    served = model.unwrap_python_model()
    for change, said in (
        ({"crops": None}, "row 1: `crops` must be a list of images, not NoneType"),
        ({"crops": [7, 7, 7]}, "row 1: a crop is not base64"),
        ({"projections": [[[1.0], [1.0, 2.0]]] * 3}, "row 1: `projections` are not 3 x 4 matrices of numbers"),
        ({"projections": 3.0}, "row 1: `projections` are not"),
        ({"present": [True]}, "row 1: 3 crops need as many flags"),
    ):
        with pytest.raises(ValueError, match=said):
            served.predict(None, pd.DataFrame([rows[0], rows[0] | change]))


def test_a_served_network_that_concatenates_refuses_another_number_of_views(tmp_path):
    served = ServedModel()
    served.stage = mock.Mock(model=load_model(write_model(str(tmp_path), "fusion", views=3)))
    _, _, rows = question(people=1)
    four = {key: [*value, value[0]] for key, value in rows[0].items()}
    with pytest.raises(ValueError, match="row 0: the network takes exactly 3 views, but 4 are given"):
        served.predict(PythonModelContext({}, {}), pd.DataFrame([four]))


def test_absent_views_do_not_count_and_rows_may_differ_in_views(whole, tmp_path):
    crops, projections, (first, _, third) = question()
    absent = {**first, "crops": [*first["crops"][:2], third["crops"][2]], "present": [True, True, False]}
    two = {**{key: value[:2] for key, value in first.items()}, "present": [True, True]}
    found = mlflow.pyfunc.load_model(whole).predict(pd.DataFrame([absent, two, {**third, "present": [True] * 3}]))
    network = load_model(str(tmp_path / "out" / "model")).network
    with torch.inference_mode():
        eager = [
            network(crops[:1], projections[:1], torch.tensor([[True, True, False]])),
            network(crops[:1, :2], projections[:1, :2]),
            network(crops[2:], projections[2:]),
        ]
    for answer, prediction in zip(found.joints, eager, strict=True):
        np.testing.assert_allclose(np.array(answer, float), prediction.joints.numpy(), atol=1e-5)


def scene_service() -> tuple[ServedModel, Scene]:
    """A service whose detector knows where everybody is, and whose network finds the bright spot of each crop."""
    scene, served = ring4(num_frames=2), ServedModel()
    stage = NetworkStage.__new__(NetworkStage)
    stage.detector, stage.config = SceneDetector(scene), ReconstructionConfig()
    stage.skeleton, stage.scale = SKELETONS["coco17"], AS_STATED
    stage.model = SavedModel(SpotFinder(), input_rule(BASELINE, MARGIN), BASELINE, "", {})
    served.stage = stage
    return served, scene


def encoded(image: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def moment(scene: Scene) -> dict:
    """The scene's cameras, whose images show a spot where the joint is."""
    rig, images = scene.rig, []
    truth, _ = rig.project(torch.from_numpy(scene.joints[FRAME, 0, JOINT]))
    for (x, y), (width, height) in zip(truth.tolist(), rig.size.tolist(), strict=True):
        rows, columns = np.mgrid[:height, :width]
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
        images.append(encoded(np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=-1)))
    return {
        "images": images,
        "intrinsics": rig.intrinsics.tolist(),
        "distortion": rig.lens.coefficients.tolist(),
        "camera_from_world": rig.camera_from_world.matrix().tolist(),
    }


def test_a_spot_in_whole_images_is_answered_in_the_world():
    """Fails if the lens, the pose or the place of the crop in the image is lost, or colours cost a view."""
    served, scene = scene_service()
    assert scene.rig.lens.coefficients.any(), "a scene without distortion would prove less"
    (answer,) = served.predict(PythonModelContext({}, {}), pd.DataFrame([moment(scene)])).to_dict("records")
    joints = np.array(answer["joints"], dtype=np.float64)
    assert joints.shape == (1, 17, 3) and np.shape(answer["valid"]) == np.shape(answer["confidence"]) == (1, 17)
    apart = np.linalg.norm(joints[0, JOINT] - scene.joints[FRAME, 0, JOINT])
    assert apart < 2e-3
    straight = moment(scene) | {"distortion": None}
    (bent,) = served.predict(PythonModelContext({}, {}), pd.DataFrame([straight])).to_dict("records")
    found = np.array(bent["joints"], dtype=np.float64)[0, JOINT]
    assert not np.linalg.norm(found - scene.joints[FRAME, 0, JOINT]) < 2 * apart


def test_wrong_cameras_are_answered_with_what_is_wrong():
    served, scene = scene_service()
    row = moment(scene)
    mirrored = np.array(row["camera_from_world"]) * [[1], [1], [-1]]
    for change, said in (
        ({"images": row["images"][:3]}, "row 1: 3 views need as many 3 x 3 `intrinsics`, got"),
        ({"images": ["aGVsbG8="] * 4}, "row 1: an image is neither JPEG nor PNG"),
        (
            {"intrinsics": np.transpose(row["intrinsics"], (0, 2, 1)).tolist()},
            "row 1: `intrinsics` are not of the form",
        ),
        ({"camera_from_world": mirrored.tolist()}, r"row 1: `camera_from_world` are not \[R | t\]"),
        ({"distortion": [[0.1]] * 3}, "row 1: 4 images need as many entries"),
        ({"distortion": [[0.0] * 14] * 4}, "row 1: `distortion` has more than 12"),
        ({"lens": ["fish"] * 4}, "row 1: 'fish' is not a valid LensModel"),
        ({"boxes": [[[9, 0, 5, 9]]] * 4}, "row 1: `boxes` are not left, top, right, bottom"),
        ({"boxes": [None] * 3}, "row 1: 4 images need as many lists in `boxes`"),
    ):
        with pytest.raises(ValueError, match=said):
            served.predict(PythonModelContext({}, {}), pd.DataFrame([row, row | change]))
