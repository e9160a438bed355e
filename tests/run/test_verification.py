"""A run is damaged in every way that its reader could stumble over, and verification says which."""

import json
import os
import shutil
from collections.abc import Callable
from glob import glob

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mvpose.commands.verify import Verify, run
from mvpose.errors import ResultsError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Clip
from mvpose.run.store import ClipStore, parquet_bytes
from mvpose.run.verification import verify_run
from tests.pipeline import coded_footage


def job(archive: str, output: str, **changes) -> ReconstructJob:
    settings = {"clip_frames": 10, "detector": DetectorConfig(detector=coded_footage.DETECTOR)} | changes
    return ReconstructJob(archive=archive, output=output, engine=EngineConfig(local=True), **settings)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    """A capture of three clips, and one whose second half is not there."""
    return coded_footage.write_damaged_archive(str(tmp_path_factory.mktemp("archive")))


@pytest.fixture(scope="module")
def sound(archive, tmp_path_factory) -> str:
    output = str(tmp_path_factory.mktemp("sound") / "run")
    assert reconstruct_archive(job(archive, output)).failures
    return output


@pytest.fixture
def damaged(sound, tmp_path) -> str:
    """A copy that a test may damage."""
    return shutil.copytree(sound, str(tmp_path / "run"))


def found(output: str) -> str:
    return "\n".join(f"{finding.where}: {finding.what}" for finding in verify_run(output).findings)


def first(output: str, pattern: str) -> str:
    return sorted(glob(os.path.join(output, pattern), recursive=True))[0]


def test_a_run_with_failed_clips_is_sound(sound, capsys):
    seen = verify_run(sound)
    assert seen.findings == ()
    assert (seen.captures, seen.clips, seen.rows) == (2, 6, 30 + 10 * (3 - seen.failed_clips)) and seen.failed_clips
    assert run(Verify(run=sound)) == 0
    assert "2 captures, 6 clips" in capsys.readouterr().out


def test_verification_changes_nothing(damaged):
    os.remove(first(damaged, "poses/whole/*"))
    before = {path: os.stat(path).st_mtime_ns for path in glob(f"{damaged}/**", recursive=True)}
    assert run(Verify(run=damaged)) == 4
    assert before == {path: os.stat(path).st_mtime_ns for path in glob(f"{damaged}/**", recursive=True)}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"has no run\.json"):
        verify_run(str(tmp_path))


@pytest.mark.parametrize("kind", ["keypoints", "tracks", "identities", "poses", "quality"])
def test_a_data_file_that_is_gone_or_changed_is_found(damaged, kind):
    path = first(damaged, f"{kind}/whole/*")
    os.truncate(path, os.path.getsize(path) - 1)
    assert "changed after it was committed" in found(damaged)
    os.remove(path)
    assert "committed but missing" in found(damaged)


@pytest.mark.parametrize("kind", ["keypoints", "tracks", "identities", "poses", "quality"])
def test_a_commit_that_is_gone_leaves_a_hole_and_a_file_of_no_result(damaged, kind):
    os.remove(first(damaged, f"commits/{kind}/whole/*"))
    said = found(damaged)
    assert f"{kind} of whole/" in said and "neither a result nor a failure" in said
    assert "1 files" in verify_run(damaged).notes[0] and f"{kind}/whole/" in verify_run(damaged).notes[0]


