"""Promotion and rollback of model aliases: the gate decides, and every decision is kept.

Tags of the model: `mvpose.decision.<alias>.<nanoseconds>`, one per decision (JSON: `DecisionRecord`), never changed.
The latest decision about a version is also its tag `mvpose.decision.<alias>`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from mvpose.config import structure
from mvpose.errors import ConfigError
from mvpose.models.network_settings import ONE_VIEW
from mvpose.models.shipped import FUSION
from mvpose.tracking.chosen_model import choose_model
from mvpose.tracking.delivery import client_of, reached
from mvpose.tracking.gate import (
    Gate,
    PromotionVerdict,
    decide_promotion,
    default_pipeline,
    first_of_one_camera,
    no_rival,
    require_held_out,
)
from mvpose.tracking.registry import (
    DATA_TAG,
    SAMPLES,
    SUMMARY,
    WEIGHTS_TAG,
    RegistryError,
    check_evaluation,
    evaluation_of,
    fetched,
    found_version,
    version_description,
)
from mvpose.tracking.tracking_config import TrackingConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from mlflow import MlflowClient

TAG = "mvpose.decision"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Outcome of a request to move an alias."""

    moved: bool
    before: int | None
    """Version that held the alias before."""
    now: int | None
    verdict: PromotionVerdict | None
    """None for a rollback, or if the version already held the alias."""


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """One entry of an alias's history."""

    when: str
    """ISO 8601, UTC."""
    who: str
    version: int
    outcome: Literal["moved", "refused", "rolled back"]
    before: int | None
    """Version that held the alias before the decision."""
    figures: dict[str, Any]
    """Gate, data, reason and figures of the verdict; empty for a rollback."""


def promote(
    config: TrackingConfig,
    name: str,
    version: int,
    alias: str,
    gate: Gate,
    evaluation: str | None = None,
    rival_evaluation: str | None = None,
) -> Decision:
    """Move `alias` to a version if its evaluation is better than that of the present holder; see `gate`.

    The first holder of an alias must be better than the default pipeline (`mvpose.models.shipped.FUSION`), or be it; a
    network of one camera has no default pipeline to beat.
    A version that was trained on, or selected by, what its evaluation shows is refused. Evaluations are folders of
    `mvpose evaluate`; by default, those registered with the versions. ConfigError if an evaluation is missing, or of
    other weights.
    """
    with reached(config), tempfile.TemporaryDirectory() as scratch:
        candidate = found_version(config, name, version=str(version))
        client = client_of(config)
        before = _holder(client, name, alias)
        if before == version:
            return Decision(moved=False, before=version, now=version, verdict=None)
        default = choose_model(FUSION, config).weights_sha256
        if before is None and candidate.tags.get(WEIGHTS_TAG) == default:
            verdict, figures = default_pipeline(gate), {}
        else:
            mine = _evaluation(config, candidate, evaluation, os.path.join(scratch, "candidate"))
            figures = {DATA_TAG: check_evaluation(mine, candidate.tags[WEIGHTS_TAG])["data_sha256"]}
            described = version_description(config, f"models:/{name}/{version}", scratch)
            verdict = require_held_out(mine, described["lineage"], gate)
            if verdict is None and before is None:
                one_camera = described["config"]["method"] in ONE_VIEW
                if one_camera and rival_evaluation is not None:
                    raise ConfigError("no default pipeline takes one camera: the first holder has no rival.")
                if one_camera:
                    verdict = first_of_one_camera(gate)
                elif rival_evaluation is None:
                    verdict = no_rival(FUSION, gate)
            if verdict is None:
                into = os.path.join(scratch, "rival")
                rival = None if before is None else found_version(config, name, version=str(before))
                theirs = _rival_evaluation(config, rival, default, rival_evaluation, into)
                verdict = decide_promotion(mine, theirs, gate)
        figures |= asdict(gate) | asdict(verdict)
        _note(client, candidate, alias, "moved" if verdict.passed else "refused", before, figures)
        if verdict.passed:
            client.set_registered_model_alias(name, alias, str(version))
        return Decision(moved=verdict.passed, before=before, now=version if verdict.passed else before, verdict=verdict)


