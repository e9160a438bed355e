"""One subject (a network or a run) on one or several tables of truth: rows, figures, and what they are of."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from mvpose.archive.locations import exists, join, name, reading
from mvpose.archive.model_folders import require_model
from mvpose.archive.run_folder import RunFolder
from mvpose.datasets.protocols import Protocol, read_protocol
from mvpose.datasets.sample import Sample
from mvpose.datasets.sample_table import read_samples, sample_files
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Answers, Judgement, rows_of
from mvpose.evaluation.judging import Judged
from mvpose.evaluation.network import NetworkConfig, network_answers
from mvpose.evaluation.run_poses import run_answers
from mvpose.evaluation.summary import Subject, figures
from mvpose.intervals import Estimate
from mvpose.models.saved import SavedModel, load_model
from mvpose.tracking.config import TrackingConfig
from mvpose.tracking.registry import REGISTRY, download, resolve

_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class TruthTable:
    """A table of samples, what of it counts, and how it is judged."""

    uri: str
    protocol: Protocol | None = None
    """None for every sample."""
    views: tuple[int, ...] = ()
    judgement: Judgement = field(default_factory=Judgement)

    def samples(self) -> Iterator[Sample]:
        """The samples that count; ConfigError for none."""
        return read_samples(self.uri) if self.protocol is None else read_protocol(self.uri, self.protocol)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of it."""

    rows: pd.DataFrame
    estimates: dict[str, Estimate]
    subject: Subject
    predicted: Float[np.ndarray, "n J 3"]
    """Of each row, in the order of the truth's joints."""
    notes: tuple[str, ...] = ()
    """What of the truth was not judged."""


def evaluate(
    model: SavedModel | RunFolder,
    tables: Sequence[TruthTable],
    config: NetworkConfig,
    centroids: Float[np.ndarray, "k J 3"] | None = None,
) -> Evaluation:
    """A network by each number of views of each table, or a run by the views it had.

    ConfigError where nothing could be answered, or the tables are of different skeletons.
    """
    parts: list[tuple[Answers, Judgement]] = []
    for table in tables:
        if isinstance(model, RunFolder):
            answers = [run_answers(model, table.samples())]
        else:
            answers = network_answers(model, table.samples(), table.views, config)
        parts += [(a, table.judgement) for a in answers]
    if not parts:
        raise ConfigError(
            f"there was no sample with as many cameras as asked for in {', '.join(table.uri for table in tables)}."
        )
    frames = [rows_of(answers, judgement, centroids) for answers, judgement in parts]
    skeletons = {answers.samples[0].skeleton for answers, _ in parts}
    if len(skeletons) > 1:
        raise ConfigError(f"tables of different skeletons ({', '.join(s.name for s in skeletons)}): one at a time.")
    (skeleton,) = skeletons
    rows = pd.concat(frames, ignore_index=True)
    subject = Subject(
        data_sha256=data_sha256([table.uri for table in tables]),
        model_sha256=model.settings().plan_digest if isinstance(model, RunFolder) else model.sha256,
        protocol=" + ".join(_protocol_name(table) for table in tables),
        skeleton=skeleton,
    )
    predicted = [
        Judged.between(a.skeleton, skeleton, j.joints, j.root).told(a.joints).astype(np.float32) for a, j in parts
    ]
    notes = tuple(note for answers, _ in parts for note in answers.notes)
    return Evaluation(rows, figures(rows, skeleton), subject, np.concatenate(predicted), notes)


def open_model(uri: str, device: str, tracking: TrackingConfig) -> SavedModel | RunFolder:
    """The output of `mvpose reconstruct`, a saved network, or a version in the registry (`models:/NAME@ALIAS`).

    ConfigError or WeightsError where it is none of them, or the version's weights are not those registered.
    """
    if uri.startswith(REGISTRY):
        with tempfile.TemporaryDirectory() as scratch:
            return load_model(download(tracking, resolve(tracking, uri), scratch), device)
    if exists(join(uri, "run.json")):
        return RunFolder(uri)
    require_model(uri)
    return load_model(uri, device)


def data_sha256(uris: Sequence[str]) -> str:
    """Of all files of the tables by name and content, whatever folder they stand in."""
    total = hashlib.sha256()
    for uri in uris:
        for file in sample_files(uri):
            total.update(name(file).encode())
            with reading(file) as opened:
                while block := opened.read(_BLOCK):
                    total.update(block)
    return total.hexdigest()


def _protocol_name(table: TruthTable) -> str:
    views = f", views {' '.join(map(str, table.views))}" if table.views else ""
    return f"{table.judgement.benchmark or 'every sample'}{views}"
