"""`mvpose evaluate`: evaluate networks and runs against ground truth, and compare them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from mvpose.commands.network_flags import Evaluate
from mvpose.config import import_named
from mvpose.datasets.crops import CropConfig
from mvpose.datasets.files import DatasetError
from mvpose.datasets.origins import TRAINED_ON, VALIDATED_ON, origins_in, shared_origins
from mvpose.datasets.protocols import of_split, protocol_named
from mvpose.datasets.sample import TEST
from mvpose.errors import ConfigError, VideoError
from mvpose.evaluation.answers import Scoring
from mvpose.evaluation.comparison import markdown, one_view_table, several_people_table, write_comparison
from mvpose.evaluation.evaluation_page import evaluation_page
from mvpose.evaluation.named_benchmarks import benchmark_named
from mvpose.evaluation.subject_errors import Evaluation, TruthTable, evaluate, open_model
from mvpose.evaluation.summary import SUMMARY, at_max_views, by_views, left_out, write_evaluation
from mvpose.evaluation.worst import worst_samples
from mvpose.metrics.pose_structure import load_clusters
from mvpose.models.network_settings import Solver
from mvpose.models.saved import SavedModel
from mvpose.pipeline.dataset_shards import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.run.run_folder import RunFolder
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import exists, join, read_bytes
from mvpose.storage.output_folder import claim_output
from mvpose.tracking import TrackingConfig
from mvpose.tracking.registry import REGISTRY, resolve

PAGE = "evaluation.html"


def run(command: Evaluate) -> int:
    """Write rows, figures and a page for each model, compare several models, and print the main figures."""
    if not command.models:
        raise ConfigError("no model or run given: mvpose evaluate MODEL --data TABLE")
    tables = _tables(command)
    centroids = _centroids(command.centroids)
    metrics = [import_named(reference, "metric") for reference in command.metrics]
    models = tuple(_resolved(uri, command.tracking) for uri in command.models)
    solvers: tuple[Solver | None, ...] = command.solver or (None,)
    several = len(models) * len(solvers) > 1
    evaluations: dict[str, Evaluation] = {}
    for (uri, own_label), solver in product(zip(models, _labels(models), strict=True), solvers):
        model = open_model(uri, command.network.device, command.tracking)
        label = own_label if solver is None else f"{own_label}-{solver}"
        notes = () if isinstance(model, RunFolder) else _unseen(label, model.lineage, tables)
        found = evaluate(_solved_by(model, solver), tables, command.network, centroids, metrics)
        if not isinstance(model, RunFolder) and solver not in (None, model.config.solver):
            # The promotion gate must not take these figures for those of the model as it is served.
            found = replace(found, subject=replace(found.subject, protocol=f"{found.subject.protocol}, {solver}"))
        folder = _folder(command.output, uri, label, several=several)
        claim_output(folder, "mvpose evaluate", "made_by.json", SUMMARY)
        write_evaluation(folder, found.rows, found.estimates, found.subject)
        write_whole(join(folder, PAGE), _page(label, found, tables, command.worst).encode())
        evaluations[label] = found
        main = found.rows[at_max_views(found.rows)]
        print(f"{label}: {len(main)} samples of {main.capture.nunique()} sequences, {join(folder, PAGE)}")
        for note in (*notes, *found.notes, *left_out(found.rows)):
            print(f"note: {note}")
    errors = {label: by_views(e.rows) for label, e in evaluations.items()}
    print(markdown(errors, {label: by_views(e.rows, "found") for label, e in evaluations.items()}), end="")
    print(one_view_table(evaluations) + several_people_table(evaluations), end="")
    if several:
        for uri in write_comparison(command.output or "evaluation", evaluations).values():
            print(uri)
    return 0


def _solved_by(model: SavedModel | RunFolder, solver: Solver | None) -> SavedModel | RunFolder:
    """The model with a requested 3D step; ConfigError for a run, or a network that does not support it."""
    if solver is None:
        return model
    if isinstance(model, RunFolder):
        raise ConfigError(f"--solver is for networks: {model.uri} is a run and has its 3D joints.")
    return model.solved_by(solver)


def _resolved(uri: str, tracking: TrackingConfig) -> str:
    """Resolve a registry alias to its current version; return anything else unchanged."""
    if not uri.startswith(REGISTRY):
        return uri
    version = resolve(tracking, uri).uri
    if version != uri:
        print(f"{uri} is {version}")
    return version


def _unseen(label: str, lineage: Mapping[str, Any], tables: Sequence[TruthTable]) -> tuple[str, ...]:
    """Notes on what is known of a model's training; ConfigError if it was trained on what the tables show."""
    judged = [origins for table in tables for origins in table.origins()]
    trained, validated = (origins_in(lineage, key) for key in (TRAINED_ON, VALIDATED_ON))
    if trained is None:
        return (f"the lineage of {label} does not name what it was trained on: it may have seen these samples.",)
    if common := shared_origins(trained, judged):
        where = ", ".join(table.uri for table in tables)
        raise ConfigError(
            f"{label} was trained on {common}: evaluate it on a table or split that it has not seen, not {where}."
        )
    common = shared_origins(validated or [], judged)
    return (f"the best step of the training of {label} was chosen by {common}.",) if common else ()


