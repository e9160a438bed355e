"""`mvpose register`: register a trained network as a version that any MLflow client can load."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from mvpose.errors import ConfigError
from mvpose.storage.locations import exists, join
from mvpose.tracking import TrackingConfig, tracking_uri


@dataclass(frozen=True, kw_only=True)
class Register:
    """Register a trained network as the next version of a model, under the alias `challenger`."""

    model: tyro.conf.Positional[str] = ""
    """Folder of a trained network (model.json and weights.safetensors), or the output of mvpose train; may be s3://. Or
    the name of a shipped model."""
    name: str = ""
    """Name in the registry."""
    evaluation: str | None = None
    """Output of `mvpose evaluate` for the network, used by `mvpose promote`."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: Register) -> int:
    """Exit code 0; failures raise."""
    if not command.model or not command.name:
        raise ConfigError("missing model or name: mvpose register MODEL --name NAME")
    from mvpose.models.shipped import model_folder
    from mvpose.tracking.registry import register

    folder = model_folder(command.model)
    if not exists(join(folder, "model.json")) and exists(join(folder, "model", "model.json")):
        folder = join(folder, "model")
    version = register(command.tracking, folder, command.name, command.evaluation)
    print(
        f"{version.uri} in {tracking_uri(command.tracking)}: weights {version.weights_sha256[:12]}, alias challenger.\n"
        f"Next: mvpose promote {version.name} {version.version}"
    )
    return 0
