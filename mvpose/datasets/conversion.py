"""Conversion of a dataset to a table of samples, one shard at a time per worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mvpose.config import differences, flatten
from mvpose.datasets.crops import CropConfig, cropped_samples
from mvpose.datasets.sample import Sample
from mvpose.datasets.sample_table import SCHEMA_VERSION, write_samples
from mvpose.errors import ConfigError, MvposeError, ResultsError
from mvpose.skeleton import Skeleton
from mvpose.storage.commits import create_once
from mvpose.storage.locations import exists, join, read_text, safe_path


@runtime_checkable
class Dataset(Protocol):
    """A dataset on disk or S3: a frozen dataclass, so that its fields are settings and it can be sent to workers."""

    @property
    def name(self) -> str:
        """Short name of the dataset."""
        ...

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of all its samples."""
        ...

    def shards(self) -> list[str]:
        """Names of the parts that can be read independently, usually captures."""
        ...

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of a shard, ordered by frame."""
        ...


@dataclass(frozen=True)
class Receipt:
    """Result of a shard: a file, or an error message."""

    shard: str
    rows: int
    file: str
    problem: str = ""


def begin_conversion(dataset: Dataset, crops: CropConfig, output: str) -> None:
    """Record the settings of the table; ConfigError if it was created with other settings."""
    settings = {"dataset": dataset.name, "schema_version": SCHEMA_VERSION, **flatten(dataset, "dataset.")}
    settings |= flatten(crops, "crops.")
    uri = join(output, "dataset.json")
    if create_once(uri, json.dumps(settings, indent=1, sort_keys=True).encode()):
        return
    changed = differences(json.loads(read_text(uri)), settings)
    if changed:
        raise ConfigError(f"{output} was created with other settings ({'; '.join(changed)}): choose another output.")


def convert_shard(shard: str, dataset: Dataset, crops: CropConfig, output: str) -> Receipt:
    """Read, crop and write one shard; an existing one is kept.

    A shard that cannot be read yields a receipt with the reason. Safe to kill and repeat. ResultsError if the output
    cannot be written.
    """
    uri = join(output, "samples", f"{safe_path(shard.split('/'))}.parquet")
    if exists(uri):
        return Receipt(shard, -1, uri)
    try:
        samples = dataset.read(shard)
        rows = write_samples(
            uri, cropped_samples(samples, crops) if crops.side else samples, dataset.skeleton, dataset.name
        )
    except ResultsError:
        raise
    except (MvposeError, OSError) as error:
        return Receipt(shard, 0, "", str(error))
    return Receipt(shard, rows, uri)
