from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.records import BY_FRAME, Poses3D
from mvpose.run.capture_tables import FLAGS, filtered_from_table, filtered_to_table
from mvpose.run.pose_tables import TableInfo, poses_from_table, poses_to_table
from mvpose.run.sequences import pose_windows
from mvpose.run.store import table_file
from mvpose.skeleton import COCO17
from mvpose.temporal import filters
from mvpose.temporal.filter_settings import ButterworthFilter
from mvpose.temporal.filters import blocks, bone_lengths, filtered, filtered_block

INFO = TableInfo(
    capture_id="a", start=0, stop=60, fps=60.0, cameras=("c0", "c1", "c2"), skeleton=COCO17, fingerprint="f"
)


def walk(seed: int, missing: float, people: int = 2) -> Poses3D:
    """People in smooth motion with noise, holes and a few values far off."""
    rng = np.random.default_rng(seed)
    shape = (60, people, len(COCO17.joints))
    place = rng.normal(0, 1, (1, people, len(COCO17.joints), 3))
    xyz = place + 0.3 * np.sin(np.arange(60) / 9)[:, None, None, None] + rng.normal(0, 0.005, (*shape, 3))
    xyz[rng.random(shape) < 0.01] += 1.0
    gone = rng.random(shape) < missing
    return Poses3D(
        xyz=np.where(gone[..., None], np.nan, xyz).astype(np.float32),
        confidence=np.where(gone, 0.0, rng.uniform(0.3, 1, shape)).astype(np.float32),
        error_px=np.where(gone, np.nan, rng.uniform(0, 9, shape)).astype(np.float32),
        sigma_mm=np.where(gone, np.nan, rng.uniform(5, 90, shape)).astype(np.float32),
        num_views=np.where(gone, 0, 3),
        views_used=np.repeat(~gone[..., None], 3, axis=-1),
        track_id=np.array([3, 8][:people]),
        skeleton=COCO17,
    )


@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.2, 0.97]), hampel=st.sampled_from([0.0, 4.0]))
@settings(max_examples=15, deadline=None)
def test_filtered_poses_come_back_with_every_flag(seed, missing, hampel):
    raw = walk(seed, missing)
    before = filtered(raw, 60.0, ButterworthFilter(hampel_threshold=hampel))
    after = filtered_from_table(filtered_to_table(before, INFO), raw)
    shown = np.asarray((before.poses.confidence > 0).any(axis=2))
    for name in BY_FRAME:
        np.testing.assert_array_equal(getattr(after.poses, name), getattr(before.poses, name))
    for name in FLAGS:
        # A person of whom nothing is left in a frame has no row there.
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name) & shown[..., None])
    assert after.raw is raw


def test_a_person_of_whom_the_filter_left_nothing_keeps_the_place():
    raw = walk(1, 0.0)
    raw.xyz[:, 0], raw.confidence[:, 0] = np.nan, 0.0
    after = filtered_from_table(filtered_to_table(filtered(raw, 60.0, ButterworthFilter()), INFO), raw)
    assert np.isnan(after.poses.xyz[:, 0]).all() and np.isfinite(after.poses.xyz[:, 1]).all()
    assert after.poses.track_id.tolist() == [3, 8]


def test_a_reader_without_mvpose_can_tell_filled_values_from_measured_ones(tmp_path):
    raw = walk(2, 0.0, people=1)
    raw.xyz[20:30, 0, 7], raw.confidence[20:30, 0, 7], raw.num_views[20:30, 0, 7] = np.nan, 0.0, 0
    pq.write_table(filtered_to_table(filtered(raw, 60.0, ButterworthFilter()), INFO), tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pandas()
    filled = np.stack(rows["filled"].to_list())
    assert filled[20:30, 7].all() and filled.sum() == 10
    assert np.stack(rows["x"].to_list())[filled].size == np.isfinite(np.stack(rows["x"].to_list())[filled]).sum()
    assert (np.stack(rows["num_views"].to_list())[filled] == 0).all()


def test_a_capture_filtered_and_written_block_by_block_reads_back_as_all_at_once(monkeypatch, tmp_path):
    """What the job does: tables of clips, windows over them, blocks, one file."""
    monkeypatch.setattr(filters, "BLOCK_FRAMES", 200)
    short = [walk(seed, 0.1) for seed in range(10)]
    whole = replace(short[0], **{name: np.concatenate([getattr(p, name) for p in short]) for name in BY_FRAME})
    about, config = replace(INFO, stop=600), ButterworthFilter(hampel_threshold=4.0, constant_bones="limbs")
    expected = filtered(whole, 60.0, config)

    def clips() -> Iterator[pa.Table]:
        for number, poses in enumerate(short):
            yield poses_to_table(poses, replace(INFO, start=60 * number, stop=60 * (number + 1)))

    parts = blocks(600, 60.0, config)
    assert len(parts) > 2
    lengths = bone_lengths((poses_from_table(table)[0] for table in clips()), config)
    windows = pose_windows(clips(), [(part.first, part.last) for part in parts])
    made = (filtered_block(raw, part, 60.0, config, lengths) for raw, part in zip(windows, parts, strict=True))
    file = table_file(filtered_to_table(m, about, part.start) for m, part in zip(made, parts, strict=True))
    table = pq.read_table(file.file.name)
    assert table.schema.metadata == filtered_to_table(expected, about).schema.metadata
    found = filtered_from_table(table, whole)
    np.testing.assert_allclose(found.poses.xyz, expected.poses.xyz, atol=1e-6)  # float32
    for name in FLAGS:
        shown = (expected.poses.confidence > 0).any(axis=2)[..., None]
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name) & shown)
    np.testing.assert_array_equal(found.poses.confidence, expected.poses.confidence)
