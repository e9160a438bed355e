"""Predictions of a network for a table of samples, at several numbers of views with one decoding of the images."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Answers, without_images
from mvpose.evaluation.image_people import CropPeople, from_crops, in_stored_image
from mvpose.evaluation.scoring import detection_rate
from mvpose.models.input_rule import InputRule
from mvpose.models.network_settings import CrossViewMethod, NetworkConfig
from mvpose.models.saved import SavedModel
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.training.batches import CropView, sample_arrays, stacked

FEWER = (4, 3, 2)


def chosen_cameras(sample: Sample, count: int, seed: int = 0) -> tuple[str, ...]:
    """Choose `count` of a sample's cameras, in the order of its rig.

    Cameras are ranked by a digest of seed, sample and camera. The choice is therefore independent of the order of the
    table and of the other cameras. Sets for smaller counts are subsets of those for larger counts, so that counts are
    comparable. Over many samples every set is drawn equally often.
    """
    key = f"{seed}/{sample.capture_id}/{sample.frame}/{sample.person}"
    ranked = sorted(sample.rig.names, key=lambda name: hashlib.sha256(f"{key}/{name}".encode()).digest())
    kept = set(ranked[:count])
    return tuple(name for name in sample.rig.names if name in kept)


def view_counts(cameras: int, wanted: Sequence[int]) -> list[int]:
    """Numbers of views to evaluate a rig of so many cameras with, descending.

    Those `wanted` that it has. If none are given, all cameras and each of 4, 3, 2 below that.
    """
    numbers = wanted or [cameras, *FEWER]
    return sorted({n for n in numbers if n <= cameras}, reverse=True)


@dataclass
class _Collected:
    """Accumulated predictions for one number of views."""

    samples: list[Sample] = field(default_factory=list)
    cameras: list[tuple[str, ...]] = field(default_factory=list)
    max_views: list[bool] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)
    jdr: list[np.ndarray] = field(default_factory=list)
    jdr_occluded: list[np.ndarray] = field(default_factory=list)
    flat: list[CropPeople] = field(default_factory=list)
    """Answers in 2D that use every camera of a sample."""


@dataclass(frozen=True)
class _ViewRequest:
    """A sample with some of its cameras."""

    sample: Sample
    arrays: dict[str, np.ndarray]
    cameras: tuple[str, ...]
    max_views: bool


def network_answers(
    model: SavedModel, samples: Iterable[Sample], views: Sequence[int], config: NetworkConfig
) -> list[Answers]:
    """Predictions at each number of views (see `view_counts`), descending; `model.network` must be on `config.device`.

    Crops are cut by the rule that is saved with the weights. A network is evaluated only at numbers of views that it
    accepts; ConfigError if it accepts none of `views`, or no sample has as many. It gets no crop of cameras that do not
    see the person. Samples with too few cameras for a number of views are skipped there.
    """
    views = _accepted(model.rule, views)
    max_cameras = 0
    collected: dict[int, _Collected] = defaultdict(_Collected)
    upcoming = iter(samples)
    while some := list(itertools.islice(upcoming, config.batch_size)):
        by_count: dict[int, list[_ViewRequest]] = defaultdict(list)
        for sample in some:
            max_cameras = max(max_cameras, len(sample.rig))
            _require_own_rig(model, sample)
            for request in _view_requests(sample, model.rule, views, config):
                by_count[len(request.cameras)].append(request)
        for count, requests in by_count.items():
            _predict_batch(model, requests, config, collected[count])
    if max_cameras and not collected:
        model.rule.require_views(max_cameras)
    skeleton = SKELETONS[model.rule.skeleton]
    return [
        Answers(
            samples=c.samples,
            joints=np.concatenate(c.joints),
            skeleton=skeleton,
            cameras=c.cameras,
            max_views=np.array(c.max_views),
            jdr=np.concatenate(c.jdr),
            jdr_occluded=np.concatenate(c.jdr_occluded),
            images=from_crops(c.flat, skeleton),
        )
        for _, c in sorted(collected.items(), reverse=True)
    ]


def _require_own_rig(model: SavedModel, sample: Sample) -> None:
    """ConfigError if cameras would have to be chosen for a layer that belongs to certain cameras."""
    method = model.config
    if isinstance(method, CrossViewMethod) and len(sample.rig) > (method.fixed_views or len(sample.rig)):
        raise ConfigError(
            f"the dense layer belongs to {method.fixed_views} cameras, but {sample.capture_id} has {len(sample.rig)}: "
            "evaluate on a table of the training's own cameras alone."
        )


def _accepted(rule: InputRule, views: Sequence[int]) -> tuple[int, ...]:
    """The numbers in `views` that the network accepts; without any, its only number if it has one."""
    if not views:
        return (rule.min_views,) if rule.min_views == rule.max_views else ()
    accepted = tuple(n for n in views if rule.accepts(n))
    if not accepted:
        rule.require_views(max(views))
    return accepted


def _view_requests(
    sample: Sample, rule: InputRule, views: Sequence[int], config: NetworkConfig
) -> Iterator[_ViewRequest]:
    counts = [n for n in view_counts(len(sample.rig), views) if rule.accepts(n)]
    if not counts:
        return
    crop_view = CropView(skeleton=SKELETONS[rule.skeleton], crop=rule.crop, views=len(sample.rig))
    arrays = sample_arrays(sample, crop_view, np.random.default_rng(0))
    arrays["occluded"] = arrays["inside"] & _hidden(sample, crop_view.skeleton)
    bare = without_images(sample)
    for count in counts:
        yield _ViewRequest(bare, arrays, chosen_cameras(sample, count, config.subset_seed), count == counts[0])


def _hidden(sample: Sample, skeleton: Skeleton) -> Bool[np.ndarray, "V J"]:
    """The joints of a skeleton that are in the stored image of a view and not visible there."""
    source, found = sample.skeleton.remap(skeleton)
    pixels, before = sample.rig.project(torch.from_numpy(np.nan_to_num(sample.xyz).astype(np.float64)))
    in_image = (before & sample.rig.inside(pixels)).numpy()
    return (in_image & ~sample.visible)[:, source] & found


def _predict_batch(model: SavedModel, requests: list[_ViewRequest], config: NetworkConfig, into: _Collected) -> None:
    """Evaluate one batch; all samples have the same number of views."""
    batch = stacked([_of_chosen_cameras(q) for q in requests])
    crops, projections, present = (
        torch.from_numpy(batch[name]).to(config.device) for name in ("crops", "projections", "present")
    )
    with torch.inference_mode():
        answer = model.network(crops, projections, present)
    joints = torch.where(answer.valid[..., None], answer.joints, torch.nan).cpu().numpy().astype(np.float64)
    points: Float[np.ndarray, "B V J 2"] = answer.joints_2d.float().cpu().numpy()
    into.samples += [q.sample for q in requests]
    into.cameras += [q.cameras for q in requests]
    into.max_views += [q.max_views for q in requests]
    into.joints.append(joints)
    score = answer.confidence_2d.float().mean(dim=-1).cpu().double().numpy()
    for i, q in enumerate(requests):
        if len(q.cameras) == len(q.sample.rig):
            flat = in_stored_image(points[i].astype(np.float64), batch["projections"][i], q.sample.rig)
            into.flat.append(CropPeople(q.sample, flat, score[i]))
    for rates, counted in ((into.jdr, "inside"), (into.jdr_occluded, "occluded")):
        rates.append(detection_rate(points, batch["joints_2d"], batch[counted], model.rule.crop.size))


def _of_chosen_cameras(request: _ViewRequest) -> dict[str, np.ndarray]:
    """The arrays of the chosen cameras only."""
    chosen = [request.sample.rig.names.index(name) for name in request.cameras]
    names = ("crops", "projections", "present", "joints_2d", "inside", "occluded")
    return {name: request.arrays[name][chosen] for name in names}
