"""`mvpose record` on a run made through the production door."""

import os

import pytest

from mvpose.commands.record import Record, run
from mvpose.errors import ConfigError
from mvpose.models.detector import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.report.recording import RecordingConfig
from tests.pipeline import coded_footage

pytest.importorskip("rerun")


@pytest.fixture
def finished(tmp_path) -> str:
    for name in ("one", "two"):
        coded_footage.write_capture(str(tmp_path / "archive" / name), 12)
    output = str(tmp_path / "run")
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    reconstruct_archive(
        ReconstructJob(
            archive=str(tmp_path / "archive"), output=output, detector=detector, engine=EngineConfig(local=True)
        )
    )
    return output


def test_a_run_is_recorded_capture_by_capture_and_lost_footage_is_told(finished, tmp_path, capsys):
    os.remove(tmp_path / "archive" / "two" / "videos" / "cam1.mp4")
    small = RecordingConfig(max_frames=5, largest_side=64)
    assert run(Record(run=finished, recording=small)) == 3
    said = capsys.readouterr().out
    assert "one: 5 frames" in said and "two: no recording" in said
    assert os.path.getsize(os.path.join(finished, "recordings", "one.rrd")) > 1000
    assert not os.path.exists(os.path.join(finished, "recordings", "two.rrd"))
    with pytest.raises(ConfigError, match="no capture three"):
        run(Record(run=finished, captures=("three",)))


def test_a_run_must_be_named():
    with pytest.raises(ConfigError, match="mvpose record RUN"):
        run(Record())