def _folder(output: str | None, uri: str, label: str, *, several: bool) -> str:
    """Output folder of one model's results."""
    if several or (output is None and uri.startswith(REGISTRY)):
        return join(output or "evaluation", label)
    return output or join(uri, "evaluation")


def _tables(command: Evaluate) -> list[TruthTable]:
    """Tables to evaluate on; ConfigError if flags contradict each other or a table is missing."""
    if command.split is not None and (command.benchmark or command.protocol):
        raise ConfigError("--split is part of a benchmark or protocol: drop it, or drop --benchmark and --protocol.")
    if not command.benchmark:
        if not command.data:
            raise ConfigError("no ground truth given: pass --data TABLE or --benchmark NAME.")
        protocol = protocol_named(command.protocol) if command.protocol else of_split(command.split or TEST)
        names = command.data if len(command.data) > 1 else (command.protocol or "",)
        return [
            TruthTable(
                uri=uri,
                protocol=protocol,
                views=command.views,
                scoring=Scoring(benchmark=label, unseen=command.unseen, joints=protocol.joints, root=protocol.root),
            )
            for uri, label in zip(command.data, names, strict=True)
        ]
    if command.protocol or command.unseen:
        raise ConfigError("--protocol and --unseen are part of a benchmark: drop them, or drop --benchmark.")
    if command.data and len(command.data) != len(command.benchmark):
        raise ConfigError(f"{len(command.benchmark)} benchmarks need as many tables, not {len(command.data)}.")
    uris = command.data or [_own_table(label) for label in command.benchmark]
    return [_benchmark_table(label, uri, command.views) for label, uri in zip(command.benchmark, uris, strict=True)]


def _own_table(label: str) -> str:
    """benchmarks/NAME; missing shards of a rendered benchmark are rendered now, in this process."""
    benchmark, uri = benchmark_named(label), join("benchmarks", label)
    if benchmark.rendered is not None:
        print(f"{uri}: rendering missing shards. To use all cores, run: {benchmark.command(uri)}")
        for receipt in convert(benchmark.rendered, CropConfig(), uri, EngineConfig(local=True)):
            if receipt.problem:
                raise ConfigError(f"{uri}: {receipt.shard} could not be rendered: {receipt.problem}")
    return uri


def _benchmark_table(label: str, uri: str, views: tuple[int, ...]) -> TruthTable:
    benchmark = benchmark_named(label)
    if not exists(uri):
        raise ConfigError(f"{uri} does not exist: create it with `{benchmark.command(uri)}`, or pass --data TABLE.")
    protocol = benchmark.protocol
    scoring = Scoring(benchmark=label, unseen=benchmark.unseen, joints=protocol.joints, root=protocol.root)
    return TruthTable(uri=uri, protocol=protocol, views=views or benchmark.views, scoring=scoring)


def _labels(uris: tuple[str, ...]) -> list[str]:
    """Short distinct labels: `a` and `b` for `runs/a/model` and `runs/b/model`; name and number for a version."""
    paths = [_parts(uri) for uri in uris]
    while len(paths) > 1 and len({path[-1] for path in paths}) == 1 and min(map(len, paths)) > 1:
        paths = [path[:-1] for path in paths]
    return ["-".join(_own_end(path, paths)) for path in paths]


def _parts(uri: str) -> list[str]:
    return [uri.removeprefix(REGISTRY).replace("/", "-")] if uri.startswith(REGISTRY) else uri.strip("/").split("/")


def _own_end(path: list[str], paths: list[list[str]]) -> list[str]:
    """The shortest suffix of a path that no other path has."""
    ends = (path[-n:] for n in range(1, len(path) + 1))
    return next((end for end in ends if sum(other[-len(end) :] == end for other in paths) == 1), path)


def _page(label: str, found: Evaluation, tables: list[TruthTable], count: int) -> str:
    try:
        return evaluation_page(label, found, worst_samples(found, tables, count))
    except (VideoError, DatasetError, OSError) as error:
        return evaluation_page(label, found, [], f"Their images cannot be read: {error}")


def _centroids(uri: str | None) -> np.ndarray | None:
    if uri is None:
        return None
    if uri.endswith(".safetensors"):
        clusters = load_clusters(uri)
        print(f"{clusters.name} with clusters {clusters.digest}")
        return clusters.centroids.double().numpy()
    try:
        found = np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False)
    except ValueError as error:
        raise ConfigError(f"{uri} is not a numeric .npy file: {error}") from error
    if found.ndim != 3 or found.shape[-1] != 3:
        raise ConfigError(f"{uri} has shape {found.shape}; cluster centres must be (k, J, 3).")
    return found.astype(np.float64)
