"""`mvpose export`: the poses of a run in the formats of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Literal

import tyro

from mvpose.archive.calibration_export import (
    anipose_toml,
    easymocap_yaml,
    opencv_yaml,
    panoptic_json,
    pose2sim_toml,
)
from mvpose.archive.commits import write_whole
from mvpose.archive.export.anipose_project import anipose_files
from mvpose.archive.export.bvh import bvh_files
from mvpose.archive.export.c3d import c3d_files
from mvpose.archive.export.csv import long_csv_files, wide_csv_files
from mvpose.archive.export.nwb import nwb_files
from mvpose.archive.export.openpose_json import openpose_files
from mvpose.archive.export.pose2sim_project import pose2sim_files
from mvpose.archive.export.recording import File, Recording, measured_recording
from mvpose.archive.export.trc import trc_files
from mvpose.archive.locations import join
from mvpose.archive.output_folder import require_output
from mvpose.archive.run_folder import RunFolder
from mvpose.config import nearest
from mvpose.errors import ConfigError, MvposeError
from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.filters import FilteredPoses
from mvpose.records import CapturePlan, Keypoints2D, Poses3D

PoseFormat = Literal["trc", "c3d", "csv_long", "csv_wide", "bvh", "pose2sim", "anipose", "nwb"]
CameraFormat = Literal[
    "openpose_json",
    "calibration_pose2sim",
    "calibration_anipose",
    "calibration_easymocap",
    "calibration_opencv",
    "calibration_panoptic",
]

UNITS_AND_AXES: dict[PoseFormat | CameraFormat, str] = {
    "trc": "metres, Y up",
    "c3d": "millimetres, Z up",
    "csv_long": "metres, Z up",
    "csv_wide": "metres, Z up",
    "bvh": "metres, Y up",
    "pose2sim": "calibration in metres, Z up; TRC in metres, Y up",
    "anipose": "metres, Z up",
    "nwb": "metres, Z up",
    "openpose_json": "pixels of the decoded video",
    "calibration_pose2sim": "metres, Z up",
    "calibration_anipose": "metres, Z up",
    "calibration_easymocap": "metres, Z up",
    "calibration_opencv": "metres, Z up",
    "calibration_panoptic": "centimetres, Y down",
}


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the poses of a run in the formats of other tools."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    format: tuple[PoseFormat | CameraFormat, ...] = ("trc",)
    """One or several; those of poses go to `raw/` (and `filtered/`), those of cameras beside them."""
    output: str | None = None
    """Where the files go, a folder a capture; without it the folder `export` of the run."""
    captures: tuple[str, ...] = ()
    """Only these; without it all of the run."""
    filtered: bool = False
    """Write the run's filtered poses beside the raw ones; how they are filtered is a setting of `reconstruct`."""


@dataclass(frozen=True, eq=False)
class _Source:
    """One capture of a run, read once."""

    folder: RunFolder
    plan: CapturePlan

    @cached_property
    def poses(self) -> Poses3D | None:
        return self.folder.poses(self.plan)

    @cached_property
    def filtered(self) -> FilteredPoses:
        return self.folder.filtered(self.plan)

    @cached_property
    def keypoints(self) -> Keypoints2D | None:
        return self.folder.keypoints(self.plan)

    @cached_property
    def rig(self) -> CameraRig:
        return self.folder.rig(self.plan)


def run(command: Export) -> int:
    """Exit code 0, or 3 if a capture has no poses or could not be written in a format; the others are."""
    if not command.run:
        raise ConfigError("say which run: mvpose export RUN --format trc")
    folder = RunFolder(command.run)
    # Raises where the run is not finished: half a capture would pass for a whole one.
    folder.summary()
    output = command.output or join(command.run, "export")
    failed = False
    for plan in _chosen(command, folder.plans()):
        source = _Source(folder, plan)
        capture_id = plan.capture.capture_id
        # First, since it is what the folder is known by: one that holds other files is refused.
        require_output(join(output, capture_id), "mvpose export", "about.json")
        write_whole(join(output, capture_id, "about.json"), _about(command, source))
        for name in command.format:
            try:
                count = _written(join(output, capture_id), _files(command, source, name))
            except MvposeError as error:
                failed = True
                print(f"{capture_id}: no {name}: {error}")
            else:
                print(f"{capture_id}: {name}, {count} files in {join(output, capture_id)}")
    return 3 if failed else 0


