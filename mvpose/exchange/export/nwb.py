"""Export Neurodata Without Borders with the extension ndx-pose: metres, Z up; missing values are NaN, confidence 0.

One file per capture. The processing module `behavior` contains a `Skeletons`, and for each person a `PoseEstimation`
`person<track>` with one `PoseEstimationSeries` (T x 3) per joint and three series (T x joints):
`person<track>_sigma_mm`, within which 68 % of such joints are, and two that separate measured values from others,
`person<track>_views`, the number of cameras used, and `person<track>_interpolated`.

NWB requires a recording date, which a run does not know: files contain 1970-01-01 and state that it is no real date.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from mvpose.errors import ConfigError
from mvpose.exchange.export.recording import File, Recording

_NO_NAME = re.compile(r"[/:\x00-\x1f]")


def nwb_files(recording: Recording) -> Iterator[File]:
    """`<name>.nwb`. Raises ConfigError if the libraries are not installed."""
    try:
        import h5py
        import ndx_pose
        import pynwb
    except ImportError as error:
        raise ConfigError(f"NWB needs pynwb and ndx-pose ({error}): pip install 'mvpose[nwb]'.") from error
    poses = recording.poses
    for name in (poses.skeleton.name, *poses.skeleton.joints):
        if _NO_NAME.search(name):
            raise ConfigError(f"NWB does not allow the name {name!r}: it contains a slash, colon or control character.")
    frames: dict[str, Any] = {"rate": recording.fps, "starting_time": 0.0}
    if recording.breaks:
        frames = {"timestamps": recording.time_s}
    file: Any = pynwb.NWBFile(
        session_description=f"3D poses of {recording.capture_id}; the date of the recording is not known.",
        identifier=recording.capture_id,
        session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
    )
    module = file.create_processing_module("behavior", "3D poses from several calibrated cameras")
    bones = [list(bone) for bone in poses.skeleton.bone_indices]
    skeleton = ndx_pose.Skeleton(name=poses.skeleton.name, nodes=list(poses.skeleton.joints), edges=bones)
    module.add(ndx_pose.Skeletons(skeletons=[skeleton]))
    for p, track in enumerate(poses.track_id.tolist()):
        series = [
            ndx_pose.PoseEstimationSeries(
                name=joint,
                data=poses.xyz[:, p, j],
                confidence=poses.confidence[:, p, j],
                unit="meters",
                reference_frame="the world of the calibration, Z up; (0, 0, 0) is its origin",
                confidence_definition="confidence of the 2D joints of the cameras used, 0 where the joint is missing",
                **frames,
            )
            for j, joint in enumerate(poses.skeleton.joints)
        ]
        module.add(
            ndx_pose.PoseEstimation(
                name=f"person{track}",
                pose_estimation_series=series,
                skeleton=skeleton,
                source_software="mvpose",
                source_software_version=version("mvpose"),
                description="One person, triangulated from all cameras that show the person.",
            )
        )
        tables = {
            "sigma_mm": (poses.sigma_mm, "millimeters"),
            "views": (poses.num_views.astype("uint8"), "n.a."),
            "interpolated": (recording.filled.astype("uint8"), "n.a."),
        }
        for name, (values, unit) in tables.items():
            module.add(pynwb.TimeSeries(name=f"person{track}_{name}", data=values[:, p], unit=unit, **frames))
    sink = io.BytesIO()
    writer: Any = pynwb.NWBHDF5IO
    with h5py.File(sink, "w") as hdf5, writer(file=hdf5, mode="w") as target:
        target.write(file)
    yield f"{recording.name}.nwb", sink.getvalue()
