"""`mvpose promote`: move an alias to a better version, or roll it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mvpose.errors import ConfigError
from mvpose.tracking import TrackingConfig
from mvpose.tracking.tracking_config import Gate

REFUSED = 4


@dataclass(frozen=True, kw_only=True)
class Promote:
    """Move an alias to a version if it beats the alias's current version, or the default pipeline, on the same samples,
    none of which it has seen in training."""

    name: tyro.conf.Positional[str] = ""
    """Name in the registry."""
    version: tyro.conf.Positional[int] = 0
    """Version to promote; optional with --rollback."""
    alias: str = "champion"
    """Alias to move."""
    evaluation: str | None = None
    """Output of `mvpose evaluate` for the version (default: the one registered with it)."""
    rival_evaluation: str | None = None
    """Output of `mvpose evaluate` for the alias's current version (default: the one registered with it), or, if no
    version holds the alias yet, for the default pipeline (canonical_tokens_halpe26)."""
    gate: Annotated[Gate, tyro.conf.arg(name="")] = field(default_factory=Gate)
    rollback: bool = False
    """Return the alias to its previous version, or to VERSION if that held it before."""
    history: bool = False
    """Print all decisions about the alias, and exit."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: Promote) -> int:
    """Exit code: 0 the alias points to the requested version, 4 the gate refused."""
    if not command.name or (command.version < 1 and not command.rollback and not command.history):
        raise ConfigError(
            "missing name or version: mvpose promote NAME VERSION, or mvpose promote NAME --rollback or --history"
        )
    from mvpose.tracking.promotion import decision_history, promote, roll_back

    if command.history:
        for decision in decision_history(command.tracking, command.name, command.alias):
            holder = f"version {decision.before}" if decision.before else "none"
            reason = f": {decision.figures['reason']}" if decision.figures else ""
            print(
                f"{decision.when}  {decision.who}  version {decision.version} {decision.outcome} "
                f"(holder before: {holder}){reason}"
            )
        return 0
    if command.rollback:
        back = roll_back(command.tracking, command.name, command.alias, command.version or None)
        print(f"{command.alias} of {command.name} is version {back.now} again; it was version {back.before}.")
        return 0
    decision = promote(
        command.tracking,
        command.name,
        command.version,
        command.alias,
        command.gate,
        command.evaluation,
        command.rival_evaluation,
    )
    if decision.verdict is None:
        print(f"Nothing to do: {command.alias} of {command.name} is version {command.version}.")
        return 0
    if not decision.moved:
        still = f"is still version {decision.now}" if decision.now else "still has no version"
        print(f"Refused: {decision.verdict.reason}. {command.alias} of {command.name} {still}.")
        return REFUSED
    was = f"; it was version {decision.before}" if decision.before else ""
    print(f"{command.alias} of {command.name} is version {decision.now}{was}: {decision.verdict.reason}.")
    return 0