def _chosen(command: Export, plans: list[CapturePlan]) -> list[CapturePlan]:
    known = {plan.capture.capture_id: plan for plan in plans}
    unknown = [capture_id for capture_id in command.captures if capture_id not in known]
    if unknown:
        raise ConfigError(f"{command.run} has no capture {unknown[0]!r} ({nearest(unknown[0], known)}).")
    return [known[capture_id] for capture_id in command.captures] or plans


def _written(folder: str, files: Iterator[File]) -> int:
    count = 0
    for name, content in files:
        write_whole(join(folder, name), content)
        count += 1
    return count


def _files(command: Export, source: _Source, name: PoseFormat | CameraFormat) -> Iterator[File]:
    """The files of one format, below the capture's folder."""
    match name:
        case "openpose_json":
            cameras = [video.camera for video in source.plan.capture.videos]
            files, folder = openpose_files(_keypoints(source), cameras), "openpose"
        case "calibration_pose2sim":
            files, folder = [("Calib.toml", pose2sim_toml(source.rig).encode())], "calibration_pose2sim"
        case "calibration_anipose":
            files, folder = [("calibration.toml", anipose_toml(source.rig).encode())], "calibration_anipose"
        case "calibration_easymocap":
            texts = zip(("intri.yml", "extri.yml"), easymocap_yaml(source.rig), strict=True)
            files, folder = [(file, text.encode()) for file, text in texts], "calibration_easymocap"
        case "calibration_opencv":
            files, folder = [("calibration.yml", opencv_yaml(source.rig).encode())], "calibration_opencv"
        case "calibration_panoptic":
            files, folder = [("calibration.json", panoptic_json(source.rig).encode())], "calibration_panoptic"
        case _:
            for variant, recording in _recordings(command, source):
                yield from ((f"{variant}/{file}", data) for file, data in _pose_files(recording, source, name))
            return
    yield from ((f"{folder}/{file}", data) for file, data in files)


def _recordings(command: Export, source: _Source) -> Iterator[tuple[str, Recording]]:
    """("raw", as reconstructed), and ("filtered", ...) where it is asked for."""
    if source.poses is None:
        raise ConfigError("no clip of it has poses.")
    capture = source.plan.capture
    yield "raw", measured_recording(capture.capture_id, capture.fps, source.poses, capture.breaks)
    if command.filtered:
        after = source.filtered
        yield (
            "filtered",
            Recording(
                capture_id=capture.capture_id,
                fps=capture.fps,
                breaks=capture.breaks,
                poses=after.poses,
                filled=after.filled,
            ),
        )


def _pose_files(recording: Recording, source: _Source, name: PoseFormat) -> Iterator[File]:
    match name:
        case "trc":
            return trc_files(recording)
        case "c3d" | "bvh" if recording.breaks:
            raise ConfigError(f"its frames have breaks in time, which {name} has no place for: export csv_long or trc.")
        case "c3d":
            return c3d_files(recording)
        case "csv_long":
            return long_csv_files(recording)
        case "csv_wide":
            return wide_csv_files(recording)
        case "bvh":
            return bvh_files(recording)
        case "pose2sim":
            return (
                (f"pose2sim/{file}", data) for file, data in pose2sim_files(recording, _keypoints(source), source.rig)
            )
        case "nwb":
            return nwb_files(recording)
        case "anipose":
            return ((f"anipose/{file}", data) for file, data in anipose_files(recording, source.rig))


def _keypoints(source: _Source) -> Keypoints2D:
    if source.keypoints is None:
        raise ConfigError("no clip of it has 2D joints.")
    return source.keypoints


def _about(command: Export, source: _Source) -> bytes:
    """What the files cannot say themselves."""
    capture, settings = source.plan.capture, source.folder.settings().values
    filtering = {name: value for name, value in settings.items() if name.startswith("filtering.")}
    about = {
        "capture": capture.capture_id,
        "fps": capture.fps,
        "frames": capture.num_frames,
        "joints": source.poses.skeleton.joints if source.poses else [],
        "formats": {name: UNITS_AND_AXES[name] for name in command.format},
        "filtering": filtering if command.filtered else None,
        "mvpose": version("mvpose"),
    }
    return json.dumps(about, indent=1).encode()
