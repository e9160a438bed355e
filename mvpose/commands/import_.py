"""`mvpose import openpose|pose2sim|deeplabcut|sleap`: the batch job on 2D joints that another tool found."""

from __future__ import annotations

from mvpose.commands.reconstruct import run_job
from mvpose.commands.run_flags import DeepLabCut, OpenPose, Pose2Sim, Sleap
from mvpose.errors import ConfigError
from mvpose.pipeline.job import placed


def run(command: OpenPose | Pose2Sim | DeepLabCut | Sleap) -> int:
    """Exit code as of `mvpose reconstruct`."""
    imported = command.imported
    if not command.archive or not command.output:
        raise ConfigError(
            "say where the 2D joints are and which output: "
            f"mvpose import {imported.format} FOLDER --calibration FILE --output OUT"
        )
    command = placed(command)
    return run_job(command, f"Reconstructing from the 2D joints in {command.archive}", f"found by {imported.format}")
