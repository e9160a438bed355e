"""Records to tables and back."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.confidence import ConfidenceScale
from mvpose.errors import ResultsError
from mvpose.footage.rig_table import figures_from_table, figures_to_table, rig_from_table, rig_to_table
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import BY_FRAME, Clip, Keypoints2D, Poses3D
from mvpose.run.pose_tables import (
    TableInfo,
    keypoints_from_table,
    keypoints_to_table,
    poses_from_table,
    poses_to_table,
)
from mvpose.run.sequences import concatenated_keypoints, concatenated_poses, pose_windows, sampled_keypoints
from mvpose.skeleton import COCO17, Skeleton

CAMERAS = tuple(f"cam{i:03d}" for i in range(300))


def info(start: int, stop: int, skeleton: Skeleton = COCO17, cameras: int = 31) -> TableInfo:
    return TableInfo(
        capture_id="a", start=start, stop=stop, fps=60.0, cameras=CAMERAS[:cameras], skeleton=skeleton, fingerprint="f"
    )


def some_poses(frames: int, people: int, seed: int, cameras: int = 31) -> Poses3D:
    rng = np.random.default_rng(seed)
    shape = (frames, people, 17)
    used = rng.random((*shape, cameras)) < 0.3
    found = used.sum(axis=-1) >= 2
    found[:, :, 0] = True
    return Poses3D(
        xyz=np.where(found[..., None], rng.normal(size=(*shape, 3)), np.nan).astype(np.float32),
        confidence=np.where(found, rng.random(shape) + 0.01, 0).astype(np.float32),
        error_px=np.where(found, rng.random(shape), np.nan).astype(np.float32),
        sigma_mm=np.where(found, 50 * rng.random(shape), np.nan).astype(np.float32),
        num_views=used.sum(axis=-1).astype(np.int64),
        views_used=used,
        track_id=np.arange(people),
        skeleton=COCO17,
    )


def some_keypoints(frames: int, people: int, seed: int) -> Keypoints2D:
    rng = np.random.default_rng(seed)
    shape = (3, frames, people)
    there = np.sort(rng.random(shape) < 0.7, axis=-1)[..., ::-1]
    seen = there[..., None] & (rng.random((*shape, 17)) < 0.8)
    return Keypoints2D(
        xy=np.where(seen[..., None], rng.random((*shape, 17, 2)) * 1000, np.nan).astype(np.float32),
        confidence=np.where(seen, rng.random((*shape, 17)) + 0.01, 0).astype(np.float32),
        box=np.where(there[..., None], rng.random((*shape, 4)), 0).astype(np.float32),
        box_score=np.where(there, rng.random(shape) + 0.01, 0).astype(np.float32),
        skeleton=COCO17,
    )


def same(a, b, *names: str) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(1, 7), people=st.integers(1, 3), seed=st.integers(0, 99))
def test_poses_survive_the_table_missing_joints_included(frames, people, seed):
    poses = some_poses(frames, people, seed)
    back, reported = poses_from_table(poses_to_table(poses, info(40, 40 + frames)))
    same(back, poses, *BY_FRAME, "track_id")
    assert reported == info(40, 40 + frames)


@pytest.mark.parametrize("cameras", [32, 33, 64, 65, 300])
def test_which_of_many_cameras_were_used_survives_the_file(tmp_path, cameras):
    """Panoptic's dome has 480; an integer of one bit a camera ends at 32 or 64."""
    poses = some_poses(3, 2, cameras, cameras)
    pq.write_table(poses_to_table(poses, info(0, 3, cameras=cameras)), tmp_path / "poses.parquet")
    back, _ = poses_from_table(pq.read_table(tmp_path / "poses.parquet"))
    same(back, poses, "views_used", "num_views")


def of_version(version: int, table: pa.Table) -> pa.Table:
    meta = json.loads(table.schema.metadata[b"mvpose"]) | {"schema_version": version}
    return table.replace_schema_metadata({b"mvpose": json.dumps(meta).encode()})


def test_a_file_of_schema_version_1_is_read():
    poses = some_poses(4, 2, 0)
    table = poses_to_table(poses, info(0, 4))
    bits = np.array(table.column("views_used").to_pylist(), dtype=np.uint32)
    mask = (bits << np.arange(31, dtype=np.uint32)).sum(axis=-1).astype(np.uint32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(mask.ravel()), 17)
    old = table.set_column(table.column_names.index("views_used"), "views_used", column)
    back, _ = poses_from_table(of_version(1, old.drop_columns("sigma_mm")))
    same(back, poses, "xyz", "views_used")


