"""The card of a registered version: what it is, what it was trained on, its figures, limits and licence."""

from __future__ import annotations

from typing import Any

from mvpose.datasets.origins import TRAINED_ON, VALIDATED_ON, origins_in
from mvpose.models.detection.cards import Licence, card_names, file_sha256, read_card
from mvpose.models.network_settings import LiftingMethod
from mvpose.models.saved import WEIGHTS, SavedModel
from mvpose.models.shipped import model_folder, read_shipped, shipped_names
from mvpose.skeleton import SKELETONS
from mvpose.storage.locations import join
from mvpose.tracking.logged_model import registered_detector

FIGURES = {"mpjpe_m": "MPJPE", "pa_mpjpe_m": "after Procrustes alignment", "mpjpe_relative_m": "relative to the root"}


def model_card(name: str, model: SavedModel, summary: dict[str, Any] | None) -> str:
    """Markdown of a version of `name`; `summary` is that of its evaluation (`summary.json`), if it has one."""
    rule = model.rule
    width, height = rule.crop.size
    detector = registered_detector(model.config)
    cards = (detector.person_card, detector.joint_card)
    crops = (
        f"Or, faster, crops of one person: {width} x {height} pixels, {rule.crop.margin:g} times as large as the box "
        "about the joints, with lens distortion removed, and their cameras."
    )
    alone = "Depth and size are guesses: one camera shows neither."
    sections = {
        f"{name}: {model.config.method}": [
            f"3D joints ({len(SKELETONS[rule.skeleton].joints)}, {rule.skeleton}) of one person from "
            f"{rule.accepted_views} of calibrated cameras; weights {model.sha256[:16]}."
        ],
        "Trained on": _training(model.lineage),
        "Figures": _figures(summary),
        "Input": [
            f"Whole images of all views with K, distortion and camera_from_world: {' and '.join(cards)}, which this "
            "version brings, find the people, as in `mvpose reconstruct`.",
            *([] if isinstance(model.config, LiftingMethod) else [crops]),
        ],
        "Limits": [
            "Each row is one moment: people are not tracked over time, and joints are not filtered.",
            "Figures hold for people, cameras and images like those of the evaluation, and for crops about the true "
            "joints.",
            *([alone] if rule.one_view else []),
        ],
        "Licence": _licence(model) + [line for card in cards for line in _stated(card, read_card(card).licence)],
    }
    blocks = (f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines) for title, lines in sections.items())
    return "\n".join(blocks)


def _training(lineage: dict[str, Any]) -> list[str]:
    lines = []
    if "data" in lineage:
        lines.append(f"Table {lineage['data']}, digest {str(lineage.get('data_digest'))[:16]}")
    for key, role in ((TRAINED_ON, "Trained on"), (VALIDATED_ON, "Best step chosen by")):
        for each in origins_in(lineage, key) or ():
            people = f" and {len(each.people)} people" if each.people else ""
            lines.append(f"{role} {len(each.recordings)} recordings{people} of {each.dataset}")
    if "commit" in lineage:
        lines.append(f"mvpose {lineage.get('version')}, commit {lineage['commit']}, step {lineage.get('step')}")
    return lines or ["The lineage does not say."]


def _figures(summary: dict[str, Any] | None) -> list[str]:
    if summary is None:
        return ["Registered without an evaluation."]
    lines = [f"{summary['protocol']}, data {summary['data_sha256'][:16]}"]
    for key, label in FIGURES.items():
        if key in summary["metrics"]:
            low, high = summary["intervals"].get(key, (None, None))
            interval = f" (95 % interval {1000 * low:.1f} to {1000 * high:.1f})" if low is not None else ""
            lines.append(f"{label} {1000 * summary['metrics'][key]:.1f} mm{interval}")
    return lines


def _licence(model: SavedModel) -> list[str]:
    shipped = [n for n in shipped_names() if file_sha256(join(model_folder(n), WEIGHTS)) == model.sha256]
    if shipped:
        return _stated("this network", read_shipped(shipped[0]).licence)
    backbone = model.config.backbone.weights
    if backbone in card_names():
        return [*_stated(f"its backbone {backbone}", read_card(backbone).licence), "Of this network: not stated."]
    return ["Not stated: that of the training data and of the weights that it started from applies."]


def _stated(what: str, licence: Licence) -> list[str]:
    return [f"Of {what}: code {licence.code}; weights {licence.weights}; training data: {licence.training_data}"]
