"""`mvpose import openpose|pose2sim|deeplabcut|sleap`: run the batch job on the 2D joints of another tool."""

from __future__ import annotations

from mvpose.commands.reconstruct import run_job
from mvpose.commands.run_flags import DeepLabCut, OpenPose, Pose2Sim, Sleap
from mvpose.errors import ConfigError
from mvpose.pipeline.job import placed


def run(command: OpenPose | Pose2Sim | DeepLabCut | Sleap) -> int:
    """Same exit codes as `mvpose reconstruct`."""
    imported = command.imported
    if not command.archive or not command.output:
        raise ConfigError(
            "missing folder of 2D joints or output: "
            f"mvpose import {imported.format} FOLDER --calibration FILE --output OUT"
        )
    command = placed(command)
    return run_job(command, f"Reconstructing from the 2D joints in {command.archive}", f"detected by {imported.format}")
