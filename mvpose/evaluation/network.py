"""A network's answers to a table of samples, by several numbers of views from one decoding of the images."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets.sample import Sample
from mvpose.evaluation.answers import Answers, without_images
from mvpose.evaluation.judging import detection_rate
from mvpose.models.network_settings import FusionMethod, Method, NetworkConfig
from mvpose.models.saved import SavedModel
from mvpose.skeleton import SKELETONS
from mvpose.training.batches import CropView, sample_arrays, stacked

FEWER = (4, 3, 2)


def chosen_cameras(sample: Sample, count: int, seed: int = 0) -> tuple[str, ...]:
    """`count` of a sample's cameras, in the order of its rig.

    Cameras are ranked by a digest of seed, sample and camera: the choice depends on nothing else (not on the order of
    the table, nor on the other cameras), the sets for falling counts are nested, so that counts are compared on like
    terms, and over many samples every set is drawn equally often.
    """
    key = f"{seed}/{sample.capture_id}/{sample.frame}/{sample.person}"
    ranked = sorted(sample.rig.names, key=lambda name: hashlib.sha256(f"{key}/{name}".encode()).digest())
    kept = set(ranked[:count])
    return tuple(name for name in sample.rig.names if name in kept)


def view_counts(cameras: int, wanted: Sequence[int]) -> list[int]:
    """The numbers of views that a rig of so many cameras is judged with, most first.

    Those `wanted` that it has, or, where none are named, all cameras and each of 4, 3, 2 below that.
    """
    numbers = wanted or [cameras, *FEWER]
    return sorted({n for n in numbers if n <= cameras}, reverse=True)


@dataclass
class _Collected:
    """Answers by one number of views, as they come."""

    samples: list[Sample] = field(default_factory=list)
    cameras: list[tuple[str, ...]] = field(default_factory=list)
    max_views: list[bool] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)
    jdr: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class _ViewRequest:
    """A sample by some of its cameras."""

    sample: Sample
    arrays: dict[str, np.ndarray]
    cameras: tuple[str, ...]
    max_views: bool


def network_answers(
    model: SavedModel, samples: Iterable[Sample], views: Sequence[int], config: NetworkConfig
) -> list[Answers]:
    """Answers by each number of views (see `view_counts`), most first; `model.network` must be on `config.device`.

    A network that concatenates is asked for the one number of views that it was built for; of cameras that see nothing
    of the person it gets no crop. Samples with fewer cameras than a number has are not asked there.
    """
    collected: dict[int, _Collected] = defaultdict(_Collected)
    upcoming = iter(samples)
    while some := list(itertools.islice(upcoming, config.batch_size)):
        by_count: dict[int, list[_ViewRequest]] = defaultdict(list)
        for sample in some:
            for question in _questions(sample, model.config, views, config):
                by_count[len(question.cameras)].append(question)
        for count, questions in by_count.items():
            _ask(model, questions, config, collected[count])
    skeleton = SKELETONS[model.config.skeleton]
    return [
        Answers(c.samples, np.concatenate(c.joints), skeleton, c.cameras, np.array(c.max_views), np.concatenate(c.jdr))
        for _, c in sorted(collected.items(), reverse=True)
    ]


def needed_views(config: Method) -> int | None:
    """The one number of views that a concatenating network takes; None for any."""
    return config.fusion.views if isinstance(config, FusionMethod) and config.concatenates else None


def _questions(sample: Sample, method: Method, views: Sequence[int], config: NetworkConfig) -> Iterator[_ViewRequest]:
    needed = needed_views(method)
    counts = view_counts(len(sample.rig), views if needed is None else (needed,))
    counts = [n for n in counts if needed is None or not views or n in views]
    if not counts:
        return
    crop_view = CropView(
        skeleton=SKELETONS[method.skeleton], size=method.size, views=len(sample.rig), margin=config.margin
    )
    arrays = sample_arrays(sample, crop_view, np.random.default_rng(0))
    bare = without_images(sample)
    for count in counts:
        yield _ViewRequest(bare, arrays, chosen_cameras(sample, count, config.subset_seed), count == counts[0])


def _ask(model: SavedModel, questions: list[_ViewRequest], config: NetworkConfig, into: _Collected) -> None:
    """One batch, all by the same number of views."""
    batch = stacked([_seen_by(q) for q in questions])
    crops, projections, present = (
        torch.from_numpy(batch[name]).to(config.device) for name in ("crops", "projections", "present")
    )
    with torch.inference_mode():
        answer = model.network(crops, projections, present)
    joints = torch.where(answer.valid[..., None], answer.joints, torch.nan).cpu().numpy().astype(np.float64)
    points: Float[np.ndarray, "B V J 2"] = answer.joints_2d.float().cpu().numpy()
    into.samples += [q.sample for q in questions]
    into.cameras += [q.cameras for q in questions]
    into.max_views += [q.max_views for q in questions]
    into.joints.append(joints)
    into.jdr.append(detection_rate(points, batch["joints_2d"], batch["inside"], model.config.size))


def _seen_by(question: _ViewRequest) -> dict[str, np.ndarray]:
    """The arrays of the question's cameras alone."""
    chosen = [question.sample.rig.names.index(name) for name in question.cameras]
    return {name: question.arrays[name][chosen] for name in ("crops", "projections", "present", "joints_2d", "inside")}
