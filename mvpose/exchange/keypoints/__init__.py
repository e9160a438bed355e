"""Import 2D joints of other tools as the 2D stage of a run: OpenPose JSON, Pose2Sim projects, DeepLabCut, SLEAP.

The detector is then skipped. Each camera has a separate source: a folder of JSON files, or a table.
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
