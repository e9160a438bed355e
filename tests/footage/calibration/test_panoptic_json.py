import json

import pytest

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import read_calibration
from tests.footage.calibration.rig_files import panoptic_text, ring
from tests.footage.calibration.test_formats import written


def test_the_dome_stands_upright_in_metres(tmp_path):
    cameras = ring(["00_00", "00_01", "00_10"])
    rig = read_calibration(written(tmp_path, "calibration_171204.json", panoptic_text(cameras)))
    assert rig.centres_world[:, 2].tolist() == pytest.approx([1.4, 1.6, 1.8])


def test_json_of_another_kind_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="Panoptic"):
        read_calibration(written(tmp_path, "a.json", '{"cameras": 3}'))
    content = json.loads(panoptic_text(ring(["a", "b"])))
    del content["cameras"][1]["K"]
    with pytest.raises(CalibrationError, match="camera 1 of the list has no K"):
        read_calibration(written(tmp_path, "a.json", json.dumps(content)))
