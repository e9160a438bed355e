"""Names that a run or an archive brings and that become a part of a location: nothing is written outside the output."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from mvpose.commands.export import Export
from mvpose.commands.export import run as export
from mvpose.commands.record import Record
from mvpose.commands.record import run as record
from mvpose.commands.view import View
from mvpose.commands.view import run as view
from mvpose.errors import MvposeError
from mvpose.footage.catalogue import Catalogue, read_catalogue, write_catalogue
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Kind
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore
from tests.commands.test_export import ALL
from tests.pipeline import coded_footage

PLANTED = ["../../x", "/tmp/x", "a/../../b", "..", "x\0", "x\ny"]
FIRST_OF_PLANTED = [PLANTED[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PLANTED[1:])]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    return os.path.dirname(coded_footage.write_capture(str(tmp_path_factory.mktemp("planted") / "archive" / "one"), 6))


def reconstruct(archive: str, output: str) -> None:
    detector, engine = DetectorConfig(detector=coded_footage.DETECTOR), EngineConfig(local=True)
    reconstruct_archive(ReconstructJob(archive=archive, output=output, detector=detector, engine=engine))


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("planted") / "run")
    reconstruct(archive, output)
    return output


def with_camera(output: str, planted: str) -> None:
    """Another name of the first camera, in the rig and in the videos of the catalogue."""
    catalogue = read_catalogue(f"{output}/catalogue.parquet")
    (capture,) = catalogue.captures
    rig = replace(capture.rig, names=(planted, *capture.rig.names[1:]))
    videos = (replace(capture.videos[0], camera=planted), *capture.videos[1:])
    write_catalogue(f"{output}/catalogue.parquet", Catalogue([replace(capture, rig=rig, videos=videos)], [], []))


def with_metadata(key: str) -> Callable[[str, str], None]:
    """Other metadata of the tables of poses and 2D joints, each with a commit that names it."""

    def plant(output: str, planted: str) -> None:
        (plan,) = RunFolder(output).plans()
        for kind in (Kind.KEYPOINTS, Kind.POSES):
            (task,), store = plan.tasks(kind), ClipStore(output, kind)
            commit = store.committed(task.clip, task.fingerprint)
            assert commit is not None
            table = store.read(commit)
            meta = json.loads(table.schema.metadata[b"mvpose"])
            meta[key] = planted if isinstance(meta[key], str) else [planted, *meta[key][1:]]
            store.withdraw(commit)
            reported = table.replace_schema_metadata({b"mvpose": json.dumps(meta).encode()})
            store.commit_table(task.clip, task.fingerprint, reported, {})

    return plant


FIELDS = {
    "camera": with_camera,
    "joint set": with_metadata("skeleton"),
    "joint": with_metadata("joints"),
    "camera of a table": with_metadata("cameras"),
    "capture of a table": with_metadata("capture_id"),
}


@pytest.mark.parametrize("planted", FIRST_OF_PLANTED)
@pytest.mark.parametrize("field", FIELDS)
def test_names_in_the_tables_of_a_run_lead_nowhere_else(finished, tmp_path, field, planted):
    output = shutil.copytree(finished, str(tmp_path / "deep" / "down" / "run"))
    FIELDS[field](output, planted)
    with_all = Export(run=output, format=ALL, output=str(tmp_path / "deep" / "down" / "export"))
    commands = [lambda: export(with_all), lambda: record(Record(run=output))]
    if field == "camera":  # its images and pages take seconds
        commands.append(lambda: view(View(run=(output,))))
    for command in commands:
        # What names no file may be any text; what does is refused in a sentence.
        try:
            command()
        except MvposeError as error:
            assert str(error)
    assert_inside(tmp_path / "deep" / "down", {"run", "export"}, tmp_path)


@pytest.mark.parametrize("planted", ["../../x", "/tmp/x", "..", "x\\u0000"])
def test_cameras_and_captures_that_an_archive_names_lead_nowhere_else(archive, tmp_path, planted, capsys):
    """A calibration and a `capture.toml` agree on the name of a camera, and a `capture.toml` names its capture."""
    shutil.copytree(archive, tmp_path / "deep" / "archive")
    one = tmp_path / "deep" / "archive" / "one"
    calibration = one / "calibration" / "Calib.toml"
    calibration.write_text(calibration.read_text().replace("cam0", planted).replace(f"[{planted}]", f'["{planted}"]'))
    videos = "".join(f'[videos.cam{i}]\nuri = "videos/cam{i}.mp4"\n' for i in range(1, 4))
    (one / "capture.toml").write_text(f'id = "{planted}"\n[videos."{planted}"]\nuri = "videos/cam0.mp4"\n{videos}')
    output = str(tmp_path / "deep" / "run")
    try:
        reconstruct(str(tmp_path / "deep" / "archive"), output)
        export(Export(run=output, format=ALL, output=str(tmp_path / "deep" / "export")))
    except MvposeError as error:
        assert str(error)
    assert_inside(tmp_path / "deep", {"archive", "run", "export"}, tmp_path)


def assert_inside(folder, names: set[str], above) -> None:
    assert not os.path.lexists("/tmp/x")
    assert {*os.listdir(folder)} <= names
    allowed = tuple(f"{folder}/{name}" for name in names)
    assert [where for where, _, files in os.walk(above) if files and not where.startswith(allowed)] == []
