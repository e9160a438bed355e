import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, observed, scene_samples
from mvpose.datasets.sample_table import (
    SCHEMA_VERSION,
    read_samples,
    sample_files,
    sample_schema,
    samples_from_table,
    samples_to_table,
    write_samples,
)
from mvpose.geometry.camera import CameraRig
from mvpose.scenes import ring4
from mvpose.skeleton import COCO17, Skeleton
from mvpose.storage.locations import filesystem

THREE = Skeleton("three", ("hip", "neck", "head"), (("hip", "neck"), ("neck", "head")))


def rig() -> CameraRig:
    return ring4().rig.to(torch.float64)


def some_samples(count: int = 5, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    scene = SampleScene(capture_id="a/b", subject="a", action="walk", split="train", rig=rig(), skeleton=THREE)
    xyz = rng.uniform([-0.5, -0.5, 0.1], [0.5, 0.5, 1.8], (count, 3, 3)).astype(np.float32).astype(np.float64)
    xyz[1, 1] = np.nan
    recorded = np.ones((count, 4), bool)
    recorded[2, 1] = False
    labels = Labels(
        frame=np.arange(count) * 5, position=np.arange(count), xyz=xyz, person=np.arange(count) % 2, recorded=recorded
    )
    return list(scene_samples(scene, labels, lambda f: {n: SampleImage(f"s3://x/{n}.mp4", f) for n in scene.rig.names}))


def assert_same(a: Sample, b: Sample) -> None:
    for name in ("capture_id", "frame", "position", "person", "subject", "action", "split", "damaged", "images"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(a.xyz, b.xyz)
    np.testing.assert_array_equal(a.visible, b.visible)
    np.testing.assert_allclose(a.box, b.box, rtol=1e-6)
    assert a.rig.names == b.rig.names and a.rig.lens.models == b.rig.lens.models and a.skeleton == b.skeleton
    for x, y in (
        (a.rig.focal, b.rig.focal),
        (a.rig.centre, b.rig.centre),
        (a.rig.lens.coefficients, b.rig.lens.coefficients),
        (a.rig.camera_from_world.matrix(), b.rig.camera_from_world.matrix()),
        (a.rig.size, b.rig.size),
    ):
        assert torch.equal(x, y)


@given(order=st.permutations(range(5)), start=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_samples_come_back_from_a_table_whatever_rows_are_taken(order, start):
    """Rows of 3 and of 4 views, filtered and sliced, so that offsets do not begin at 0."""
    samples = [some_samples()[i] for i in order]
    table = samples_to_table(samples, THREE, "test")
    for found, sample in zip(samples_from_table(table), samples, strict=True):
        assert_same(found, sample)
    for found, sample in zip(samples_from_table(table.slice(start)), samples[start:], strict=True):
        assert_same(found, sample)
    kept = np.arange(5) % 2 == 0
    found = list(samples_from_table(table.filter(pa.array(kept))))
    assert [s.frame for s in found] == [s.frame for s, k in zip(samples, kept, strict=True) if k]
    assert_same(found[-1], samples[4])


def test_a_reader_without_mvpose_finds_unit_axis_joints_and_version(tmp_path):
    uri = str(tmp_path / "t.parquet")
    assert write_samples(uri, some_samples(), THREE, "test") == 5
    schema = pq.read_schema(uri)
    text = (schema.metadata or {})[b"mvpose"].decode()
    for part in ('"unit": "metre"', '"up_axis": "z"', f'"schema_version": {SCHEMA_VERSION}', '"neck"', '"test"'):
        assert part in text
    rows = pq.read_table(uri).to_pylist()
    assert rows[2]["camera"] == [n for i, n in enumerate(rig().names) if i != 1]
    assert rows[1]["valid"] == [True, False, True] and np.isnan(rows[1]["x"][1])


def test_the_schema_is_the_one_of_version_1():
    """A change of the schema takes a new version: readers of old tables have to be told."""
    reported = [f"{f.name}: {f.type}" for f in sample_schema(THREE, "test")]
    assert SCHEMA_VERSION == 1
    assert reported == [
        "capture: string", "subject: string", "action: string", "split: string", "frame: int64", "position: int64",
        "person: int32", "damaged: bool", "camera: list<item: string>", "uri: list<item: string>",
        "uri_frame: list<item: int64>", "crop: list<item: binary>",
        "focal: list<item: fixed_size_list<item: double>[2]>",
        "centre: list<item: fixed_size_list<item: double>[2]>",
        "size: list<item: fixed_size_list<item: int32>[2]>", "lens_model: list<item: string>",
        "lens_coefficients: list<item: fixed_size_list<item: double>[12]>",
        "rotation: list<item: fixed_size_list<item: double>[9]>",
        "translation: list<item: fixed_size_list<item: double>[3]>", "x: fixed_size_list<item: float>[3]",
        "y: fixed_size_list<item: float>[3]", "z: fixed_size_list<item: float>[3]",
        "valid: fixed_size_list<item: bool>[3]",
        "visible: list<item: fixed_size_list<item: bool>[3]>",
        "box: list<item: fixed_size_list<item: float>[4]>",
    ]  # fmt: skip


def test_a_table_in_folders_is_read_file_by_file_on_disk_and_on_s3(tmp_path, s3):
    for root in (str(tmp_path / "out"), f"{s3}/out"):
        for i, name in enumerate(("b/c.parquet", "a.parquet")):
            write_samples(f"{root}/samples/{name}", some_samples(seed=i), THREE, "test")
        assert [f[len(root) :] for f in sample_files(root)] == ["/samples/a.parquet", "/samples/b/c.parquet"]
        found = list(read_samples(root))
        assert len(found) == 10
        assert_same(found[0], some_samples(seed=1)[0])
        assert_same(next(read_samples(f"{root}/samples/b/c.parquet")), some_samples(seed=0)[0])


def test_an_empty_table_is_a_table(tmp_path):
    uri = str(tmp_path / "t.parquet")
    assert write_samples(uri, [], THREE, "test") == 0
    assert list(read_samples(uri)) == []
    assert list(samples_from_table(samples_to_table([], COCO17, "test"))) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not parquet", "expected layout"),
        (None, "not a table of multi-view samples"),
    ],
)
def test_another_file_is_refused_with_its_path(content, said, tmp_path):
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    (tmp_path / "x.parquet").write_bytes(sink.getvalue() if content is None else content)
    with pytest.raises(DatasetError, match=f"x.parquet.*{said}"):
        list(read_samples(str(tmp_path)))


def test_a_folder_without_tables_says_what_it_has(tmp_path):
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no Parquet files; it has .*image\.png"):
        list(read_samples(str(tmp_path)))


def test_a_table_of_another_version_says_to_convert_again(tmp_path):
    table = samples_to_table(some_samples(), THREE, "test")
    metadata = {k: v.replace(b'"schema_version": 1', b'"schema_version": 9') for k, v in table.schema.metadata.items()}
    fs, path = filesystem(str(tmp_path / "t.parquet"))
    with fs.open(path, "wb") as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(DatasetError, match="version 9, this mvpose reads 1: convert"):
        list(read_samples(str(tmp_path)))


def test_what_is_seen_is_in_the_image_and_in_front_of_the_camera():
    cameras = rig()
    centre = np.array([[[0.0, 0.0, 1.0]]])
    visible, box = observed(cameras, centre)
    assert visible.all() and np.isfinite(box).all()
    behind = cameras.centres_world[:1].numpy()[:, None] * 3.0
    assert not observed(cameras, behind)[0][0, 0, 0]
    missing, box = observed(cameras, np.full((1, 1, 3), np.nan))
    assert not missing.any() and np.isnan(box).all()


def test_selecting_cameras_takes_their_images_boxes_and_visibility_along():
    sample = some_samples()[0]
    names = (sample.rig.names[2], sample.rig.names[0])
    chosen = sample.select(names)
    assert chosen.rig.names == names and chosen.images == (sample.images[2], sample.images[0])
    np.testing.assert_array_equal(chosen.box, sample.box[[2, 0]])
    with pytest.raises(KeyError):
        sample.select(("nobody",))


def test_people_without_any_joint_have_no_row():
    scene = SampleScene(capture_id="c", subject="", action="", split="", rig=rig(), skeleton=THREE)
    xyz = np.full((2, 3, 3), np.nan)
    xyz[1] = 0.5
    labels = Labels(frame=np.array([0, 1]), position=np.array([0, 1]), xyz=xyz)
    (only,) = scene_samples(scene, labels, lambda f: dict.fromkeys(rig().names, SampleImage("a.png")))
    assert only.frame == 1
    assert replace(only, xyz=xyz[0]).valid.tolist() == [False] * 3
