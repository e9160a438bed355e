"""The law of fingerprints: what a stage can see changes its fingerprint, or it does not change a byte of its result."""

import os
import shutil
import tempfile
import typing
from collections.abc import Container, Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import reduce
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mvpose.capture import Capture
from mvpose.config import TaggedUnion, tagged_union, with_kind
from mvpose.errors import ConfigError
from mvpose.footage.catalogue import find_captures
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, Work, plan_settings, reconstruct_archive, stage_specs
from mvpose.pipeline.plan import plan_capture
from mvpose.pipeline.worker import ClipWorker
from mvpose.records import Kind
from mvpose.run.plan_scratch import lay_out
from mvpose.run.run_folder import RunFolder, Settings
from mvpose.run.store import ClipStore
from mvpose.storage.locations import read_bytes
from mvpose.temporal.filter_settings import Filtering
from tests.pipeline import coded_footage

FRAMES = 8
# What a result may depend on. Of a job: where it runs and is recorded changes nothing, and the catalogue's settings
# reach the stages by the capture alone.
OF_CAPTURE = ("rig", "videos", "breaks", "assumed_unit")
FILTERS = typing.cast(TaggedUnion, tagged_union(Filtering))
OF_JOB = ("clip_frames", "adjust_extrinsics", "filtered", "reconstruction", "adjustment", "filtering")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Capture, ReconstructJob]:
    folder = str(tmp_path_factory.mktemp("law"))
    coded_footage.write_capture(f"{folder}/archive/one", FRAMES)
    job = ReconstructJob(
        archive=f"{folder}/archive",
        output=f"{folder}/run",
        clip_frames=4,
        detector=DetectorConfig(detector=coded_footage.DETECTOR),
        engine=EngineConfig(local=True),
    )
    (capture,) = find_captures(job.archive, job.catalogue).captures
    return capture, job


def work_of(capture: Capture, job: ReconstructJob) -> Work:
    chosen = plan_settings(job, None)
    planned = lay_out([capture], lambda listed: plan_capture(listed, chosen))
    return Work(RunFolder(job.output), Settings({}, planned.totals.digest), planned)


def results(capture: Capture, job: ReconstructJob, known: Container[str] | None = None) -> dict[str, tuple[bytes, str]]:
    """What the stages of a job make of a capture, by the name of the commit: bytes, and the sentence of a failure.

    Names that are not `known` are left out: what is made of a result has a new name wherever the result has.
    """
    with tempfile.TemporaryDirectory() as output:
        job = replace(job, output=output)
        work = work_of(capture, job)
        work.run.begin(work.settings, work.planned, replan=False)
        (tasks,) = work.planned.tasks()
        made = {}
        for spec in stage_specs(job, work):
            store = ClipStore(output, spec.kind)
            for task in tasks.tasks(Kind(spec.kind)):
                name = os.path.relpath(store.commit_uri(task.clip, task.fingerprint), output)
                if known is None or name in known:
                    commit = ClipWorker(spec).run(task)
                    data = read_bytes(os.path.join(output, commit.file)) if commit.file else b""
                    made[name] = (data, commit.failure.detail if commit.failure else "")
        return made


