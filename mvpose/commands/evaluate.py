"""`mvpose evaluate`: networks and runs against ground truth, and beside each other."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import tyro

from mvpose.archive.commits import write_whole
from mvpose.archive.locations import exists, join, read_bytes
from mvpose.archive.output_folder import claim_output
from mvpose.datasets.crops import CropConfig
from mvpose.datasets.files import DatasetError
from mvpose.datasets.protocols import protocol_named
from mvpose.errors import ConfigError, VideoError
from mvpose.evaluation.answers import Judgement
from mvpose.evaluation.benchmarks import benchmark_named
from mvpose.evaluation.comparison import markdown, write_comparison
from mvpose.evaluation.evaluate import Evaluation, TruthTable, evaluate, open_model
from mvpose.evaluation.network import NetworkConfig
from mvpose.evaluation.page import evaluation_page
from mvpose.evaluation.summary import SUMMARY, by_views, write_evaluation
from mvpose.evaluation.worst import worst_samples
from mvpose.pipeline.datasets import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.pose_structure import load_clusters
from mvpose.tracking import TrackingConfig
from mvpose.tracking.registry import REGISTRY, resolve

PAGE = "evaluation.html"


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge models or runs on tables of truth: every metric, with intervals, as tables and a page."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of trained models, outputs of `mvpose reconstruct`, or versions in the registry (models:/NAME@ALIAS,
    models:/NAME/3). Several are compared."""
    data: tuple[str, ...] = ()
    """Tables of samples, one for each benchmark named; without it benchmarks/NAME, rendered if need be."""
    benchmark: tuple[str, ...] = ()
    """Benchmarks by name."""
    protocol: str | None = None
    """Without a benchmark: only what counts under this protocol of a dataset."""
    views: tuple[int, ...] = ()
    """Numbers of views; without them those of the benchmark, or all cameras and each of 4, 3, 2 below that."""
    unseen: bool = False
    """Without a benchmark: training has seen none of the cameras."""
    output: str | None = None
    """Where the results go; without it the folder `evaluation` of the model, or of this place for several; a version
    in the registry has one of its own there."""
    worst: int = 8
    """Samples with the largest error on the page."""
    centroids: str | None = None
    """Cluster centres for PSS: what `mvpose dataset clusters` wrote, or .npy (k, J, 3) in the truth's order."""
    network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the registry is."""


def run(command: Evaluate) -> int:
    """Write rows, figures and a page for each model, and a comparison of several; print what matters."""
    if not command.models:
        raise ConfigError("say which model or run: mvpose evaluate MODEL --data TABLE")
    tables = _tables(command)
    centroids = _centroids(command.centroids)
    models = tuple(_resolved(uri, command.tracking) for uri in command.models)
    several = len(models) > 1
    evaluations: dict[str, Evaluation] = {}
    for uri, label in zip(models, _labels(models), strict=True):
        found = evaluate(open_model(uri, command.network.device, command.tracking), tables, command.network, centroids)
        folder = _folder(command.output, uri, label, several=several)
        claim_output(folder, "mvpose evaluate", "made_by.json", SUMMARY)
        write_evaluation(folder, found.rows, found.estimates, found.subject)
        write_whole(join(folder, PAGE), _page(label, found, tables, command.worst).encode())
        evaluations[label] = found
        print(f"{label}: {join(folder, PAGE)}")
        for note in found.notes:
            print(f"note: {note}")
    errors = {label: by_views(e.rows) for label, e in evaluations.items()}
    print(markdown(errors, {label: by_views(e.rows, "found") for label, e in evaluations.items()}), end="")
    if several:
        for uri in write_comparison(command.output or "evaluation", evaluations).values():
            print(uri)
    return 0


def _resolved(uri: str, tracking: TrackingConfig) -> str:
    """An alias of the registry as the version that it means now; anything else as it is."""
    if not uri.startswith(REGISTRY):
        return uri
    version = resolve(tracking, uri).uri
    if version != uri:
        print(f"{uri} is {version}")
    return version


def _folder(output: str | None, uri: str, label: str, *, several: bool) -> str:
    """Where the results of one model go."""
    if several or (output is None and uri.startswith(REGISTRY)):
        return join(output or "evaluation", label)
    return output or join(uri, "evaluation")


def _tables(command: Evaluate) -> list[TruthTable]:
    """What to judge on; ConfigError where flags contradict each other or a table is missing."""
    if not command.benchmark:
        if not command.data:
            raise ConfigError("say on what: --data TABLE, or --benchmark NAME.")
        protocol = protocol_named(command.protocol) if command.protocol else None
        names = command.data if len(command.data) > 1 else (command.protocol or "",)
        joints, root = (protocol.joints, protocol.root) if protocol else (None, "hip")
        return [
            TruthTable(
                uri=uri,
                protocol=protocol,
                views=command.views,
                judgement=Judgement(benchmark=label, unseen=command.unseen, joints=joints, root=root),
            )
            for uri, label in zip(command.data, names, strict=True)
        ]
    if command.protocol or command.unseen:
        raise ConfigError("--protocol and --unseen are part of a benchmark: name them, or the benchmark.")
    if command.data and len(command.data) != len(command.benchmark):
        raise ConfigError(f"{len(command.benchmark)} benchmarks need as many tables, not {len(command.data)}.")
    uris = command.data or [_own_table(label) for label in command.benchmark]
    return [_benchmark_table(label, uri, command.views) for label, uri in zip(command.benchmark, uris, strict=True)]


def _own_table(label: str) -> str:
    """benchmarks/NAME; what is missing of a rendered one is rendered now, in this process."""
    benchmark, uri = benchmark_named(label), join("benchmarks", label)
    if benchmark.rendered is not None:
        print(f"{uri}: rendering what is missing; faster, by all cores: {benchmark.command(uri)}")
        for receipt in convert(benchmark.rendered, CropConfig(), uri, EngineConfig(local=True)):
            if receipt.problem:
                raise ConfigError(f"{uri}: {receipt.shard} could not be made: {receipt.problem}")
    return uri


def _benchmark_table(label: str, uri: str, views: tuple[int, ...]) -> TruthTable:
    benchmark = benchmark_named(label)
    if not exists(uri):
        raise ConfigError(f"there is no table {uri}: make it with `{benchmark.command(uri)}`, or name it by --data.")
    protocol = benchmark.protocol
    judgement = Judgement(benchmark=label, unseen=benchmark.unseen, joints=protocol.joints, root=protocol.root)
    return TruthTable(uri=uri, protocol=protocol, views=views or benchmark.views, judgement=judgement)


def _labels(uris: tuple[str, ...]) -> list[str]:
    """What tells the locations apart: of `runs/a/model` and `runs/b/model` `a` and `b`; a version's name and number."""
    paths = [_parts(uri) for uri in uris]
    while len(paths) > 1 and len({path[-1] for path in paths}) == 1 and min(map(len, paths)) > 1:
        paths = [path[:-1] for path in paths]
    return ["-".join(_own_end(path, paths)) for path in paths]


