"""2D joints found by other tools as the 2D stage of a run: OpenPose JSON, Pose2Sim projects, DeepLabCut, SLEAP.

With them the detector is skipped. Each camera has a source of its own: a folder of JSON files, or a table.
"""

from mvpose.exchange.keypoints.import_config import (
    DeepLabCutImport,
    KeypointImport,
    OpenPoseImport,
    Pose2SimImport,
    SleapImport,
)

__all__ = [
    "DeepLabCutImport",
    "KeypointImport",
    "OpenPoseImport",
    "Pose2SimImport",
    "SleapImport",
]
