"""Promotion and rollback of model aliases: the gate decides, every decision is recorded on the version.

Tags of a version: `mvpose.decision.<alias>` is the last decision about it (JSON: time, user, outcome, figures). Tag of
the model: `mvpose.history.<alias>` lists the versions that held the alias, the present one last.
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mvpose.errors import ConfigError
from mvpose.tracking.delivery import client_of, reached
from mvpose.tracking.gate import Gate, PromotionVerdict, decide_promotion, first_verdict
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
)
from mvpose.tracking.tracking_config import TrackingConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from mlflow import MlflowClient

MAX_TAG_LENGTH = 4000


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Outcome of a request to move an alias."""

    moved: bool
    before: int | None
    """Version that held the alias before."""
    now: int | None
    verdict: PromotionVerdict | None
    """None for a rollback, or if the version already held the alias."""


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

    Evaluations are folders of `mvpose evaluate`; by default, those registered with the versions. The first holder of
    an alias needs an evaluation, but no rival. ConfigError if an evaluation is missing, or of other weights.
    """
    with reached(config), tempfile.TemporaryDirectory() as scratch:
        candidate = found_version(config, name, version=str(version))
        mine = _evaluation(config, candidate, evaluation, os.path.join(scratch, "candidate"))
        client = client_of(config)
        before = _holder(client, name, alias)
        if before == version:
            return Decision(moved=False, before=version, now=version, verdict=None)
        if before is None:
            verdict = first_verdict(mine, gate)
        else:
            rival = found_version(config, name, version=str(before))
            theirs = _evaluation(config, rival, rival_evaluation, os.path.join(scratch, "rival"))
            verdict = decide_promotion(mine, theirs, gate)
        with open(os.path.join(mine, SUMMARY), encoding="utf-8") as file:
            data = json.load(file)["data_sha256"]
        decision = {"rival": before, "gate": asdict(gate), DATA_TAG: data} | asdict(verdict)
        _note(client, candidate, alias, "moved" if verdict.passed else "refused", decision)
        if verdict.passed:
            _move(client, name, alias, str(version), [*_history(client, name, alias, before), str(version)])
        return Decision(moved=verdict.passed, before=before, now=version if verdict.passed else before, verdict=verdict)


def roll_back(config: TrackingConfig, name: str, alias: str, version: int | None = None) -> Decision:
    """Return `alias` to its previous holder, or to `version`, which must have held it before.

    RegistryError if there is no such version.
    """
    with reached(config):
        client = client_of(config)
        before = _holder(client, name, alias)
        history = _history(client, name, alias, before)
        earlier = history[:-1] if before is not None and history[-1:] == [str(before)] else history
        wanted = str(version) if version is not None else (earlier[-1] if earlier else None)
        if wanted is None or wanted not in earlier:
            held = ", ".join(dict.fromkeys(earlier)) or "none"
            raise RegistryError(f"alias {alias} of {name} can only return to a version that held it before: {held}.")
        kept = earlier[: len(earlier) - earlier[::-1].index(wanted)]
        _note(client, found_version(config, name, version=wanted), alias, "rolled back", {"rival": before})
        _move(client, name, alias, wanted, kept)
        return Decision(moved=True, before=before, now=int(wanted), verdict=None)


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


def _note(client: MlflowClient, version: ModelVersion, alias: str, outcome: str, decision: dict) -> None:
    who = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    note = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "who": who, "outcome": outcome} | decision
    plain = {key: None if value != value else value for key, value in note.items()}
    text = json.dumps(plain, allow_nan=False)[:MAX_TAG_LENGTH]
    client.set_model_version_tag(version.name, str(version.version), f"mvpose.decision.{alias}", text)


def _holder(client: MlflowClient, name: str, alias: str) -> int | None:
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else int(version)


def _history(client: MlflowClient, name: str, alias: str, before: int | None) -> list[str]:
    """Versions that held the alias, including one that was set outside mvpose."""
    text = client.get_registered_model(name).tags.get(f"mvpose.history.{alias}", "")
    history = text.split()
    return history if before is None or history[-1:] == [str(before)] else [*history, str(before)]


def _move(client: MlflowClient, name: str, alias: str, version: str, history: list[str]) -> None:
    # History first: if the process dies in between, the holder is not last in it, and `_history` appends it again.
    client.set_registered_model_tag(name, f"mvpose.history.{alias}", " ".join(history))
    client.set_registered_model_alias(name, alias, version)