def test_a_file_of_schema_version_3_is_read_and_its_sigma_is_not_known():
    poses = some_poses(4, 2, 0)
    back, _ = poses_from_table(of_version(3, poses_to_table(poses, info(0, 4)).drop_columns("sigma_mm")))
    same(back, poses, *(name for name in BY_FRAME if name != "sigma_mm"))
    assert np.isnan(back.sigma_mm).all() and back.sigma_mm.dtype == np.float32


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(1, 7), people=st.integers(1, 3), seed=st.integers(0, 99))
def test_keypoints_survive_the_table(frames, people, seed):
    keypoints = some_keypoints(frames, people, seed)
    back, _ = keypoints_from_table(keypoints_to_table(keypoints, info(5, 5 + frames, cameras=3)))
    maximum = back.box_score.shape[2]
    assert not (keypoints.box_score[:, :, maximum:] > 0).any()
    for name in ("xy", "confidence", "box", "box_score"):
        np.testing.assert_array_equal(getattr(back, name), getattr(keypoints, name)[:, :, :maximum], err_msg=name)


def test_a_clip_where_nobody_was_seen_is_an_empty_table():
    nobody = some_keypoints(4, 1, 0)
    nobody = Keypoints2D(
        nobody.xy[:, :, :0], nobody.confidence[:, :, :0], nobody.box[:, :, :0], nobody.box_score[:, :, :0], COCO17
    )
    back, reported = keypoints_from_table(keypoints_to_table(nobody, info(0, 4, cameras=3)))
    assert back.xy.shape == (3, 4, 0, 17, 2) and reported.stop == 4


def test_clips_put_together_are_the_whole_and_a_lost_clip_is_empty():
    poses = some_poses(9, 2, 1)

    def part(a: int, b: int) -> pa.Table:
        cut = {n: getattr(poses, n)[a:b] for n in BY_FRAME}
        return poses_to_table(Poses3D(**cut, track_id=poses.track_id, skeleton=COCO17), info(a, b))

    whole = concatenated_poses([part(0, 3), part(3, 9)])
    same(whole, poses, "xyz", "confidence", "views_used")
    holed = concatenated_poses([part(0, 3), part(6, 9)], Clip("a", 0, 9))
    assert np.isnan(holed.xyz[3:6]).all() and (holed.confidence[3:6] == 0).all()
    np.testing.assert_array_equal(holed.xyz[6:], poses.xyz[6:])


def test_windows_over_clips_are_cuts_of_the_whole_and_hold_no_clip_that_they_do_not_touch():
    poses, edges = some_poses(20, 2, 1), [0, 3, 9, 10, 14, 20]
    read: list[int] = []

    def clips() -> Iterator[pa.Table]:
        for start, stop in pairwise(edges):
            if start != 9:  # lost
                read.append(start)
                cut = {n: getattr(poses, n)[start:stop] for n in BY_FRAME}
                yield poses_to_table(Poses3D(**cut, track_id=poses.track_id, skeleton=COCO17), info(start, stop))

    windows = [(0, 4), (2, 9), (9, 10), (9, 12), (13, 20)]
    expected_reads = [[0, 3], [0, 3], [0, 3, 10], [0, 3, 10], [0, 3, 10, 14]]
    for (start, stop), found, reads in zip(windows, pose_windows(clips(), windows), expected_reads, strict=True):
        # The generator has gone no farther than the window needs.
        assert [clip for clip in read if clip < stop] == [clip for clip in reads if clip < stop]
        whole = poses.xyz.copy()
        whole[9] = np.nan
        if found.xyz.shape[1]:
            np.testing.assert_array_equal(found.xyz, whole[start:stop])
        else:
            assert (start, stop) == (9, 10) and found.xyz.shape == (1, 0, 17, 3)


def test_frames_picked_from_clips_are_those_of_the_whole():
    keypoints = some_keypoints(20, 3, 5)
    tables = [
        keypoints_to_table(keypoints_at(keypoints, slice(a, b)), info(a, b, cameras=3)) for a, b in ((0, 6), (6, 20))
    ]
    frames = np.array([0, 4, 5, 6, 13, 19])
    found, whole = sampled_keypoints(iter(tables), frames), concatenated_keypoints(tables)
    for name in ("xy", "confidence", "box", "box_score"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[:, frames])
    lost = sampled_keypoints(iter(tables[1:]), frames)
    assert (lost.box_score[:, :3] == 0).all() and np.isnan(lost.xy[:, :3]).all()


