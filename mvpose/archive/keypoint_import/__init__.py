"""2D joints found by other tools as the 2D stage of a run: OpenPose JSON, Pose2Sim projects, DeepLabCut, SLEAP.

With them the detector is skipped. Each camera has a source of its own: a folder of JSON files, or a table.
"""

from mvpose.archive.keypoint_import.captures import imported_captures
from mvpose.archive.keypoint_import.config import (
    DeepLabCutImport,
    KeypointImport,
    OpenPoseImport,
    Pose2SimImport,
    SleapImport,
)
from mvpose.archive.keypoint_import.contents import keypoints_of

__all__ = [
    "DeepLabCutImport",
    "KeypointImport",
    "OpenPoseImport",
    "Pose2SimImport",
    "SleapImport",
    "imported_captures",
    "keypoints_of",
]
