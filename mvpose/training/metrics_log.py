"""Progress of a training: figures in `metrics.jsonl`, log lines, and the time spent waiting for data."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.storage.commits import remove_file, write_whole
from mvpose.storage.locations import exists, is_remote, join, list_folder, read_text

Report = Callable[[int, dict[str, float]], None]
"""Called with a step and its figures."""


SEGMENT_LINES = 64
"""A line of figures is 300 to 500 bytes, so that no write of a segment sends more than 32 KB."""
_SEGMENT = re.compile(r"(?P<life>\d{4})-(?P<number>\d{6})\.jsonl")


class Journal:
    """The figures of a training: one JSON object per line, {"step": 20, "train/loss": 0.1, ...}.

    A figure that is not finite is null. On a disk the lines are in `metrics.jsonl` of the output folder. Object stores
    cannot append, so there they are in segments, `metrics/LIFE-NUMBER.jsonl`: a line is one write of the last segment,
    which is closed at `SEGMENT_LINES`. A rewind starts another life, whose first segment has all lines that it keeps.
    One process writes; a reader reads closed segments once.
    """

    def __init__(self, output: str) -> None:
        self.uri = join(output, "metrics.jsonl")
        self._segments = join(output, "metrics")
        self._mark = join(output, "reported.json")
        self._closed: dict[str, str] = {}
        self._life, self._number, self._open = 0, 0, ""

    def read(self) -> list[dict[str, Any]]:
        """All lines, without an incomplete last one."""
        text = ""
        if is_remote(self.uri):
            text = "".join(map(self._segment, self._latest()))
        if not text and exists(self.uri):  # earlier versions had one file on object stores, too
            text = read_text(self.uri)
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def rewind(self, step: int) -> None:
        """Remove the lines after a step, because these steps will be repeated. A writer does so first."""
        text = "".join(json.dumps(line) + "\n" for line in self.read() if line["step"] <= step)
        if not is_remote(self.uri):
            write_whole(self.uri, text.encode())
            return
        before = self._names()
        self._life, self._number, self._open = max(map(_life, before), default=-1) + 1, 1, ""
        write_whole(join(self._segments, f"{self._life:04d}-000000.jsonl"), text.encode())
        for old in before:
            remove_file(join(self._segments, old))

    def unreported(self) -> list[dict[str, Any]]:
        """The lines after the last one that was marked as reported, by this driver or by one that has died."""
        last = json.loads(read_text(self._mark)) if exists(self._mark) else [0, False]
        return [line for line in self.read() if _key(line) > last]

    def mark_reported(self, line: dict[str, Any]) -> None:
        """Note that all lines up to this one are reported; a step that is repeated is not reported again."""
        write_whole(self._mark, json.dumps(_key(line)).encode())

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Append a line."""
        plain = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        line = json.dumps({"step": step, **plain}) + "\n"
        if is_remote(self.uri):
            self._open += line
            write_whole(join(self._segments, f"{self._life:04d}-{self._number:06d}.jsonl"), self._open.encode())
            if self._open.count("\n") == SEGMENT_LINES:
                self._number, self._open = self._number + 1, ""
            return
        with open(self.uri.removeprefix("file://"), "a", encoding="utf-8") as file:
            file.write(line)

    def _names(self) -> list[str]:
        there = list_folder(self._segments) if exists(self._segments) else []
        return [own for own in (uri.rpartition("/")[2] for uri in there) if _SEGMENT.fullmatch(own)]

    def _latest(self) -> list[str]:
        """Names of the segments of the last life, in order."""
        names = self._names()
        last = max(map(_life, names), default=0)
        return [own for own in names if _life(own) == last]

    def _segment(self, own: str) -> str:
        if own in self._closed:
            return self._closed[own]
        text = read_text(join(self._segments, own))
        if text.count("\n") >= SEGMENT_LINES or own.endswith("-000000.jsonl"):
            self._closed[own] = text
        return text


def _life(name: str) -> int:
    return int(name.partition("-")[0])


def _key(line: dict[str, Any]) -> list[Any]:
    """The place of a line: each step has at most one training line and, after it, one validation line."""
    return [line["step"], validated(line)]


def validated(figures: Collection[str]) -> bool:
    """Whether figures are those of a validation."""
    return bool({"validation/mpjpe_m", "validation/loss"} & set(figures))


def judged_by(figures: Collection[str]) -> str:
    """The figure of a validation by which the best weights are chosen: MPJPE, or the loss where there are no poses."""
    return "validation/mpjpe_m" if "validation/mpjpe_m" in figures else "validation/loss"


@dataclass
class Meter:
    """Sums since the last log line."""

    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds without a batch."""
    samples: int = 0
    steps: int = 0
    sums: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """On the device of the training, in double precision."""

    rates: float = 0.0

    def add(self, samples: int, figures: dict[str, Float[Tensor, ""]], rate: float) -> None:
        """Add a step, without waiting for its figures."""
        self.samples += samples
        self.rates += rate
        self.steps += 1
        for name, value in figures.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()

    def figures(self, steps_left: int) -> dict[str, float]:
        """Means over the steps, and speed. One transfer from the device, which ends the steps first."""
        sums = dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return {f"train/{name}": total / self.steps for name, total in sums.items()} | {
            "train/rate": self.rates / self.steps,
            "train/samples_per_s": self.samples / seconds,
            "train/data_wait_share": self.waited / seconds,
            "train/seconds_left": steps_left * seconds / self.steps,
        }


def progress_line(step: int, total: int, figures: dict[str, float]) -> str:
    """A log line."""
    if validated(figures):
        best = " (best so far)" if figures.get("validation/best") else ""
        if "validation/loss" in figures:
            return f"step {step}/{total}  validation loss {figures['validation/loss']:.5f}{best}"
        return (
            f"step {step}/{total}  validation MPJPE {1000 * figures['validation/mpjpe_m']:.1f} mm{best}, "
            f"{figures['validation/valid_share']:.1%} of joints found"
        )
    minutes, seconds = divmod(int(figures["train/seconds_left"]), 60)
    left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return (
        f"step {step}/{total}  loss {figures['train/loss']:.4f}  {figures['train/samples_per_s']:.1f} samples/s  "
        f"waiting for data {figures['train/data_wait_share']:.1%}  left {left}"
    )
