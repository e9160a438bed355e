"""Every method of the five documents on one rendered benchmark: train the small recipes, evaluate, write a table.

    python jobs/all_methods.py --output methods

The table, `methods.md`, grows by a row with each method. Rerun to resume. Networks of a few minutes are under-trained:
the table ranks what a short training gives. `--set` flags are passed on to every training, as in
`--set optimisation.epochs=200`.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn

from mvpose.cli import run
from mvpose.models.network_settings import LiftingMethod
from mvpose.models.saved import SavedModel, load_model

CONFIGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs")
ROUNDS = 5


@dataclass(frozen=True)
class Entry:
    """One method of the table."""

    name: str
    recipe: str
    document: str
    data: str = "people"
    initial: str = ""
    """Another entry, from whose network it starts."""


ENTRIES = (
    Entry("baseline", "train-small-baseline", "canonical fusion"),
    Entry("fusion", "train-small-fusion", "canonical fusion"),
    Entry("canonical-fusion", "train-small-canonical-fusion", "canonical fusion"),
    Entry("algebraic", "train-small-algebraic", "learnable triangulation"),
    Entry("volumetric", "train-small-volumetric", "learnable triangulation"),
    Entry("cross-view-fusion", "train-small-cross-view-fusion", "cross-view fusion"),
    Entry("integral", "train-small-integral", "lecture"),
    Entry("regression", "train-small-regression", "lecture"),
    Entry("two-and-half-d", "train-small-two-and-half-d", "lecture"),
    Entry("volume", "train-small-volume", "lecture"),
    Entry("ray-volume", "train-small-ray-volume", "lecture"),
    Entry("epipolar-pose", "train-small-epipolar-pose", "EpipolarPose", data="labels"),
    Entry("refinement-unit", "train-small-refinement-unit", "EpipolarPose", initial="epipolar-pose"),
    Entry("consistency", "train-small-consistency", "lecture"),
    Entry("lifting-mlp", "train-small-lifting-mlp", "lecture"),
    Entry("lifting-transformer", "train-small-lifting-transformer", "lecture"),
)


def main() -> int:
    """Exit code of the first command that fails, else 0."""
    options = _options()
    folder = options.output
    people, labels, clusters = (os.path.join(folder, name) for name in ("people", "labels", "clusters.safetensors"))
    sizes = ["--train", str(options.train), "--validation", str(options.validation), "--test", str(options.test)]
    entries = [each for each in ENTRIES if not options.only or each.name in options.only]
    steps = [["dataset", "render", "--rig", "ring4", *sizes, "--images.side", "192", "--output", people, "--local"]]
    if any(each.data == "labels" for each in entries):
        steps.append(["dataset", "label", people, "--extrinsics", "known", "--output", labels, "--local"])
    if not os.path.exists(clusters):
        steps.append(["dataset", "clusters", people, "--output", clusters])
    for step in steps:
        if code := _run(step):
            return code
    rows: list[list[str]] = []
    for each in entries:
        recipe = ["--config", os.path.join(CONFIGS, f"{each.recipe}.toml"), "--data", os.path.join(folder, each.data)]
        start = ["--initial", _model(folder, each.initial)] if each.initial else []
        passed = [word for flag in options.set for word in (f"--{flag.partition('=')[0]}", flag.partition("=")[2])]
        # One evaluation each, because their numbers of views differ.
        found = ["--centroids", clusters, "--output", os.path.join(folder, "evaluation", each.name)]
        code = _run(["train", *recipe, "--output", os.path.join(folder, each.name), *start, *passed, "--local"])
        if code := code or _run(["evaluate", _model(folder, each.name), "--data", people, *found]):
            return code
        rows.append(_row(folder, each))
        with open(os.path.join(folder, "methods.md"), "w") as file:
            file.write(_table(rows))
    print(_table(rows), end="")
    return 0


def _run(command: list[str]) -> int:
    print("mvpose", *command, flush=True)
    return run(command)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of samples, trainings, evaluations and the table")
    parser.add_argument("--train", type=int, default=2000, help="rendered training samples")
    parser.add_argument("--validation", type=int, default=50)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=[], choices=[each.name for each in ENTRIES])
    parser.add_argument("--set", nargs="*", default=[], help="settings of every training, as KEY=VALUE")
    return parser.parse_args()


def _model(folder: str, name: str) -> str:
    return os.path.join(folder, name, "model")


def _table(rows: list[list[str]]) -> str:
    heads = ["method", "document", "views", "MPJPE, mm", "relative to the root", "aligned (PA)", "PSS@50", "parameters",
             "ms a sample, one core", "steps"]  # fmt: skip
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(folder: str, entry: Entry) -> list[str]:
    with open(os.path.join(folder, "evaluation", entry.name, "summary.json")) as file:
        found = json.load(file)
    model = load_model(_model(folder, entry.name))

    def figure(name: str, scale: float) -> str:
        if name not in found["metrics"]:
            return "-"
        low, high = (scale * end for end in found["intervals"].get(name, (float("nan"),) * 2))
        part = "" if (count := found["counts"][name]) == found["samples"] else f" [{count} of {found['samples']}]"
        return f"{scale * found['metrics'][name]:.1f} ({low:.1f} to {high:.1f}){part}"

    views = model.rule.max_views or 4
    return [
        entry.name, entry.document, str(views), figure("mpjpe_m", 1000), figure("mpjpe_relative_m", 1000),
        figure("pa_mpjpe_m", 1000), figure("pss", 100), f"{_parameters(model.network) / 1e6:.2f} M",
        _milliseconds(model, views), str(model.lineage.get("step", "-")),
    ]  # fmt: skip


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _milliseconds(model: SavedModel, views: int) -> str:
    """The median of a few calls with one sample on one core; a lifter's cost is not that of a network on images."""
    if isinstance(model.config, LiftingMethod):
        return "-"
    width, height = model.rule.crop.size
    crops = torch.rand(1, views, 3, height, width)
    cameras = torch.eye(3, 4).expand(1, views, 3, 4).clone()
    cameras[..., 0, 3], cameras[..., 2, 3] = torch.arange(views) * 100.0, 4.0
    torch.set_num_threads(1)
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            start = time.perf_counter()
            model.network(crops, cameras)
            times.append(time.perf_counter() - start)
    return f"{1000 * statistics.median(times):.0f}"


if __name__ == "__main__":
    sys.exit(main())
