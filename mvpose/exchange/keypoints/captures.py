"""Turn imported 2D joints into captures: matched to a calibration, paired by frame number, with or without footage.

Frame k of a capture is the frame with number k in the files of all cameras, or k + `first_frame` if that is set. If a
number is missing in a camera's files, that camera has no detections in the frame; nothing is ever shifted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mvpose.capture import Capture
from mvpose.errors import CalibrationError, ConfigError, MvposeError
from mvpose.exchange.keypoints.contents import Sources, frames_of, joint_set
from mvpose.exchange.keypoints.import_config import KeypointImport
from mvpose.exchange.keypoints.sources import JointFiles, joint_files
from mvpose.footage.calibration import Calibration, load_calibration
from mvpose.footage.capture_files import CaptureFiles, Unusable
from mvpose.footage.capture_matching import CatalogueConfig, Matched, Unmatched, matched_trials, some_of
from mvpose.footage.catalogue_table import Found, Problem
from mvpose.footage.video.frames import probe
from mvpose.geometry.camera import CameraRig
from mvpose.records import Video
from mvpose.storage.locations import absolute, name, stamp

FPS_TOLERANCE = 0.005
"""Rates closer than this are the same rate stated differently."""
LAYOUTS = {
    "openpose": "one folder of numbered JSON files per camera",
    "pose2sim": "a folder pose-associated, pose-sync or pose, with one folder of numbered JSON files per camera",
    "deeplabcut": "one h5 or csv file per camera",
    "sleap": "one analysis h5 file per camera",
}


def imported_captures(source: str, config: KeypointImport, *, one_camera: bool = False) -> Iterator[Found]:
    """The captures with 2D joints below a source; one that cannot be used is a `Problem`, as is one of one camera
    unless these are wanted.

    Raises ConfigError if the source cannot be listed or contains nothing in the format.
    """
    source, config = absolute(source), config.located
    load = functools.lru_cache(256)(load_calibration)
    any_found = False
    for files in joint_files(source, config):
        any_found = True
        if isinstance(files, Unusable):
            yield _problem(files.capture_id, files.error)
        else:
            yield from _trials(files, source, config, load, one_camera)
    if not any_found:
        raise ConfigError(
            f"no 2D joints of {config.format} were found in {source}. Expected layout: {LAYOUTS[config.format]}."
        )


def _trials(
    files: JointFiles, source: str, config: KeypointImport, load: Callable[..., Calibration], one_camera: bool
) -> Iterator[Found]:
    """The captures of a folder, with notes on each."""
    options = CatalogueConfig(unit=config.unit, up=config.up, one_camera=one_camera)
    if len(files.joints.calibrations) != 1:
        trials: list[Matched | Unmatched] = [Unmatched(files.joints.capture_id, _which_calibration(files.joints))]
    else:
        trials = matched_trials(files.joints, source, options, load)
    footage = matched_trials(files.footage, source, options, load) if files.footage.footage else []
    footage_of = {each.capture_id: each for each in footage}
    for matched in trials:
        try:
            capture, notes = _captured(matched, footage_of.get(matched.capture_id), config, files.shifted)
        except MvposeError as error:
            yield _problem(matched.capture_id, error)
        else:
            yield capture
            yield from (f"{capture.capture_id}: {_for_imports(note)}" for note in notes)


_REWORDED = (
    (re.compile(r"set `fps` in a capture\.toml(?:,? or --catalogue\.fps)?", re.IGNORECASE), "pass --fps"),
    (re.compile(r",? or [^.,]*\bin a capture\.toml(?: here)?|, list them in a capture\.toml"), ""),
    (re.compile(r"--catalogue\.(?=unit|up|fps)"), "--"),
)
"""Advice of the rooms that read footage, and what an import has instead: flags of its own, and no capture.toml."""


def _for_imports(said: str) -> str:
    """A sentence about footage and its calibration with advice that `mvpose import` can follow."""
    for pattern, own in _REWORDED:
        said = pattern.sub(own, said)
    return said


def _problem(capture_id: str, error: MvposeError) -> Problem:
    return Problem(capture_id, error.reason, _for_imports(str(error)))


def _which_calibration(files: CaptureFiles) -> CalibrationError:
    if not files.calibrations:
        return CalibrationError("there is no calibration next to the 2D joints or above them: pass --calibration FILE.")
    listed = ", ".join(map(name, files.calibrations))
    return CalibrationError(f"there are several calibrations: {listed}. Pass --calibration FILE.")


def _captured(
    matched: Matched | Unmatched, footage: Matched | Unmatched | None, config: KeypointImport, shifted: bool
) -> tuple[Capture, tuple[str, ...]]:
    """The capture, and notes on it. Only the rate is used of footage against which the joints are `shifted`."""
    if isinstance(matched, Unmatched):
        raise matched.error
    rig = matched.calibration.rig.select(tuple(matched.videos))
    unsized = [camera for camera, size in zip(rig.names, rig.size.tolist(), strict=True) if 0 in size]
    if unsized:
        raise CalibrationError(
            f"the calibration does not state the image size of {', '.join(unsized)}, which is needed for 2D joints in "
            "pixels: add it."
        )
    sources = stamped([video.uri for video in matched.videos.values()])
    skeleton, frames = joint_set(sources, config), frames_of(sources, config)
    first, last = _extent(frames, config)
    films, notes = _films(rig, footage, config)
    fps = _fps(films, config)
    if shifted and films:
        films, notes = {}, ("no overlays: Pose2Sim has shifted the 2D joints against the videos (pose-sync)",)
    videos = tuple(
        Video(
            camera=camera,
            uri=films[camera].uri if camera in films else "",
            fps=fps,
            num_frames=last + 1,
            size=(int(size[0]), int(size[1])),
            first_frame=first,
            stamp=content,
            keypoints=uri,
        )
        for camera, size, (uri, content) in zip(rig.names, rig.size.tolist(), sources, strict=True)
    )
    paired = f"{_paired(rig, frames, first, last)}; joints of {skeleton.name}"
    notes = (*notes, f"the confidence of the 2D joints is read on the scale: {config.scale_name(skeleton)}")
    capture = Capture(matched.capture_id, rig, videos, assumed_unit=matched.calibration.assumed_unit)
    return capture, (*matched.notes, paired, *notes)


def stamped(uris: Sequence[str]) -> Sources:
    """The sources of 2D joints with their current stamps. Raises ConfigError if one does not exist."""
    try:
        return tuple((uri, stamp(uri)) for uri in uris)
    except OSError as error:
        raise ConfigError(f"2D joints cannot be found: {error}") from error


def _extent(frames: Sequence[Int[np.ndarray, " _"]], config: KeypointImport) -> tuple[int, int]:
    """First and last number of the capture's frames. Raises ConfigError if keeping numbers is ambiguous."""
    there = np.unique(np.concatenate(frames))
    if not len(there):
        raise ConfigError("the files contain no frames.")
    low, high = int(there[0]), int(there[-1])
    if high - low >= 50 * len(there) + 10_000:
        raise ConfigError(
            f"{len(there)} frames are numbered {low} to {high}, which is not one sequence: remove the files that "
            "do not belong to it."
        )
    if config.first_frame is not None:
        if config.first_frame > high:
            raise ConfigError(f"first_frame is {config.first_frame}, but the frames are numbered {low} to {high}.")
        return config.first_frame, high
    if low > high - low + 1:
        raise ConfigError(
            f"the frames are numbered {low} to {high}: pass --first-frame {low} if the capture starts there, or "
            f"--first-frame 0 if it has {high + 1} frames and the first ones are without people."
        )
    return 0, high


