"""Footage and calibration of a capture brought together, before a video is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mvpose.archive.calibration import Calibration, Unit, UpAxis
from mvpose.archive.camera_names import match_cameras, trials
from mvpose.archive.capture_files import CaptureFiles
from mvpose.archive.capture_toml import CAPTURE_TOML, VideoEntry
from mvpose.archive.frame_pairing import Pairing
from mvpose.archive.locations import join, name
from mvpose.archive.picture_fit import PictureFit
from mvpose.archive.safe_names import safe_path
from mvpose.errors import CalibrationError, MvposeError, TooFewViewsError

NAMED = 8
"""Cameras named in a note before it says how many more there are."""


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """What an archive's own files leave open; a capture.toml goes before it."""

    calibration: str = ""
    """File name of the calibration to use where a capture has several; with a `/` in it, the location (absolute, or
    below the archive) of the one for all captures."""
    unit: Unit | None = None
    """Unit of the calibrations, over what they state."""
    up: UpAxis | None = None
    """Axis of the calibrations' world that points up, over what they state."""
    fps: float | None = None
    """Frames per second of all footage, over what the videos state; needed for folders of pictures."""
    picture_fit: PictureFit = PictureFit.AUTO
    """What was done to pictures whose size is not their calibration's."""
    outside_archive: bool = False
    """Whether a capture.toml may name locations outside the archive."""


@dataclass(frozen=True, eq=False)
class Matched:
    """A capture of which everything is known but the videos' content."""

    capture_id: str
    calibration: Calibration
    videos: dict[str, VideoEntry]
    """By camera of the calibration, in its order; rate and picture fit as they hold for this capture."""
    pairing: Pairing | None
    wall_times: str
    stamps: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unmatched:
    """A capture that came to nothing before a video was opened."""

    capture_id: str
    error: MvposeError


def matched_trials(
    files: CaptureFiles, archive: str, config: CatalogueConfig, load: Callable[..., Calibration]
) -> list[Matched | Unmatched]:
    """Footage and calibration brought together; several captures where a folder holds several trials."""
    settings = files.settings
    try:
        uri = _chosen_calibration(files, archive, config)
        calibration = load(uri, settings.unit or config.unit, settings.up or config.up)
    except MvposeError as error:
        return [Unmatched(files.capture_id, error)]
    videos = {footage: _settled(video, files, config) for footage, video in files.videos.items()}
    notes = tuple(f"calibration {name(uri)}: {note}" for note in calibration.notes)
    groups = trials(calibration.rig.names, tuple(videos))
    outside = [footage for footage in videos if all(footage not in names for names in groups.values())]
    if outside:
        notes = (*notes, f"footage without a calibration, left out: {some_of(outside)}")
    found: list[Matched | Unmatched] = []
    for trial, names in groups.items():
        capture_id = f"{files.capture_id}/{safe_path((trial,))}" if trial else files.capture_id
        try:
            own = {footage: videos[footage] for footage in names}
            found.append(_matched(capture_id, calibration, own, files, notes))
        except MvposeError as error:
            found.append(Unmatched(capture_id, error))
    return found


def _settled(video: VideoEntry, files: CaptureFiles, config: CatalogueConfig) -> VideoEntry:
    settings = files.settings
    # What a capture.toml says of one video goes first; the rate that a convention knows goes last.
    fps = (video.fps if settings.videos else None) or settings.fps or config.fps or video.fps
    return replace(video, fps=fps, picture_fit=video.picture_fit or settings.picture_fit or config.picture_fit)


def _matched(
    capture_id: str,
    calibration: Calibration,
    videos: dict[str, VideoEntry],
    files: CaptureFiles,
    notes: tuple[str, ...],
) -> Matched:
    matching = match_cameras(calibration.rig.names, tuple(videos))
    without_footage, without_camera = some_of(matching.cameras_alone), some_of(matching.footage_alone)
    if len(matching.footage) < 2:
        only = ", ".join(f"{camera} ({footage})" for camera, footage in matching.footage.items())
        raise TooFewViewsError(
            f"only one camera has both footage and a calibration: {only}. Footage without a camera: "
            f"{without_camera or 'none'}; cameras without footage: {without_footage or 'none'}."
        )
    if without_footage:
        notes = (*notes, f"calibrated cameras without footage: {without_footage}")
    if without_camera:
        notes = (*notes, f"footage without a calibration, left out: {without_camera}")
    renamed = [f"{camera} is {footage}" for camera, footage in matching.footage.items() if camera != footage]
    if renamed:
        notes = (*notes, f"cameras matched by what their names share: {some_of(renamed)}")
    of_camera = {camera: videos[footage] for camera, footage in matching.footage.items()}
    return Matched(capture_id, calibration, of_camera, files.settings.pairing, files.wall_times, files.stamps, notes)


def _chosen_calibration(files: CaptureFiles, archive: str, config: CatalogueConfig) -> str:
    if files.settings.calibration:
        return files.settings.calibration
    if "/" in config.calibration:
        absolute = "://" in config.calibration or config.calibration.startswith("/")
        return config.calibration if absolute else join(archive, config.calibration)
    found = files.calibrations
    if not found:
        raise CalibrationError(
            "there is footage but no calibration, neither in this folder (a folder `calibration`, or a file with "
            f"`calib` in its name) nor above it. Put one there, or name it in a {CAPTURE_TOML}."
        )
    named = [uri for uri in found if name(uri) == config.calibration]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    asked = f"; {config.calibration} is not one of them" if config.calibration and not named else ""
    raise CalibrationError(
        f"there are several calibrations: {', '.join(name(uri) for uri in found)}{asked}. Say which one: --catalogue."
        f'calibration NAME for all captures, or `calibration = "..."` in a {CAPTURE_TOML} here.'
    )


def some_of(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
