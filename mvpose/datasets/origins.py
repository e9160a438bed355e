"""Origins of samples: the recordings and people that they show. A model is judged on none that it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from mvpose.config import structure

if TYPE_CHECKING:
    import pandas as pd

RENDERED_PEOPLE = "rendered"
"""Its captures are single frames that are numbered; what repeats is the motion capture, which `action` names. In other
datasets a capture is a recording, and `action` is a kind of motion that all people perform."""
SHARED_PEOPLE = ("total_capture",)
"""Datasets whose published test split shows people of the training (S1, S2 and S3 of TotalCapture)."""
TRAINED_ON, VALIDATED_ON = "trained_on", "validated_on"
"""Keys of a model's lineage: a list of `Origins` as JSON."""
TEACHER = "teacher.json"
"""Beside the samples that a network has labelled: what that network's lineage says under both keys, if it says so."""
POSES_KEPT = 512
"""Digests of poses in a lineage, the smallest ones. Of 6,500 samples a model has seen, 60 that are judged under other
names share one with it in 99 of 100 cases; of 300,000 samples, 3000."""
_NAMED, _DIGITS = 3, 12


@dataclass(frozen=True, kw_only=True)
class Origins:
    """The recordings and people of samples of one dataset, sorted."""

    dataset: str
    recordings: tuple[str, ...]
    """Captures; of rendered people, motions."""
    people: tuple[str, ...]
    """Subjects, where the dataset names them and its splits do not share them."""
    poses: tuple[str, ...] = ()
    """Digests of the samples' true joints (`pose_digests`): a copy under other names has the same. Of a lineage, the
    `POSES_KEPT` smallest ones; of one by an earlier version, none."""


def pose_digests(xyz: Float[np.ndarray, "n J 3"]) -> list[str]:
    """Twelve hexadecimal digits for the joints (world, metres) of each sample, to a millimetre.

    Empty for a sample of fewer than three known joints, which says little.
    """
    known = np.asarray(np.isfinite(xyz).all(axis=-1))
    rounded = np.where(
        known[..., None], np.round(1000.0 * np.nan_to_num(xyz.astype(np.float64))), np.iinfo(np.int32).min
    ).astype("<i4")
    return [
        hashlib.sha256(pose.tobytes()).hexdigest()[:_DIGITS] if count >= 3 else ""
        for pose, count in zip(rounded, known.sum(axis=1).tolist(), strict=True)
    ]


def recordings_of(keys: pd.DataFrame) -> Shaped[np.ndarray, " n"]:
    """The recording of each row of `dataset`, `capture` and `action`: frames of one are similar."""
    columns = {name: keys[name].to_numpy(str) for name in ("dataset", "capture", "action")}
    return np.where(columns["dataset"] == RENDERED_PEOPLE, columns["action"], columns["capture"])


def origins_of(keys: pd.DataFrame) -> list[Origins]:
    """The origins of rows of `dataset`, `capture`, `subject`, `action` and, if there is one, `pose`, by dataset."""
    columns = {name: keys[name].to_numpy(str) for name in ("dataset", "capture", "subject")}
    recordings, people = recordings_of(keys), np.where(columns["subject"] == columns["capture"], "", columns["subject"])
    poses = keys["pose"].to_numpy(str) if "pose" in keys else np.full(len(keys), "")
    found = []
    for dataset in np.unique(columns["dataset"]).tolist():
        mine = columns["dataset"] == dataset
        named = () if dataset in SHARED_PEOPLE else _sorted(people[mine].tolist())
        found.append(
            Origins(
                dataset=dataset,
                recordings=_sorted(recordings[mine].tolist()),
                people=named,
                poses=_sorted(poses[mine].tolist()),
            )
        )
    return found


def origins_in(lineage: Mapping[str, Any], key: str) -> list[Origins] | None:
    """The origins that a model's lineage names under a key; None if it does not say."""
    if key not in lineage:
        return None
    return [structure(each, Origins, f"lineage.{key}") for each in lineage[key]]


def to_lineage(origins: Iterable[Origins]) -> list[dict[str, Any]]:
    """Origins as JSON values, those of one dataset as one."""
    found: dict[str, Origins] = {}
    for each in origins:
        before = found.get(each.dataset, each)
        found[each.dataset] = Origins(
            dataset=each.dataset,
            recordings=_sorted((*before.recordings, *each.recordings)),
            people=_sorted((*before.people, *each.people)),
            poses=_sorted((*before.poses, *each.poses))[:POSES_KEPT],
        )
    return [{name: list(v) if isinstance(v, tuple) else v for name, v in asdict(o).items()} for o in found.values()]


def shared_origins(seen: Sequence[Origins], judged: Sequence[Origins]) -> str:
    """What two sets of samples have in common, in words ("captures a, b of human36m"); empty if nothing.

    Poses count under any name.
    """
    found = []
    for mine in seen:
        for other in judged:
            if mine.dataset == other.dataset:
                recording = "motions" if mine.dataset == RENDERED_PEOPLE else "captures"
                found += _common(recording, mine.recordings, other.recordings, mine.dataset)
                found += _common("people", mine.people, other.people, mine.dataset)
    poses = {pose for each in seen for pose in each.poses} & {pose for each in judged for pose in each.poses}
    if poses and not found:
        return f"the poses of {len(poses)} or more of these samples, under other names"
    return " and ".join(found)


def _common(what: str, mine: Sequence[str], others: Sequence[str], dataset: str) -> list[str]:
    names = sorted(set(mine) & set(others))
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{what} {', '.join(names[:_NAMED])}{more} of {dataset}"]


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))