def test_half_a_commit_is_found(damaged):
    path = first(damaged, "commits/poses/whole/*")
    os.truncate(path, os.path.getsize(path) // 2)
    assert "not a complete commit" in found(damaged)


def test_a_commit_under_the_name_of_another_clip_is_found(damaged):
    one, two, *_ = sorted(glob(f"{damaged}/commits/poses/whole/*"))
    shutil.copy(one, two)
    assert "but its name differs" in found(damaged)


def test_a_commit_that_the_plan_does_not_know_is_found(damaged):
    ClipStore(damaged, "poses").commit_table(Clip("whole", 0, 30), "f" * 16, pa.table({"frame": [0]}), {})
    assert "not in the plan" in found(damaged)


def test_a_leftover_of_a_dead_worker_is_found(damaged):
    path = first(damaged, "poses/whole/*")
    shutil.copy(path, f"{path}.{'a' * 32}.tmp")
    assert found(damaged) == f"poses/whole/{os.path.basename(path)}.{'a' * 32}.tmp: no commit names this file"


def test_files_of_the_user_are_a_note_and_no_finding(damaged, capsys):
    for path in ("poses/whole/sheet.xlsx", "quality/notes.md", "commits/poses/mine.json", "poses/whole/.DS_Store"):
        with open(os.path.join(damaged, path), "w") as file:
            file.write("years of work")
    assert run(Verify(run=damaged)) == 0
    assert "note: 3 files in" in (said := capsys.readouterr().out) and "'poses/whole/sheet.xlsx'" in said


def test_an_interrupted_run_is_one_line_and_its_damage_still_another(damaged):
    for path in ("summary.json", "figures.parquet", "failures/failures.parquet"):
        os.remove(os.path.join(damaged, path))
    for commit in glob(f"{damaged}/commits/[!k]*/whole/*"):
        os.remove(commit)
    assert found(damaged) == f"{damaged}: is not finished: run the same `mvpose reconstruct` again to resume it"
    os.truncate(path := first(damaged, "keypoints/whole/*"), os.path.getsize(path) - 1)
    assert "changed after it was committed" in found(damaged) and len(verify_run(damaged).findings) == 2


def rewritten(output: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Poses of a clip changed together with their commit, so that digest and name still agree."""
    commit_path = first(output, "commits/poses/whole/*")
    with open(commit_path) as file:
        record = json.load(file)
    table = change(pq.read_table(os.path.join(output, record["file"]), partitioning=None))
    os.remove(os.path.join(output, record["file"]))
    os.remove(commit_path)
    clip = Clip(record["capture_id"], record["start"], record["stop"])
    ClipStore(output, "poses").commit_table(clip, record["fingerprint"], table, {})


def test_a_row_that_is_there_twice_is_found(damaged):
    rewritten(damaged, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert "1 rows repeat the frame, track of another" in found(damaged)


def test_rows_of_another_clip_are_found(damaged):
    def later(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("frame")
        return table.set_column(at, table.schema.field(at), pc.add(table["frame"], 4))

    rewritten(damaged, later)
    assert "4 rows are of frames outside the clip" in found(damaged)


def test_a_file_of_another_fingerprint_or_clip_is_found(damaged):
    def stranger(table: pa.Table) -> pa.Table:
        meta = json.loads(table.schema.metadata[b"mvpose"]) | {"fingerprint": "0" * 16, "capture_id": "damaged"}
        return table.replace_schema_metadata({b"mvpose": json.dumps(meta).encode()})

    rewritten(damaged, stranger)
    said = found(damaged)
    assert "has the fingerprint 0000000000000000" in said and "is of damaged/" in said


def test_a_commit_that_counts_its_rows_wrong_is_found(damaged):
    path = first(damaged, "commits/poses/whole/*")
    with open(path) as file:
        record = json.load(file)
    with open(path, "w") as file:
        json.dump(record | {"rows": record["rows"] + 1}, file)
    assert "has 10 rows, but its commit states 11" in found(damaged)


def changed_plan(output: str, change: Callable[[list[dict]], list[dict]]) -> None:
    path = os.path.join(output, "plan.parquet")
    table = pq.read_table(path)
    with open(path, "wb") as file:
        file.write(parquet_bytes(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema)))


def test_a_gap_between_clips_is_found(damaged):
    changed_plan(damaged, lambda rows: [row for row in rows if (row["capture"], row["start"]) != ("whole", 10)])
    said = found(damaged)
    assert "whole: no clip contains the frames 10 to 20" in said and "digest differs" in said


def test_an_overlap_of_clips_is_found(damaged):
    changed_plan(damaged, lambda rows: [row | {"start": max(0, row["start"] - 2)} for row in rows])
    assert "whole: the frames 8 to 10 are in two clips" in found(damaged)


def test_a_capture_without_a_plan_is_found(damaged):
    changed_plan(damaged, lambda rows: [row for row in rows if row["capture"] != "whole"])
    assert "whole: no clip contains the frames 0 to 30" in found(damaged)


@pytest.mark.parametrize("name", ["plan.parquet", "catalogue.parquet"])
def test_a_plan_that_cannot_be_read_is_found(damaged, name):
    os.truncate(os.path.join(damaged, name), 100)
    assert f"{name} cannot be read" in found(damaged)


def changed_failures(output: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = os.path.join(output, "failures", "failures.parquet")
    table = change(pq.read_table(path, partitioning=None))
    pq.write_table(table, path)


def test_a_failure_without_a_row_is_found(damaged):
    changed_failures(damaged, lambda table: table.slice(1))
    assert "but has no row" in found(damaged)


def test_a_failure_that_is_told_twice_is_found(damaged):
    changed_failures(damaged, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert "a surplus row" in found(damaged)


def test_an_unfinished_run_is_found(damaged):
    os.remove(os.path.join(damaged, "summary.json"))
    assert "is not finished" in found(damaged)


def test_a_summary_that_counts_otherwise_is_found(damaged):
    path = os.path.join(damaged, "summary.json")
    with open(path) as file:
        record = json.load(file)
    with open(path, "w") as file:
        json.dump(record | {"clips": 7}, file)
    assert "summary.json: states 7 clips" in found(damaged)


def test_a_run_planned_anew_and_back_again_is_sound(archive, damaged):
    for clip_frames in (15, 10):
        reconstruct_archive(job(archive, damaged, clip_frames=clip_frames, replan=True))
        assert found(damaged) == ""
