"""Batches from loader processes: those of one reader, and each row group read by one of them."""

import os
import signal
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mvpose.benchmarks.loading_speed import LoadingBenchmark, run
from mvpose.datasets.row_reader import RowReader
from mvpose.training.batches import TrainingBatch
from mvpose.training.feed import Feed
from mvpose.training.loading import Columns, Reader, read_by_processes
from mvpose.training.order import Split, Take
from mvpose.training.training_config import ComputeConfig, SamplesConfig
from tests.training.conftest import write_table
from tests.training.test_training_run import tiny


@pytest.fixture(scope="module")
def grouped(tmp_path_factory) -> str:
    """40 samples in row groups of 4 to train on, and one to validate on."""
    uri = write_table(str(tmp_path_factory.mktemp("grouped") / "samples.parquet"), 40, 1)
    pq.write_table(pq.read_table(uri), uri, row_group_size=4)
    return uri


def tensors(batch: TrainingBatch) -> list[torch.Tensor]:
    return [batch.crops, batch.projections, batch.present, *vars(batch.truth).values()]


class Noting:
    """A reader that notes the rows that its process reads."""

    def __init__(self, source: Reader, folder: str) -> None:
        self.source, self.folder = source, folder

    def __getitem__(self, take: Take) -> Columns:
        with open(f"{self.folder}/{os.getpid()}", "a") as file:
            file.write("".join(f"{take.epoch} {row}\n" for row in take.read))
        return self.source[take]


def test_two_loaders_of_the_second_of_two_workers_give_the_batches_of_one_thread(grouped, tmp_path):
    """From the middle of an epoch into the next. Fails if rows or steps are exchanged, or both read from a group."""
    config = tiny(grouped, samples=SamplesConfig(shuffled_groups=4))
    feed = Feed.open(replace(config, optimisation=replace(config.optimisation, steps=16)))
    splits, steps = (Split(0, 2),), range(3, feed.total_steps)
    source = Noting(feed.reader(training=True, loaders=2), str(tmp_path))
    found = list(read_by_processes(source, lambda step: feed.order.parts(step, 1, splits, 2), steps, 2))
    expected = list(feed.batches(3, 1, splits))
    assert len(found) == len(expected) == 13
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, TrainingBatch) and isinstance(other, TrainingBatch)
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
    table, read = RowReader(grouped), []
    for path in tmp_path.iterdir():
        epoch, row = np.loadtxt(path, int).T
        read += sorted(set(table.group_of(row[epoch == 0]).tolist()))
    assert len(set(read)) == len(read) >= 5


@pytest.mark.slow
def test_a_loader_that_dies_ends_the_training_with_an_error(grouped):
    """Fails if the training waits for ever, or ends early as if nothing were left."""
    feed = Feed.open(tiny(grouped, compute=ComputeConfig(local=True, loaders=1)))
    source = Deadly(feed.reader(training=True))
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(read_by_processes(source, lambda step: feed.order.parts(step, 0, (Split(0, 1),), 1), range(6), 1))


class Deadly:
    """A reader whose process dies at its third step."""

    def __init__(self, source: Reader) -> None:
        self.source = source

    def __getitem__(self, take: Take) -> Columns:
        if take.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source[take]


@pytest.mark.slow
def test_the_benchmark_reads_the_table_once_per_epoch_however_many_read_it(tmp_path, capsys):
    """120 MB in four row groups. Fails if each loader reads what it uses from a window of its own."""
    config = LoadingBenchmark(
        gigabytes=0.12, loaders=(1, 2), shuffled_groups=2, step_ms=1.0, paced_steps=4, scratch=str(tmp_path)
    )
    figures = run(config)
    for loaders in (1, 2):
        name = f"1 workers, {loaders} loaders each"
        assert 1.0 <= figures[f"{name}, bytes read per epoch over the table"] < 1.2  # pyright: ignore
        assert figures[f"{name}, samples/s"] > 0 and 0 <= figures[f"{name}, share of time spent waiting"] <= 1  # pyright: ignore
    assert "read / table" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())
