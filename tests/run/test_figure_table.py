import math
import os

import pyarrow as pa
import pytest

from mvpose.errors import ResultsError
from mvpose.footage.rig_table import figures_to_table
from mvpose.run.capture_tables import FigureTable, figure_rows, figure_writer

FIGURES = {f"take{i}": {"error": float(i), "share": math.nan if i == 2 else 0.1 * i} for i in range(5)}


@pytest.fixture
def table(tmp_path) -> FigureTable:
    uri = str(tmp_path / "figures.parquet")
    rows: list[pa.Table] = [figures_to_table(capture_id, own) for capture_id, own in FIGURES.items()]
    with figure_writer(uri) as writer:
        for some in (rows[:2], [], rows[2:]):
            writer.write_table(figure_rows(some))
    return FigureTable(uri)


def test_figures_are_a_mapping_by_capture(table):
    assert list(table) == list(FIGURES) and len(table) == 5
    assert table["take3"] == FIGURES["take3"] and math.isnan(table["take2"]["share"])
    assert dict(table.each()).keys() == FIGURES.keys() and "take9" not in table
    assert table.get("take9", {}) == {}


def test_medians_leave_out_what_is_not_known(table):
    assert table.medians()["error"] == 2.0
    assert table.medians()["share"] == pytest.approx(0.2)


def test_a_digest_of_it_follows_its_content(table, tmp_path):
    before = repr(table)
    assert before == repr(FigureTable(table.uri))
    with figure_writer(table.uri) as writer:
        writer.write_table(figure_rows([figures_to_table("take0", {"error": 0.5})]))
    assert repr(table) != before


def test_a_file_that_is_damaged_or_gone_is_one_sentence(table):
    os.truncate(table.uri, 100)
    for look in (lambda: table["take0"], lambda: len(table), lambda: list(table), table.medians):
        with pytest.raises(ResultsError, match=r"figures\.parquet cannot be read"):
            look()
    os.remove(table.uri)
    with pytest.raises(ResultsError, match=r"figures\.parquet cannot be read"):
        list(table)
