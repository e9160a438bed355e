"""The whole job with archive and output in a bucket, on an S3 server of this test."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.verification import verify_run
from mvpose.storage.locations import filesystem, join
from tests.pipeline import coded_footage
from tests.storage.test_faulty_storage import stumbling  # noqa: F401

RESULTS = ("keypoints", "tracks", "identities", "poses", "quality")


def job(archive: str, output: str, engine: EngineConfig) -> ReconstructJob:
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    return ReconstructJob(archive=archive, output=output, clip_frames=10, detector=detector, engine=engine)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("archive")
    coded_footage.write_capture(str(folder / "one"), 30)
    return str(folder)


@pytest.fixture(scope="module")
def on_disk(archive, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("on_disk") / "run")
    reconstruct_archive(job(archive, output, EngineConfig(local=True)))
    return output


def rows(output: str) -> dict[str, bytes]:
    """Every data file by kind, capture and clip; fingerprints and digests in the names depend on where footage is."""
    files = {}
    for kind in RESULTS:
        fs, root = filesystem(join(output, kind))
        for path in fs.find(root):
            files[kind + path[len(root) :].split(".")[0]] = fs.cat_file(path)
    return files


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equal values; a figure that is NaN in both is equal too."""
    return one.schema == other.schema and repr(one.to_pylist()) == repr(other.to_pylist())


def without_identity(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data)).replace_schema_metadata(None)


@pytest.mark.parametrize("engine", [EngineConfig(local=True), EngineConfig(workers=1)], ids=["plain loop", "Ray"])
def test_a_job_in_a_bucket_makes_what_a_job_on_a_disk_makes(archive, on_disk, s3, engine, shared_ray):
    fs, bucket = filesystem(s3)
    fs.put(archive, f"{bucket}/archive", recursive=True)
    output = join(s3, "run")
    summary = reconstruct_archive(job(join(s3, "archive"), output, engine))
    assert summary.failures == () and summary.clips == 3
    assert verify_run(output).findings == ()

    here, there = rows(on_disk), rows(output)
    assert here.keys() == there.keys()
    for name, data in here.items():
        assert same(without_identity(there[name]), without_identity(data)), name
    assert reconstruct_archive(job(join(s3, "archive"), output, engine)) == summary
    fs.rm(f"{bucket}/run/tracks", recursive=True)
    note, *notes = reconstruct_archive(job(join(s3, "archive"), output, engine)).notes
    assert note.endswith("computed again: 3 tracks") and tuple(notes) == summary.notes
    assert rows(output) == there


@pytest.mark.slow
@pytest.mark.fault
def test_a_job_on_a_server_that_stumbles_makes_what_a_job_on_a_disk_makes(archive, on_disk, stumbling):  # noqa: F811
    """Every key and method fails twice before it answers: 500, 503 SlowDown, or a body that ends early."""
    server, bucket = stumbling
    fs, root = filesystem(bucket)
    server.armed = False
    fs.put(archive, f"{root}/archive", recursive=True)
    server.armed = True
    output = join(bucket, "run")
    summary = reconstruct_archive(job(join(bucket, "archive"), output, EngineConfig(local=True)))
    assert summary.failures == () and verify_run(output).findings == ()
    assert max(server.seen.values()) > 2
    here, there = rows(on_disk), rows(output)
    assert here.keys() == there.keys()
    for name, data in here.items():
        assert same(without_identity(there[name]), without_identity(data)), name