def _parts(uri: str) -> list[str]:
    return [uri.removeprefix(REGISTRY).replace("/", "-")] if uri.startswith(REGISTRY) else uri.strip("/").split("/")


def _own_end(path: list[str], paths: list[list[str]]) -> list[str]:
    """The shortest end of a path that no other has."""
    ends = (path[-n:] for n in range(1, len(path) + 1))
    return next((end for end in ends if sum(other[-len(end) :] == end for other in paths) == 1), path)


def _page(label: str, found: Evaluation, tables: list[TruthTable], count: int) -> str:
    try:
        return evaluation_page(label, found, worst_samples(found, tables, count))
    except (VideoError, DatasetError, OSError) as error:
        return evaluation_page(label, found, [], f"Their pictures cannot be read again: {error}")


def _centroids(uri: str | None) -> np.ndarray | None:
    if uri is None:
        return None
    if uri.endswith(".safetensors"):
        clusters = load_clusters(uri)
        print(f"{clusters.name} by the clusters {clusters.digest}")
        return clusters.centroids.double().numpy()
    try:
        found = np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False)
    except ValueError as error:
        raise ConfigError(f"{uri} is no .npy file of numbers: {error}") from error
    if found.ndim != 3 or found.shape[-1] != 3:
        raise ConfigError(f"{uri} has shape {found.shape}; cluster centres are (k, J, 3).")
    return found.astype(np.float64)
