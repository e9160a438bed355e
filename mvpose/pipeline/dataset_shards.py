"""Convert a dataset to a table of samples in parallel, shard by shard, on Ray Data or in a plain loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mvpose.accelerator import require_no_gpus
from mvpose.datasets.conversion import Dataset, Receipt, begin_conversion, convert_shard
from mvpose.datasets.crops import CropConfig
from mvpose.pipeline.engine import Engine, EngineConfig


def convert(dataset: Dataset, crops: CropConfig, output: str, engine: EngineConfig) -> Iterator[Receipt]:
    """Receipts of the shards of a dataset as they finish, in no particular order.

    Rerun to resume: existing shards are kept. ConfigError if `output` was started with other settings, DatasetError if
    the dataset is missing. With Ray, worker logs are kept in `logs/` of `output`.
    """
    require_no_gpus(engine.gpus, "making a table of samples")
    shards = dataset.shards()
    begin_conversion(dataset, crops, output)
    if engine.local:
        return (convert_shard(shard, dataset, crops, output) for shard in shards)
    return _ray_data(shards, dataset, crops, output, engine)


def _ray_data(
    shards: list[str], dataset: Dataset, crops: CropConfig, output: str, engine: EngineConfig
) -> Iterator[Receipt]:
    import ray.data

    runner = Engine(engine, output)
    try:
        runner.start()
        _, workers = runner.pool_limits(engine.need(with_model=False))
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=max(len(shards), 1))
        pool = ray.data.TaskPoolStrategy(size=workers)
        arguments = {"dataset": dataset, "crops": crops, "output": output}
        function: Any = convert_row
        receipts = rows.map(function, fn_kwargs=arguments, num_cpus=engine.cpus_per_worker, compute=pool)
        for row in receipts.iter_rows():
            yield Receipt(**row)
    finally:
        runner.close()


def convert_row(row: dict[str, Any], dataset: Dataset, crops: CropConfig, output: str) -> dict[str, Any]:
    """`convert_shard` for Ray Data: from a row with the shard's name to a row with its receipt."""
    return asdict(convert_shard(row["shard"], dataset, crops, output))
