"""Rows of a table by number."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from mvpose.datasets.files import DatasetError
from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample_table import read_samples, write_samples
from mvpose.skeleton import COCO17, HUMAN36M17
from mvpose.storage.locations import read_bytes
from tests.training.conftest import drawn_sample, people, ring


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Two files of 10 rows; the first has row groups of three."""
    root = tmp_path_factory.mktemp("rows")
    samples = [drawn_sample(ring(), xyz, i) for i, xyz in enumerate(people(20))]
    write_samples(f"{root}/b.parquet", samples[10:], HUMAN36M17, "drawn")
    write_samples(f"{root}/a.parquet", samples[:10], HUMAN36M17, "drawn")
    pq.write_table(pq.read_table(f"{root}/a.parquet"), f"{root}/a.parquet", row_group_size=3)
    return str(root)


def test_rows_are_those_of_a_pass_over_the_table(folder):
    reader = RowReader(folder, kept_groups=2)
    expected = list(read_samples(folder))
    assert len(reader) == 20
    for row in np.random.default_rng(0).permutation(20):
        found = reader.sample(int(row))
        assert found.frame == expected[row].frame
        assert found.images == expected[row].images
        np.testing.assert_array_equal(found.xyz, expected[row].xyz)


def test_keys_are_numbered_as_the_rows_are(folder):
    reader = RowReader(folder)
    assert reader.keys(["frame"]).frame.tolist() == [reader.sample(row).frame for row in range(20)]


def test_rows_know_their_group(folder):
    assert RowReader(folder).group_of(np.arange(20)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3] + [4] * 10


def test_no_more_groups_are_kept_than_asked_for(folder):
    reader = RowReader(folder, kept_groups=2)
    for row in (0, 3, 6, 9, 12):
        reader.sample(row)
    assert len(reader._kept) == 2


def test_a_copied_table_has_the_same_digest_and_another_content_another(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").write_bytes(read_bytes(f"{folder}/{name}.parquet"))
    assert RowReader(str(tmp_path)).digest() == RowReader(folder).digest()
    samples = list(read_samples(f"{folder}/b.parquet"))
    samples[0].xyz[0] += 0.01
    write_samples(str(tmp_path / "b.parquet"), samples, HUMAN36M17, "drawn")
    assert RowReader(str(tmp_path)).digest() != RowReader(folder).digest()


def test_tables_of_different_joint_sets_are_not_mixed(folder, tmp_path):
    (tmp_path / "a.parquet").write_bytes(read_bytes(f"{folder}/a.parquet"))
    write_samples(str(tmp_path / "b.parquet"), [], COCO17, "other")
    with pytest.raises(DatasetError, match="coco17"):
        RowReader(str(tmp_path))
