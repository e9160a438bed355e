"""A dataset to a table of samples in parallel: shards mapped by Ray Data, or in a plain loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mvpose.datasets.conversion import Dataset, Receipt, begin_conversion, convert_shard
from mvpose.datasets.crops import CropConfig
from mvpose.pipeline.engine import EngineConfig


def convert(dataset: Dataset, crops: CropConfig, output: str, engine: EngineConfig) -> Iterator[Receipt]:
    """Receipts of the shards of a dataset as they are done, in no particular order.

    Run it again to go on: shards that are there are left as they are. ConfigError where `output` was begun with other
    settings, DatasetError where the dataset is not there.
    """
    shards = dataset.shards()
    begin_conversion(dataset, crops, output)
    if engine.local:
        return (convert_shard(shard, dataset, crops, output) for shard in shards)
    return _ray_data(shards, dataset, crops, output, engine)


def _ray_data(
    shards: list[str], dataset: Dataset, crops: CropConfig, output: str, engine: EngineConfig
) -> Iterator[Receipt]:
    import ray
    import ray.data

    workers = engine.workers or len(os.sched_getaffinity(0))
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        settings["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": "1"}}
        if engine.address:
            ray.init(address=engine.address, **settings)
        else:
            store = engine.object_store_mib * 2**20
            ray.init(
                address="local", num_cpus=workers + 1, object_store_memory=store, include_dashboard=False, **settings
            )
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=max(len(shards), 1))
        pool = ray.data.TaskPoolStrategy(size=workers if not engine.address or engine.workers else None)
        arguments = {"dataset": dataset, "crops": crops, "output": output}
        function: Any = convert_row
        receipts = rows.map(function, fn_kwargs=arguments, num_cpus=engine.cpus_per_worker, compute=pool)
        for row in receipts.iter_rows():
            yield Receipt(**row)
    finally:
        if started:
            ray.shutdown()


def convert_row(row: dict[str, Any], dataset: Dataset, crops: CropConfig, output: str) -> dict[str, Any]:
    """`convert_shard` as Ray Data calls it: a row with the shard's name to a row with its receipt."""
    return asdict(convert_shard(row["shard"], dataset, crops, output))