def paths_of(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where the values of a record are, down to those that are not made of others."""
    if is_dataclass(value):
        for field in fields(value):
            yield from paths_of(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        yield from paths_of(value[0], (*path, 0))
    else:
        yield path


def got(record: Any, path: tuple) -> Any:
    return reduce(lambda value, key: value[key] if isinstance(key, int) else getattr(value, key), path, record)


def put(record: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        return (*record[:key], put(record[key], rest, value), *record[key + 1 :])
    return replace(record, **{key: put(getattr(record, key), rest, value)})


# Frames that a view lacks, and a pause between frames 2 and 3.
WHERE_EMPTY = {"shown": ((0, 0, 3), (4, 3, 4)), "breaks": ((3, 50),)}


def changed(record: Any, path: tuple, number: int) -> Any:
    """The record with another value at a path; `number` says which."""
    value, name = got(record, path), path[-1]
    if name == "smoothing":  # it names the kind of the filter: another kind, with what both have
        kinds = [kind for kind in FILTERS.members if kind != value]
        return put(record, path[:-1], with_kind(got(record, path[:-1]), Filtering, kinds[number % len(kinds)]))
    choices = choices_of(got(record, path[:-1]), name)
    if choices:
        others = [choice for choice in choices if choice != value]
        return put(record, path, others[number % len(others)])
    if name == "uri":
        moved = os.path.join(os.path.dirname(os.path.dirname(value)), f"moved-{number}.mp4")
        if not os.path.exists(moved):
            shutil.copy2(value, moved)
        return put(record, path, moved)
    if isinstance(value, bool):
        return put(record, path, not value)
    if isinstance(value, Enum):
        return put(record, path, other_than(value))
    if value == ():
        return put(record, path, WHERE_EMPTY[name])
    if isinstance(value, int):
        return put(record, path, max(0, value + (number % 7 - 3 or 1)))
    if isinstance(value, float):
        return put(record, path, value * (1 + (number % 9 - 4 or 1) / 10) + (value == 0) * 0.1)
    if isinstance(value, str):
        return put(record, path, f"{value}{number}")
    if isinstance(value, torch.Tensor):
        other = value.clone()
        place = number % value.numel()
        other.view(-1)[place] += 1 if not value.is_floating_point() else 0.01 + 0.02 * abs(value.view(-1)[place])
        return put(record, path, other)
    if isinstance(value, tuple):
        place = number % len(value)
        return put(record, path, (*value[:place], other_than(value[place]), *value[place + 1 :]))
    assert value is None, f"{path} is {value!r}: say here how it changes"
    return put(record, path, 25.0)


def other_than(value: Any) -> Any:
    """Another entry of a tuple."""
    if isinstance(value, Enum):
        return next(member for member in type(value) if member != value)
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1)
    return f"{value}x" if isinstance(value, str) else value + 1


def choices_of(record: Any, name: Any) -> tuple:
    """The values that a field's type lists, None included where the type has it."""
    if not is_dataclass(record) or not isinstance(name, str):
        return ()
    hint = typing.get_type_hints(type(record)).get(name)
    parts = typing.get_args(hint)
    listed = [part for part in (hint, *parts) if typing.get_origin(part) is typing.Literal]
    nothing = (None,) if listed and type(None) in parts else ()
    return (*(choice for part in listed for choice in typing.get_args(part)), *nothing)


BEFORE: dict[tuple[str, bool, float], dict[str, tuple[bytes, str]]] = {}


def keep_the_law(base: tuple[Capture, ReconstructJob], path: tuple, number: int, scale: float) -> None:
    capture, job = base
    # The rig of a calibration that was read in a wrong unit: people of a tenth of their height.
    pose = capture.rig.camera_from_world
    rig = replace(capture.rig, camera_from_world=replace(pose, translation=pose.translation * scale))
    capture = replace(capture, rig=rig, assumed_unit="mm" if scale < 1 else "m")
    job = replace(job, adjust_extrinsics=path[0] == "adjustment")  # which takes longer than all else
    key = (job.archive, job.adjust_extrinsics, scale)
    before = BEFORE[key] if key in BEFORE else BEFORE.setdefault(key, results(capture, job))
    try:
        of_job = path[0] in OF_JOB
        other = (capture, changed(job, path, number)) if of_job else (changed(capture, path, number), job)
        after = results(*other, known=before)
    except (ConfigError, IndexError, ValueError):  # a value that is refused changes no result
        assume(False)
        return
    for name, made in after.items():
        assert before[name] == made, f"{path} changed, and {name} has other contents under the same name"


def all_paths(base: tuple[Capture, ReconstructJob]) -> list[tuple]:
    return [path for record in base for path in paths_of(record) if path[0] in (*OF_CAPTURE, *OF_JOB)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_change_of_capture_rig_or_settings_changes_the_fingerprint_or_no_byte(base, data):
    draw_and_keep(base, data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_change_of_capture_rig_or_settings_changes_the_fingerprint_or_no_byte_in_1000_draws(base, data):
    draw_and_keep(base, data)


def draw_and_keep(base, data) -> None:
    path = data.draw(st.sampled_from(all_paths(base)))
    keep_the_law(base, path, data.draw(st.integers(0, 99)), data.draw(st.sampled_from((1.0, 0.1))))


@pytest.mark.parametrize(
    "path", [("videos", 0, "fps"), ("assumed_unit",), ("rig", "focal"), ("filtering", "cutoff_hz")]
)
def test_the_changes_that_were_once_overlooked_are_kept_apart(base, path):
    for number in (1, 2):
        keep_the_law(base, path, number, 0.1 if path == ("assumed_unit",) else 1.0)


def test_another_frame_rate_makes_new_times_and_keeps_the_2d_joints(base, tmp_path):
    _, job = base
    shutil.copytree(job.archive, tmp_path / "archive")
    job = replace(job, archive=str(tmp_path / "archive"), output=str(tmp_path / "run"))
    reconstruct_archive(job)
    before = {str(f): f.stat().st_mtime_ns for f in (tmp_path / "run" / "keypoints").rglob("*.parquet")}
    (tmp_path / "archive" / "one" / "capture.toml").write_text("fps = 120.0\n")
    with pytest.raises(ConfigError, match="has changed since"):
        reconstruct_archive(job)
    reconstruct_archive(replace(job, replan=True))
    assert before == {str(f): f.stat().st_mtime_ns for f in (tmp_path / "run" / "keypoints").rglob("*.parquet")}
    for kind in ("poses", "filtered"):
        table = pq.read_table(tmp_path / "run" / kind).to_pandas()
        assert abs(table["time"] * 120 - table["frame"]).max() < 1e-6
