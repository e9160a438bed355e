"""Prometheus metrics of a job on Ray: counted in the driver from receipts, exported by Ray's agent on its node.

No counts are lost when a worker dies. Ray adds the prefix `ray_` to names and the suffix `_total` to counters. A plain
loop exports nothing: its figures are in performance.json and in MLflow.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mvpose.pipeline.open_work import OpenWork
    from mvpose.pipeline.worker import JobStages, Receipt


@dataclass(frozen=True)
class Figure:
    """One metric: its name and description."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    tags: tuple[str, ...] = ("stage",)

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of its series in Prometheus."""
        name = f"ray_{self.name}"
        return {
            "counter": (f"{name}_total",),
            "gauge": (name,),
            "histogram": (f"{name}_bucket", f"{name}_count", f"{name}_sum"),
        }[self.kind]


DONE = Figure("mvpose_clips_done", "counter", "Clips with a result.")
FAILED = Figure("mvpose_clips_failed", "counter", "Clips without a result.", ("stage", "reason"))
RETRIED = Figure("mvpose_clips_retried", "counter", "Attempts after the first, because a worker died on the clip.")
FRAMES = Figure("mvpose_frames", "counter", "Frames of finished clips (one frame is all cameras at one instant).")
STEPS = Figure("mvpose_step_seconds", "counter", "Worker seconds per step.", ("stage", "step"))
"""`detect` is time in the model, `decode_wait` the time that the model waits for frames, `decode` the time of decoder
threads (several run in parallel); other stages have their own steps."""
CLIP_SECONDS = Figure("mvpose_clip_seconds", "histogram", "Seconds that a worker spent on a clip.")
QUEUE = Figure(
    "mvpose_clips_queued", "gauge", "Clips, or captures, of the whole job that the stage has yet to process."
)
"""Of the first stage, for clips, and of the last one, for captures."""
WORKERS = Figure("mvpose_workers", "gauge", "Maximum number of workers of the running stage.")
FIGURES = (DONE, FAILED, RETRIED, FRAMES, STEPS, CLIP_SECONDS, QUEUE, WORKERS)

CLIP_SECONDS_EDGES = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]


def counted(receipts: Iterable[Receipt], stages: JobStages, work: OpenWork, workers: int) -> Generator[Receipt]:
    """Pass the receipts of a job through and count them. Ray must be running."""
    gauges = {figure: _of_ray(figure) for figure in FIGURES}
    specs = (*stages.of_clips, *stages.of_captures)
    queued = {specs[0].kind: work.clips, specs[-1].kind: len(work.clips_left)}
    for spec in specs:
        gauges[WORKERS].set(workers, {"stage": spec.kind})
        gauges[QUEUE].set(queued.get(spec.kind, 0), {"stage": spec.kind})
    try:
        for receipt in receipts:
            here = {"stage": receipt["stage"]}
            if receipt["stage"] in queued:
                queued[receipt["stage"]] -= 1
                gauges[QUEUE].set(queued[receipt["stage"]], here)
            for figure, count, tags in () if receipt["earlier"] else _counts(receipt, here):
                if count > 0:
                    gauges[figure].inc(float(count), tags)
            gauges[CLIP_SECONDS].observe(float(receipt["wall"]), here)
            yield receipt
    finally:
        for spec in specs:
            gauges[QUEUE].set(0, {"stage": spec.kind})
            gauges[WORKERS].set(0, {"stage": spec.kind})


def _counts(receipt: Receipt, here: dict[str, str]) -> Iterator[tuple[Figure, float, dict[str, str]]]:
    yield FRAMES, receipt["frames"], here
    yield RETRIED, receipt["attempts"] - 1, here
    for step, seconds in receipt["seconds"].items():
        yield STEPS, seconds, here | {"step": step}
    reason = receipt["reason"]
    yield (FAILED, 1, here | {"reason": reason}) if reason else (DONE, 1, here)


def _of_ray(figure: Figure) -> Any:
    from ray.util import metrics

    if figure.kind == "histogram":
        return metrics.Histogram(
            figure.name, description=figure.says, boundaries=CLIP_SECONDS_EDGES, tag_keys=figure.tags
        )
    make = metrics.Counter if figure.kind == "counter" else metrics.Gauge
    return make(figure.name, description=figure.says, tag_keys=figure.tags)
