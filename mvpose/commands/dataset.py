"""`mvpose dataset convert|label|render|motion|stats|show|clusters`: datasets or rendered people as one table."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Annotated

import cv2
import tyro

from mvpose.config import flatten, import_named
from mvpose.datasets import conversion
from mvpose.datasets.crops import CropConfig
from mvpose.datasets.human36m import Human36M
from mvpose.datasets.mpi_inf_3dhp import MpiInf3dhp
from mvpose.datasets.origins import TEACHER
from mvpose.datasets.panoptic import Panoptic
from mvpose.datasets.protocols import of_split, protocol_named, read_protocol
from mvpose.datasets.run_labels import FinishedRun
from mvpose.datasets.sample import TRAIN
from mvpose.datasets.sample_table import read_samples
from mvpose.datasets.shelf_campus import ShelfCampus
from mvpose.datasets.statistics import clusters_of, measured
from mvpose.datasets.total_capture import TotalCapture
from mvpose.errors import ConfigError
from mvpose.metrics.pose_structure import save_clusters
from mvpose.pipeline.dataset_shards import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.rendering.corpus import Rendered
from mvpose.rendering.keypoint_source import MotionCapture
from mvpose.rendering.renderer import renderer
from mvpose.report.sample_sheet import sample_sheet
from mvpose.storage.commits import create_once, write_whole
from mvpose.storage.locations import join
from mvpose.storage.output_folder import require_output
from mvpose.training.self_labels import LabelConfig, SelfLabels

COMPLETE, WITH_PROBLEMS = 0, 3


@dataclass(frozen=True, kw_only=True)
class OwnDataset:
    """Your own dataset, read by a class that implements `mvpose.datasets.conversion.Dataset`."""

    reader: str
    """Class to read it, called with the folder: `package.module:Class`."""
    folder: str
    """Folder or s3:// URI of the dataset."""


Source = (
    Annotated[Human36M, tyro.conf.subcommand("human36m")]
    | Annotated[TotalCapture, tyro.conf.subcommand("total-capture")]
    | Annotated[Panoptic, tyro.conf.subcommand("panoptic")]
    | Annotated[MpiInf3dhp, tyro.conf.subcommand("mpi-inf-3dhp")]
    | Annotated[ShelfCampus, tyro.conf.subcommand("shelf-campus")]
    | Annotated[FinishedRun, tyro.conf.subcommand("run")]
    | Annotated[OwnDataset, tyro.conf.subcommand("own")]
)


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a dataset from its original layout to a table of samples. Rerun to resume."""

    source: Annotated[Source, tyro.conf.arg(name="")]
    output: str
    """Folder or s3:// URI of the table."""
    crops: CropConfig = field(default_factory=CropConfig)
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class Render:
    """Render people for a rig and write a table of samples. Rerun to resume. The same seed gives the same bytes."""

    corpus: Annotated[Rendered, tyro.conf.arg(name="")] = field(default_factory=Rendered)
    output: str
    """Folder or s3:// URI of the table."""
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class Label:
    """Label a table of samples without its 3D truth: 2D joints of a frozen network in all views are triangulated. Rerun
    to resume."""

    table: tyro.conf.Positional[str]
    """Folder or s3:// URI of a table of samples with several views."""
    labels: Annotated[LabelConfig, tyro.conf.arg(name="")] = field(default_factory=LabelConfig)
    output: str
    """Folder or s3:// URI of the labelled table, which holds the images too."""
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class MotionTable:
    """Write motion capture before random cameras as a table of samples without images, to train lifters. Rerun to
    resume."""

    motion: Annotated[MotionCapture, tyro.conf.arg(name="")] = field(default_factory=MotionCapture)
    output: str
    """Folder or s3:// URI of the table."""
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Count and measure the samples of a table."""

    table: tyro.conf.Positional[str]
    """File, folder or s3:// URI of a table of samples."""
    protocol: str | None = None
    """Use only samples of this evaluation protocol."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw evenly spaced samples with their joints into one image."""

    table: tyro.conf.Positional[str]
    """File, folder or s3:// URI of a table of samples."""
    output: str = "samples.png"
    """PNG to write."""
    count: int = 16
    """Number of samples to draw."""
    every: int = 1
    """Draw every n-th sample."""
    protocol: str | None = None
    """Use only samples of this evaluation protocol."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Cluster the poses of a table for the pose structure score. Pass the file to `mvpose evaluate --centroids`."""

    table: tyro.conf.Positional[str]
    """File, folder or s3:// URI of a table of samples."""
    split: str = TRAIN
    """Use only samples of this split: clusters must not know the evaluated poses."""
    output: str = "clusters.safetensors"
    """Local file to write."""
    count: int = 50
    """Number of clusters, as in PSS@count."""
    seed: int = 0
    """Seed of k-means."""


