"""Promotion and rollback of model aliases: the gate decides, and every decision is kept.

Tags of the model: `mvpose.decision.<alias>.<nanoseconds>`, one per decision (JSON: `DecisionRecord`), never changed.
The latest decision about a version is also its tag `mvpose.decision.<alias>`. While a decision is being made the model
has a tag `mvpose.decision_open.<alias>.<nanoseconds>.<random>`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    no_rival,
    require_held_out,
    without_rival,
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
STALE_NS = 15 * 60 * 10**9
"""A decision takes seconds."""


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
    network of one camera has no default pipeline to beat. If somebody has moved the alias without the gate, a version
    must also be better than the last one that passed it.
    A version that was trained on, or selected by, what its evaluation shows is refused. Evaluations are folders of
    `mvpose evaluate`; by default, those registered with the versions. ConfigError if an evaluation is missing, or of
    other weights. RegistryError if another promotion of the alias is under way.
    """
    with reached(config), tempfile.TemporaryDirectory() as scratch:
        candidate = found_version(config, name, version=str(version))
        client = client_of(config)
        with alone(client, name, alias):
            before = _holder(client, name, alias)
            if before == version:
                return Decision(moved=False, before=before, now=version, verdict=None)
            rivals = _rivals(client, name, alias, before)
            asked = _Asked(config, candidate, gate, evaluation, rival_evaluation, scratch)
            verdict, figures = _judged(asked, tuple(rival for rival in rivals if rival != version))
            figures |= asdict(gate) | asdict(verdict)
            _note(client, candidate, alias, "moved" if verdict.passed else "refused", before, figures)
            if verdict.passed:
                client.set_registered_model_alias(name, alias, str(version))
        return Decision(moved=verdict.passed, before=before, now=version if verdict.passed else before, verdict=verdict)


@contextmanager
def alone(client: MlflowClient, name: str, alias: str) -> Iterator[None]:
    """Decide about an alias while nobody else does; RegistryError if somebody does.

    MLflow has no lock and no exchange by comparison. Whoever decides leaves a tag before looking for those of others:
    of two at once at least one sees the other. A process that died leaves its tag, which counts for `STALE_NS`.
    """
    prefix = f"{TAG}_open.{alias}."
    mine = f"{prefix}{time.time_ns()}.{uuid.uuid4().hex[:8]}"
    client.set_registered_model_tag(name, mine, getpass.getuser())
    try:
        for key, who in client.get_registered_model(name).tags.items():
            if key != mine and key.startswith(prefix):
                started = int(key.removeprefix(prefix).partition(".")[0])
                if time.time_ns() - started < STALE_NS:
                    raise RegistryError(
                        f"{who} is deciding about {alias} of {name} at this moment: try again when that is done."
                    )
        yield
    finally:
        client.delete_registered_model_tag(name, mine)


@dataclass(frozen=True)
class _Asked:
    """What a promotion was called with."""

    config: TrackingConfig
    candidate: ModelVersion
    gate: Gate
    evaluation: str | None
    rival_evaluation: str | None
    scratch: str


def _rivals(client: MlflowClient, name: str, alias: str, before: int | None) -> tuple[int | None, ...]:
    """What a version must beat: the last holder that passed the gate, and the present one if it has not.

    None for the default pipeline, if no version has passed the gate.
    """
    there = {int(version.version) for version in client.search_model_versions(f"name = '{name}'")}
    decisions = _decisions(client, name, alias)
    passed = there & {decision.version for decision in decisions if decision.outcome == "moved"}
    last = next((held for held in reversed(_holders(decisions, None)) if held in passed), None)
    return (last,) if before in (None, last) else (last, before)


def _judged(asked: _Asked, rivals: tuple[int | None, ...]) -> tuple[PromotionVerdict, dict[str, Any]]:
    """The first refusal, or the verdict against the last rival; and the digest of the data that decided."""
    config, candidate, gate = asked.config, asked.candidate, asked.gate
    default = choose_model(FUSION, config).weights_sha256
    is_default = candidate.tags.get(WEIGHTS_TAG) == default
    if rivals == (None,) and is_default:
        return without_rival("it is the default pipeline itself", gate), {}
    mine = _evaluation(config, candidate, asked.evaluation, os.path.join(asked.scratch, "candidate"))
    figures = {DATA_TAG: check_evaluation(mine, candidate.tags[WEIGHTS_TAG])["data_sha256"]}
    described = version_description(config, f"models:/{candidate.name}/{candidate.version}", asked.scratch)
    verdict = require_held_out(mine, described["lineage"], gate)
    if verdict is None and not rivals:
        verdict = without_rival("it is the last version that passed the gate", gate)
    for number, rival in enumerate(rivals):
        if verdict is not None and not verdict.passed:
            break
        into = os.path.join(asked.scratch, f"rival-{number}")
        # One flag: it is about the default pipeline, or else about the present holder.
        given = asked.rival_evaluation if rival is None or (None not in rivals and number == len(rivals) - 1) else None
        if rival is not None:
            other = found_version(config, candidate.name, version=str(rival))
            verdict = decide_promotion(mine, _evaluation(config, other, given, into), gate)
        elif is_default:
            verdict = without_rival("it is the default pipeline itself", gate)
        else:
            one_camera = described["config"]["method"] in ONE_VIEW
            verdict = _against_default(mine, default, given, into, gate, one_camera=one_camera)
    assert verdict is not None
    return verdict, figures


def _against_default(
    mine: str, default_sha256: str, folder: str | None, into: str, gate: Gate, *, one_camera: bool
) -> PromotionVerdict:
    """The verdict against the default pipeline, whose evaluation is in `folder`."""
    if one_camera and folder is not None:
        raise ConfigError("no default pipeline takes one camera: the first holder has no rival.")
    if one_camera:
        return without_rival("no version has passed the gate, and no default pipeline takes one camera", gate)
    if folder is None:
        return no_rival(FUSION, gate)
    local = fetched(folder, into, (SAMPLES, SUMMARY))
    check_evaluation(local, default_sha256)
    return decide_promotion(mine, local, gate)


def roll_back(config: TrackingConfig, name: str, alias: str, version: int | None = None) -> Decision:
    """Return `alias` to its previous holder, or to `version`, which must have held it before.

    RegistryError if there is no such version.
    """
    with reached(config), alone(client := client_of(config), name, alias):
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