def roll_back(config: TrackingConfig, name: str, alias: str, version: int | None = None) -> Decision:
    """Return `alias` to its previous holder, or to `version`, which must have held it before.

    RegistryError if there is no such version.
    """
    with reached(config):
        client = client_of(config)
        before = _holder(client, name, alias)
        earlier = _holders(_decisions(client, name, alias), before)
        if before is not None:
            earlier.pop()
        wanted = version if version is not None else (earlier[-1] if earlier else None)
        if wanted is None or wanted not in earlier:
            held = ", ".join(map(str, dict.fromkeys(earlier))) or "none"
            raise RegistryError(f"alias {alias} of {name} can only return to a version that held it before: {held}.")
        _note(client, found_version(config, name, version=str(wanted)), alias, "rolled back", before, {})
        client.set_registered_model_alias(name, alias, str(wanted))
        return Decision(moved=True, before=before, now=wanted, verdict=None)


def decision_history(config: TrackingConfig, name: str, alias: str) -> list[DecisionRecord]:
    """All decisions about an alias, oldest first; UnreachableError if there is no such model."""
    with reached(config):
        return _decisions(client_of(config), name, alias)


def _evaluation(config: TrackingConfig, version: ModelVersion, folder: str | None, into: str) -> str:
    """Local copy of the evaluation of a version, checked to be of its weights."""
    if folder is not None:
        local = fetched(folder, into, (SAMPLES, SUMMARY))
    else:
        os.makedirs(into)
        registered = evaluation_of(config, version, into)
        if registered is None:
            raise ConfigError(
                f"version {version.version} of {version.name} was registered without an evaluation: create one with "
                "mvpose evaluate and pass its folder (--evaluation, or --rival-evaluation for the present holder)."
            )
        local = registered
    if WEIGHTS_TAG not in version.tags:
        raise RegistryError(f"version {version.version} of {version.name} was not registered by mvpose.")
    check_evaluation(local, version.tags[WEIGHTS_TAG])
    return local


def _rival_evaluation(
    config: TrackingConfig, rival: ModelVersion | None, default_sha256: str, folder: str | None, into: str
) -> str:
    """Local copy of the evaluation of the present holder or, without one, of the default pipeline."""
    if rival is not None:
        return _evaluation(config, rival, folder, into)
    assert folder is not None
    local = fetched(folder, into, (SAMPLES, SUMMARY))
    check_evaluation(local, default_sha256)
    return local


def _note(
    client: MlflowClient,
    version: ModelVersion,
    alias: str,
    outcome: Literal["moved", "refused", "rolled back"],
    before: int | None,
    figures: Mapping[str, Any],
) -> None:
    """Record a decision before it is carried out: if the process dies in between, the alias is where it was."""
    record = DecisionRecord(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        who=os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser(),
        version=int(version.version),
        outcome=outcome,
        before=before,
        figures={key: None if value != value else value for key, value in figures.items()},
    )
    text = json.dumps(asdict(record), allow_nan=False)
    client.set_registered_model_tag(version.name, f"{TAG}.{alias}.{time.time_ns()}", text)
    client.set_model_version_tag(version.name, str(version.version), f"{TAG}.{alias}", text)


def _holder(client: MlflowClient, name: str, alias: str) -> int | None:
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else int(version)


def _decisions(client: MlflowClient, name: str, alias: str) -> list[DecisionRecord]:
    tags = client.get_registered_model(name).tags
    keys = sorted(key for key in tags if re.fullmatch(rf"{re.escape(TAG)}\.{re.escape(alias)}\.\d+", key))
    return [structure(json.loads(tags[key]), DecisionRecord, key) for key in keys]


def _holders(decisions: Sequence[DecisionRecord], holder: int | None) -> list[int]:
    """Versions that a rollback can return to, the present holder last.

    A holder that was set outside mvpose counts, and a version that was rolled back does not.
    """
    held: list[int] = []

    def hold(version: int | None) -> None:
        if version is not None and held[-1:] != [version]:
            held.append(version)

    for decision in decisions:
        if decision.outcome == "refused":
            continue
        hold(decision.before)
        if decision.outcome == "rolled back":
            del held[len(held) - held[::-1].index(decision.version, 1) :]
        else:
            hold(decision.version)
    hold(holder)
    return held