Dataset = (
    Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[MotionTable, tyro.conf.subcommand("motion")]
    | Annotated[Stats, tyro.conf.subcommand("stats")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Clusters, tyro.conf.subcommand("clusters")]
)


def run(command: Convert | Render | Label | MotionTable | Stats | Show | Clusters) -> int:
    """Run the chosen action. Exit code 3 if parts of a dataset could not be read."""
    if isinstance(command, Convert):
        own = command.source
        source = import_named(own.reader, "dataset")(own.folder) if isinstance(own, OwnDataset) else own
        return _converted(source, command.crops, command.output, command.engine)
    if isinstance(command, Render):
        print(f"rendering on {renderer().device}")
        return _converted(command.corpus, CropConfig(), command.output, command.engine)
    if isinstance(command, Label):
        labels = SelfLabels.of(command.table, command.labels)
        code = _converted(labels, CropConfig(), command.output, command.engine)
        create_once(join(command.output, TEACHER), json.dumps(labels.teacher_origins()).encode())
        return code
    if isinstance(command, MotionTable):
        return _converted(command.motion, CropConfig(), command.output, command.engine)
    if isinstance(command, Clusters):
        samples = read_protocol(command.table, of_split(command.split))
        clusters = clusters_of(samples, command.count, seed=command.seed)
        save_clusters(clusters, command.output)
        print(f"{clusters.name} of {clusters.num_poses} poses, digest {clusters.digest}: {command.output}")
        return COMPLETE
    samples = read_protocol(command.table, protocol_named(command.protocol)) if command.protocol else None
    samples = samples or read_samples(command.table)
    if isinstance(command, Stats):
        for name, value in flatten(measured(samples)).items():
            print(f"{name}: {value}")
        return COMPLETE
    if command.count < 1 or command.every < 1:
        raise ConfigError(f"--count {command.count} --every {command.every}: both must be at least 1.")
    chosen = list(itertools.islice(samples, 0, command.count * command.every, command.every))
    sheet = sample_sheet(chosen)
    _, data = cv2.imencode(".png", sheet[..., ::-1])
    write_whole(command.output, data.tobytes())
    print(f"{len(chosen)} samples: {command.output}")
    return COMPLETE


def _converted(source: conversion.Dataset, crops: CropConfig, output: str, engine: EngineConfig) -> int:
    require_output(output, "mvpose dataset", "dataset.json")
    print(", ".join(f"{name} {value}" for name, value in flatten(source).items()))
    rows = kept = 0
    problems = []
    for receipt in convert(source, crops, output, engine):
        if receipt.problem:
            problems.append(receipt)
            print(f"{receipt.shard}: skipped: {receipt.problem}")
        elif receipt.rows < 0:
            kept += 1
        else:
            rows += receipt.rows
            print(f"{receipt.shard}: {receipt.rows} samples")
    there = f", {kept} shards already existed" if kept else ""
    print(f"{rows} samples in {output}{there}" + (f", {len(problems)} shards skipped" if problems else ""))
    return WITH_PROBLEMS if problems else COMPLETE
