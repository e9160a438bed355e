"""`mvpose export`: write the poses of a run in the formats of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from mvpose.capture import CapturePlan
from mvpose.commands.run_flags import Export
from mvpose.config import import_named, nearest
from mvpose.errors import ConfigError, MvposeError
from mvpose.exchange.calibration_export import (
    anipose_toml,
    easymocap_yaml,
    opencv_yaml,
    panoptic_json,
    pose2sim_toml,
)
from mvpose.exchange.export.anipose_project import anipose_files
from mvpose.exchange.export.bvh import bvh_files
from mvpose.exchange.export.c3d import c3d_files
from mvpose.exchange.export.csv import long_csv_files, wide_csv_files
from mvpose.exchange.export.nwb import nwb_files
from mvpose.exchange.export.openpose_json import openpose_files, pose2sim_files
from mvpose.exchange.export.recording import File, Recording, measured_recording
from mvpose.exchange.export.trc import trc_files
from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D, Poses3D
from mvpose.run.run_folder import RunFolder
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import join
from mvpose.storage.output_folder import require_output
from mvpose.temporal.filters import FilteredPoses

UNITS_AND_AXES = {
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
    """Exit code 0, or 3 if a capture failed, has no poses or does not fit a format; the rest is still written."""
    if not command.run:
        raise ConfigError("no run given: mvpose export RUN --format trc")
    for name in command.format:
        if ":" in name:
            import_named(name, "export format")
        elif name not in UNITS_AND_AXES:
            raise ConfigError(f"no format is named {name!r} ({nearest(name, UNITS_AND_AXES)}).")
    folder = RunFolder(command.run)
    # Raises if the run is not finished: a partial capture could be mistaken for a complete one.
    summary = folder.summary()
    unplanned = [] if command.captures else summary.unplanned
    output = command.output or join(command.run, "export")
    failed = bool(unplanned)
    for failure in unplanned:
        print(f"{failure.clip.capture_id}: no result: {failure.detail}")
    for plan in _chosen(command, folder.plans()):
        source = _Source(folder, plan)
        capture_id = plan.capture.capture_id
        # Written first: it marks the folder as ours, and a folder with other files is refused.
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


def _files(command: Export, source: _Source, name: str) -> Iterator[File]:
    """The files of one format, relative to the capture's folder."""
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
    """("raw", as reconstructed), and ("filtered", ...) if requested."""
    if source.poses is None:
        raise ConfigError("none of its clips has poses.")
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


def _pose_files(recording: Recording, source: _Source, name: str) -> Iterator[File]:
    match name:
        case "trc":
            return trc_files(recording)
        case "c3d" | "bvh" if recording.breaks:
            raise ConfigError(f"its frames have gaps in time, which {name} cannot store: export csv_long or trc.")
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
        case _:
            return import_named(name, "export format")(recording)


def _keypoints(source: _Source) -> Keypoints2D:
    if source.keypoints is None:
        raise ConfigError("none of its clips has 2D joints.")
    return source.keypoints


def _about(command: Export, source: _Source) -> bytes:
    """Metadata that the exported formats cannot hold."""
    capture, settings = source.plan.capture, source.folder.settings().values
    filtering = {name: value for name, value in settings.items() if name.startswith("filtering.")}
    about = {
        "capture": capture.capture_id,
        "fps": capture.fps,
        "frames": capture.num_frames,
        "joints": source.poses.skeleton.joints if source.poses else [],
        "formats": {name: UNITS_AND_AXES.get(name, "its own") for name in command.format},
        "filtering": filtering if command.filtered else None,
        "mvpose": version("mvpose"),
    }
    return json.dumps(about, indent=1).encode()