def _paired(rig: CameraRig, frames: Sequence[Int[np.ndarray, " _"]], first: int, last: int) -> str:
    """A note on how the cameras were paired, with the number of missing frames per camera."""
    lacking = {
        camera: last + 1 - first - int(((first <= own) & (own <= last)).sum())
        for camera, own in zip(rig.names, frames, strict=True)
    }
    lacks = some_of([f"{camera} lacks {count}" for camera, count in lacking.items() if count])
    return f"2D joints are paired by the frame numbers of the files, {first} to {last}" + (
        f" ({lacks})" if lacks else ""
    )


def _films(
    rig: CameraRig, footage: Matched | Unmatched | None, config: KeypointImport
) -> tuple[dict[str, Video], tuple[str, ...]]:
    """The footage of each camera, for overlays. Raises CalibrationError if it contradicts the calibration.

    Footage found next to the joints that cannot be used only disables overlays; requested footage is an error.
    """
    if isinstance(footage, Matched):
        try:
            films = {
                camera: probe(v.uri, camera, config.fps) for camera, v in footage.videos.items() if camera in rig.names
            }
        except MvposeError as error:
            footage = Unmatched(footage.capture_id, error)
        else:
            for camera, film in films.items():
                size = tuple(rig.size[rig.names.index(camera)].tolist())
                if film.size != size:
                    raise CalibrationError(
                        f"{film.uri} has {film.size[0]} x {film.size[1]} pixels, but its calibration is for {size[0]} "
                        f"x {size[1]}, so the pixels of the 2D joints are ambiguous. Use the calibration of the "
                        "images in which the joints were found."
                    )
            return films, ()
    if config.videos:
        raise footage.error if footage else ConfigError(f"no footage of this capture was found in {config.videos}.")
    return {}, (f"no overlays: {footage.error}",) if footage else ()


def _fps(films: Mapping[str, Video], config: KeypointImport) -> float:
    rates = [film.fps for film in films.values()]
    if config.fps is not None:
        return config.fps
    if not rates:
        raise ConfigError("neither the 2D joints nor any footage state a frame rate: pass --fps RATE.")
    if max(rates) - min(rates) > FPS_TOLERANCE * max(rates):
        rates_text = ", ".join(f"{camera} {film.fps:g}" for camera, film in films.items())
        raise ConfigError(f"the footage has different frame rates ({rates_text}): pass --fps RATE.")
    return rates[0]
