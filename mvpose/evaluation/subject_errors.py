"""Evaluation of one subject (a network or a run) on one or several tables of ground truth."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from mvpose.datasets.origins import Origins, origins_of, pose_digests
from mvpose.datasets.protocols import Protocol, protocol_keys, read_protocol
from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import Sample
from mvpose.datasets.sample_table import read_samples, sample_files
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Answers, Metric, Scoring, rows_of
from mvpose.evaluation.bottom_up import bottom_up_answers
from mvpose.evaluation.image_people import image_figures
from mvpose.evaluation.lifted import lifted_answers
from mvpose.evaluation.network import NetworkConfig, network_answers
from mvpose.evaluation.run_poses import run_answers
from mvpose.evaluation.scoring import CommonJoints
from mvpose.evaluation.several_people import people_figures
from mvpose.evaluation.summary import Subject, figures
from mvpose.metrics.intervals import Estimate
from mvpose.models.network_settings import FieldsMethod, LiftingMethod
from mvpose.models.saved import SavedModel, load_model, require_model
from mvpose.models.shipped import model_folder
from mvpose.run.run_folder import RunFolder
from mvpose.storage.locations import exists, join, name, reading
from mvpose.tracking.registry import REGISTRY, download, resolve
from mvpose.tracking.tracking_config import TrackingConfig

_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class TruthTable:
    """A table of samples, the selection that counts, and how it is scored."""

    uri: str
    protocol: Protocol | None = None
    """None for every sample."""
    views: tuple[int, ...] = ()
    scoring: Scoring = field(default_factory=Scoring)

    def samples(self) -> Iterator[Sample]:
        """The samples that count; ConfigError if there are none."""
        return read_samples(self.uri) if self.protocol is None else read_protocol(self.uri, self.protocol)

    def origins(self) -> list[Origins]:
        """The recordings and people of these samples; ConfigError if there are none. No image is read."""
        keys = protocol_keys(self.uri, self.protocol)
        return origins_of(keys.assign(pose=pose_digests(RowReader(self.uri).joints(keys.index.to_numpy()))))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of an evaluation."""

    rows: pd.DataFrame
    estimates: dict[str, Estimate]
    subject: Subject
    predicted: Float[np.ndarray, "n J 3"]
    """Prediction of each row, in the order of the truth's joints."""
    notes: tuple[str, ...] = ()
    """Parts of the truth that were not evaluated."""


def evaluate(
    model: SavedModel | RunFolder,
    tables: Sequence[TruthTable],
    config: NetworkConfig,
    centroids: Float[np.ndarray, "k J 3"] | None = None,
    metrics: Sequence[Metric] = (),
) -> Evaluation:
    """Evaluate a network at each number of views of each table, a lifter by one camera, a bottom-up
    network by all cameras, or a run at the views it used.

    ConfigError if there is no prediction at all, or the tables have different skeletons.
    """
    parts: list[tuple[Answers, Scoring]] = []
    by_table: list[list[Answers]] = []
    for table in tables:
        if isinstance(model, RunFolder):
            answers = [run_answers(model, table.samples(), table.scoring.joints)]
        elif isinstance(model.config, LiftingMethod):
            answers = [lifted_answers(model, table.samples(), config.subset_seed)]
        elif isinstance(model.config, FieldsMethod):
            answers = [bottom_up_answers(model, table.samples(), table.scoring.joints)]
        else:
            answers = network_answers(model, table.samples(), table.views, config)
        scoring = replace(table.scoring, dataset=RowReader(table.uri).dataset)
        parts += [(a, scoring) for a in answers]
        by_table.append(answers)
    if not parts:
        raise ConfigError(f"no sample has as many cameras as requested in {', '.join(table.uri for table in tables)}.")
    frames = [rows_of(answers, scoring, centroids, metrics) for answers, scoring in parts]
    skeletons = {answers.samples[0].skeleton for answers, _ in parts}
    if len(skeletons) > 1:
        raise ConfigError(
            f"tables of different skeletons ({', '.join(s.name for s in skeletons)}): evaluate each alone."
        )
    (skeleton,) = skeletons
    rows = pd.concat(frames, ignore_index=True)
    # The promotion gate must not take drawn joints for images.
    drawn = not isinstance(model, RunFolder) and isinstance(model.config, LiftingMethod)
    subject = Subject(
        data_sha256=data_sha256([table.uri for table in tables]),
        model_sha256=model.settings().plan_digest if isinstance(model, RunFolder) else model.sha256,
        protocol=" + ".join(map(_protocol_name, tables)) + (", drawn 2D joints of one camera" if drawn else ""),
        skeleton=skeleton,
    )
    predicted = [
        CommonJoints.between(a.skeleton, skeleton, j.joints, j.root).selected(a.joints).astype(np.float32)
        for a, j in parts
    ]
    notes = tuple(note for answers, _ in parts for note in answers.notes)
    estimates = figures(rows, skeleton)
    for table, own in zip(tables, by_table, strict=True):
        everyone = [people for answers in own for people in answers.people]
        of_people = people_figures(everyone, all_people=table.protocol is None or table.protocol.people is None)
        of_people |= image_figures([image for answers in own for image in answers.images])
        suffix = f"/benchmark={table.scoring.benchmark}" if len(tables) > 1 else ""
        estimates |= {f"{name}{suffix}": estimate for name, estimate in of_people.items()}
    return Evaluation(rows, estimates, subject, np.concatenate(predicted), notes)


def open_model(uri: str, device: str, tracking: TrackingConfig) -> SavedModel | RunFolder:
    """Open the output of `mvpose reconstruct`, a saved or shipped network, or a registered version.

    ConfigError or WeightsError if it is none of them, or the version's weights are not the registered ones.
    """
    if uri.startswith(REGISTRY):
        with tempfile.TemporaryDirectory() as scratch:
            return load_model(download(tracking, resolve(tracking, uri), scratch), device)
    if exists(join(uri, "run.json")):
        return RunFolder(uri)
    require_model(model_folder(uri))
    return load_model(model_folder(uri), device)


def data_sha256(uris: Sequence[str]) -> str:
    """Digest of all files of the tables by name and content, independent of their folder."""
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
    every = table.protocol.source if table.protocol else "every sample"
    return f"{table.scoring.benchmark or every}{views}"
