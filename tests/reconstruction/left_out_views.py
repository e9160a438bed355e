"""The two results of `errors_of_views` of all frames, each by itself."""

import numpy as np
from jaxtyping import Float

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.view_errors import ViewErrors, errors_of_views
from mvpose.records import Keypoints2D, Poses3D


def view_errors(poses: Poses3D, keypoints: Keypoints2D, rig: CameraRig) -> ViewErrors:
    """Errors of every view."""
    return errors_of_views(poses, keypoints, rig, None, np.empty(0, np.int64))[0]


def leave_one_camera_out(poses: Poses3D, keypoints: Keypoints2D, rig: CameraRig) -> Float[np.ndarray, "T P J V"]:
    """Errors of views against the reconstruction without them."""
    return errors_of_views(poses, keypoints, rig, None, np.arange(len(poses.xyz)))[1]