def test_clips_of_keypoints_with_different_numbers_of_people_fit_together():
    one, two = some_keypoints(3, 1, 3), some_keypoints(2, 3, 4)
    whole = concatenated_keypoints(
        [keypoints_to_table(one, info(0, 3, cameras=3)), keypoints_to_table(two, info(3, 5, cameras=3))]
    )
    np.testing.assert_array_equal(whole.xy[:, :3, :1], one.xy)
    np.testing.assert_array_equal(whole.xy[:, 3:], two.xy)
    assert (whole.box_score[:, :3, 1:] == 0).all()


def test_a_reader_without_mvpose_finds_unit_axis_and_joints(tmp_path):
    path = str(tmp_path / "poses.parquet")
    pq.write_table(poses_to_table(some_poses(2, 1, 0), info(0, 2)), path)
    table = pq.read_table(path)
    metadata = table.schema.metadata[b"mvpose"]
    assert b'"unit": "metre"' in metadata and b'"up_axis": "z"' in metadata and b"left_wrist" in metadata
    columns = {"capture", "frame", "time", "track", "x", "y", "z", "confidence", "error_px", "sigma_mm", "num_views"}
    assert columns <= set(table.column_names)
    assert table.column("time").to_pylist() == [0.0, 1 / 60]


def test_a_foreign_table_is_refused_with_a_sentence():
    with pytest.raises(ResultsError, match="not written by mvpose"):
        poses_from_table(pa.table({"x": [1.0]}))


def test_a_rig_survives_its_table_exactly():
    rig = CameraRig(
        names=("a", "b"),
        focal=torch.rand(2, 2, dtype=torch.float64),
        centre=torch.rand(2, 2, dtype=torch.float64),
        lens=Lens((LensModel.BROWN_CONRADY, LensModel.KANNALA_BRANDT), torch.rand(2, 12, dtype=torch.float64)),
        camera_from_world=Rigid.from_rotation_vector(
            torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
        ),
        size=torch.tensor([[1920, 1080], [640, 480]]),
    )
    table = rig_to_table(rig, {"moved_mm": 3.5})
    back = rig_from_table(table)
    assert back.names == rig.names and back.lens.models == rig.lens.models
    for a, b in [(back.focal, rig.focal), (back.lens.coefficients, rig.lens.coefficients), (back.size, rig.size)]:
        assert torch.equal(a, b)
    assert torch.equal(back.projections, rig.projections)
    assert b'{"moved_mm": 3.5}' in table.schema.metadata.values()


def test_figures_survive_their_table():
    figures = {"reprojection_px": 4.25, "bone_spread/left_thigh": 0.03}
    assert figures_from_table(figures_to_table("a", figures)) == figures


def test_the_meaning_of_2d_confidence_stays_with_it_through_tables_and_their_join():
    # Fails if the metadata or the joined clips lose the scale: confidence would be read as a likelihood.
    scale = ConfidenceScale(likelihood=((0.0, 0.0), (0.1, 0.3), (1.0, 0.98)), border_odds=0.25)
    first, second = (replace(some_keypoints(4, 2, seed), scale=scale) for seed in (0, 1))
    tables = [keypoints_to_table(k, info(4 * i, 4 * i + 4, cameras=3)) for i, k in enumerate((first, second))]
    assert keypoints_from_table(tables[0])[0].scale == scale
    assert concatenated_keypoints(tables).scale == sampled_keypoints(tables, np.array([1, 6])).scale == scale
    assert keypoints_at(first, slice(1, 2)).scale == scale
    np.testing.assert_array_equal(keypoints_from_table(tables[1])[0].confidence, second.confidence)


@pytest.mark.parametrize("wrong", ["[[0.0, 0.0], [0.1, 3.0]]", "[[0.0], [0.1]]", '"high"'])
def test_a_damaged_scale_is_named_as_damaged_metadata(wrong):
    scaled = replace(some_keypoints(2, 1, 0), scale=ConfidenceScale(likelihood=((0.0, 0.0), (0.1, 0.3))))
    table = keypoints_to_table(scaled, info(0, 2, cameras=3))
    metadata = table.schema.metadata[b"mvpose"].replace(b"[[0.0, 0.0], [0.1, 0.3]]", wrong.encode())
    with pytest.raises(ResultsError, match="damaged"):
        keypoints_from_table(table.replace_schema_metadata({b"mvpose": metadata}))
