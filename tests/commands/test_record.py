"""`mvpose record` on a run made through the production door."""

import os
import shutil

import numpy as np
import pytest

from mvpose.commands.record import Record, run
from mvpose.errors import ConfigError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.report.rerun_recording import RecordingConfig
from mvpose.run.run_folder import RunFolder
from tests.pipeline import coded_footage

chunk = pytest.importorskip("rerun.chunk")


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
    with pytest.raises(ConfigError, match="no capture 'three'"):
        run(Record(run=finished, captures=("three",)))


def test_filtered_poses_are_recorded_beside_the_raw_ones_and_a_run_without_them_says_so(finished, capsys):
    """The job's own tables say what must be in each file."""
    few = RecordingConfig(images=False)
    assert run(Record(run=finished, recording=few, captures=("one",))) == 0
    assert run(Record(run=finished, recording=few, captures=("one",), filtered=True)) == 0
    raw, after = (people(f"{finished}/{folder}/one.rrd") for folder in ("recordings", "recordings_filtered"))
    plan = next(plan for plan in RunFolder(finished).plans() if plan.capture.capture_id == "one")
    for found, poses in ((raw, RunFolder(finished).poses(plan)), (after, RunFolder(finished).filtered(plan).poses)):
        assert poses is not None
        expected = [frame[np.isfinite(frame).all(axis=-1)] for frame in poses.xyz[:, 0]]
        assert len(found) == len(expected) == 12
        assert all(np.allclose(f, e, atol=1e-6) for f, e in zip(found, expected, strict=True))
    assert any(not np.allclose(a, b, atol=1e-6) for a, b in zip(raw, after, strict=True) if a.shape == b.shape)
    shutil.rmtree(f"{finished}/commits/filtered")
    capsys.readouterr()
    assert run(Record(run=finished, recording=few, captures=("one",), filtered=True)) == 3
    assert "one: no recording: one has no filtered poses" in capsys.readouterr().out


def people(path: str) -> list[np.ndarray]:
    """Positions of the one person, frame by frame."""
    found = []
    for part in chunk.RrdReader(path).stream():
        if part.entity_path.startswith("/world/people/"):
            batch = part.to_record_batch()
            columns = (batch.column(name).to_pylist() for name in ("frame", "Points3D:positions"))
            found += zip(*columns, strict=True)
    return [np.array(positions or []).reshape(-1, 3) for _, positions in sorted(found, key=lambda pair: pair[0])]


def test_a_run_must_be_named():
    with pytest.raises(ConfigError, match="mvpose record RUN"):
        run(Record())
