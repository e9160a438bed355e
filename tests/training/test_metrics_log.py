"""The journal of a training in an object store: what it costs, and that every reader finds every line."""

import json

import pytest

from mvpose.storage.locations import list_folder
from mvpose.training import metrics_log
from mvpose.training.metrics_log import SEGMENT_LINES, Journal

LINES = 3 * SEGMENT_LINES + 5


def written(journal: Journal, first: int, last: int) -> list[dict]:
    for step in range(first, last):
        journal.write(step, {"train/loss": 1.0 / step})
    return [{"step": step, "train/loss": 1.0 / step} for step in range(first, last)]


@pytest.fixture
def traffic(monkeypatch) -> list[tuple[str, int]]:
    """Kind and size of every file that a journal writes or reads."""
    seen: list[tuple[str, int]] = []
    write, read = metrics_log.write_whole, metrics_log.read_text

    def counted_read(uri: str) -> str:
        text = read(uri)
        seen.append(("read", len(text)))
        return text

    monkeypatch.setattr(
        metrics_log, "write_whole", lambda uri, data: (seen.append(("write", len(data))), write(uri, data))
    )
    monkeypatch.setattr(metrics_log, "read_text", counted_read)
    return seen


def test_a_line_costs_one_small_write_and_a_look_one_read(s3, traffic):
    """Fails if a line rewrites or reads what was written before, or a reader reads closed segments again."""
    writer, reader = Journal(f"{s3}/run"), Journal(f"{s3}/run")
    writer.rewind(0)
    traffic.clear()
    expected = written(writer, 1, LINES + 1)
    assert [kind for kind, _ in traffic] == ["write"] * LINES
    assert max(size for _, size in traffic) <= SEGMENT_LINES * (len(json.dumps(expected[0])) + 25)
    assert reader.read() == expected
    traffic.clear()
    expected += written(writer, LINES + 1, LINES + 2)
    traffic.clear()
    assert reader.read() == expected
    assert [kind for kind, _ in traffic] == ["read"]


def test_a_journal_that_is_rewound_is_read_without_what_is_repeated(s3):
    """Fails if a reader keeps closed segments of before, or the next writer continues where the lost one stopped."""
    lost, reader = Journal(f"{s3}/run"), Journal(f"{s3}/run")
    lost.rewind(0)
    before = written(lost, 1, LINES + 1)
    assert reader.read() == before
    again = Journal(f"{s3}/run")
    again.rewind(SEGMENT_LINES + 7)
    kept = before[: SEGMENT_LINES + 7]
    assert reader.read() == kept == Journal(f"{s3}/run").read()
    assert len(list_folder(f"{s3}/run/metrics")) == 1
    kept += written(again, 1000, 1000 + 2 * SEGMENT_LINES)
    assert reader.read() == kept == Journal(f"{s3}/run").read()


def test_a_journal_of_an_earlier_version_is_continued(s3):
    metrics_log.write_whole(f"{s3}/run/metrics.jsonl", b'{"step": 2, "train/loss": 0.5}\n')
    journal = Journal(f"{s3}/run")
    journal.rewind(2)
    journal.write(4, {"train/loss": float("nan")})
    assert Journal(f"{s3}/run").read() == [{"step": 2, "train/loss": 0.5}, {"step": 4, "train/loss": None}]
