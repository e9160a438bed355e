"""What is mutated, and how it is read: each door reads its files and says whether what it read may stand.

A door raises MvposeError or ValueError where it refuses, `Broken` where it took damage for data. What no reader can
tell (a digit of a focal length, a pixel of a video without checksums) passes, as long as it is whole and finite.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from mvpose.datasets.sample import Sample, SampleImage
from mvpose.datasets.sample_table import read_samples, write_samples
from mvpose.exchange.keypoints.contents import read_table
from mvpose.exchange.keypoints.openpose import numbered_files, read_openpose
from mvpose.footage.calibration import read_calibration
from mvpose.footage.catalogue import CatalogueConfig, find_captures, rig_digest
from mvpose.footage.catalogue_table import Catalogue, read_catalogue, write_catalogue
from mvpose.footage.video.frames import probe, read_frames
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from mvpose.run.verification import verify_run
from mvpose.skeleton import Skeleton
from tests.footage import archives, numbered_video
from tests.footage.calibration import rig_files
from tests.fuzz.mutations import CUT
from tests.fuzz.own_files import own_files_door
from tests.pipeline import coded_footage

NAMES = ["cam1", "cam2", "cam3"]
DATA = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data")


class Broken(Exception):
    """A damaged file was taken for a sound one."""


@dataclass(frozen=True)
class Door:
    """Files that are mutated one at a time, and what reads them; it is told what was done."""

    family: str
    files: list[str]
    read: Callable[[str], None]


def doors(folder: str) -> list[Door]:
    """Sound files of every kind below `folder`, each with its door."""
    return [
        *_calibrations(f"{folder}/calibrations"),
        *_videos(f"{folder}/videos"),
        *_runs(f"{folder}/runs"),
        *_tables(f"{folder}/tables"),
        *_keypoints(f"{folder}/keypoints"),
    ]


def _calibrations(folder: str) -> Iterator[Door]:
    intri, extri = rig_files.easymocap_texts(rig_files.ring(NAMES))
    texts = {
        "pose2sim/calib.toml": rig_files.toml_text(rig_files.ring(NAMES)),
        "caliscope/calib.toml": rig_files.toml_text(rig_files.ring(NAMES), nested=True),
        "qualisys/calib.qca.txt": rig_files.qualisys_text(rig_files.ring(NAMES)),
        "vicon/calib.xcp": rig_files.xcp_text(rig_files.ring(NAMES)),
        "panoptic/calib.json": rig_files.panoptic_text(rig_files.ring(NAMES)),
        "easymocap/intri.yml": intri,
        "easymocap/extri.yml": extri,
    }
    for file, text in texts.items():
        archives.write(f"{folder}/{file}", text)
    for file in texts:
        yield Door("calibration", [f"{folder}/{file}"], _calibration_door(f"{folder}/{file}"))


def _calibration_door(uri: str) -> Callable[[str], None]:
    def read(damage: str) -> None:
        rig = read_calibration(uri)
        pose = rig.camera_from_world
        for values in (rig.focal, rig.centre, rig.lens.coefficients, pose.rotation, pose.translation):
            _insist(bool(torch.isfinite(values).all()), "numbers that are not finite")
        eye = torch.eye(3, dtype=pose.rotation.dtype)
        _insist(bool((pose.rotation @ pose.rotation.mT - eye).abs().max() < 1e-3), "rotations that are none")
        _insist(bool((rig.focal > 0).all() and (rig.size > 0).all()), "no focal length or size")

    read("")
    return read


def _videos(folder: str) -> Iterator[Door]:
    os.makedirs(folder)
    coded_footage.write_video(f"{folder}/h264.mp4", 1, 30)
    for suffix in ("avi", "mkv", "ts", "mov"):
        archives.write_video(f"{folder}/mpeg4.{suffix}", num_frames=12)
    for suffix in ("png", "jpg"):
        os.makedirs(f"{folder}/{suffix}")
        for i in range(4):
            cv2.imwrite(f"{folder}/{suffix}/{i:04d}.{suffix}", numbered_video.numbered_image(i))
    for name in ("h264.mp4", "mpeg4.avi", "mpeg4.mkv", "mpeg4.ts", "mpeg4.mov"):
        yield Door("video", [f"{folder}/{name}"], _video_door(f"{folder}/{name}", checksums=False))
    for suffix in ("png", "jpg"):
        files = [f"{folder}/{suffix}/{file}" for file in sorted(os.listdir(f"{folder}/{suffix}"))]
        yield Door("video", files, _video_door(f"{folder}/{suffix}", checksums=suffix == "png"))


def _video_door(uri: str, checksums: bool) -> Callable[[str], None]:
    """A video that was cut off, or whose format has checksums, is refused or gives the frames that it had."""

    def frames() -> np.ndarray:
        video = probe(uri, "camera", 30.0)
        _insist(video.num_frames < 10_000, f"{video.num_frames} frames")
        chunks = list(read_frames(video, 0, video.num_frames))
        seen = np.concatenate(chunks)
        _insist(len(seen) == video.num_frames, f"{len(seen)} of {video.num_frames} frames")
        return seen

    sound = frames()

    def read(damage: str) -> None:
        seen = frames()
        # A transport stream and a Matroska file cut between two clusters state no count: what is left is a shorter one.
        if checksums or (damage == CUT and not uri.endswith((".ts", ".mkv"))):
            _insist(np.array_equal(seen, sound), f"{len(seen)} frames that are not the {len(sound)} there were")

    return read


def _runs(folder: str) -> Iterator[Door]:
    """A run with a clip that failed, whose every file is mutated."""
    for capture in ("short", "whole"):
        coded_footage.write_capture(f"{folder}/archive/{capture}", 12)
    video = f"{folder}/archive/short/videos/cam2.mp4"
    os.truncate(video, os.path.getsize(video) * 2 // 3)
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    engine = EngineConfig(local=True)
    output = f"{folder}/run"
    job = ReconstructJob(archive=f"{folder}/archive", output=output, clip_frames=6, detector=detector, engine=engine)
    reconstruct_archive(job)
    shutil.copytree(output, f"{folder}/before/run")
    seed = archives.write(f"{folder}/mine", "the user's own files, by the digest of these words")
    own_files = own_files_door(replace(job, output=f"{folder}/before/run"), seed, f"{folder}/scratch")
    files = [os.path.join(where, file) for where, _, files in os.walk(output) for file in files]
    sound = _results(output)

    def read(damage: str) -> None:
        if not verify_run(output).findings:
            for (name, was), (_, now) in zip(sound, _results(output), strict=True):
                _insist(was == now, f"verified, and its {name} are others than there were")

    # Most files are data files with a digest, and the few others are where damage can hide.
    own = [f for f in files if os.path.dirname(f) == output or "/failures/" in f]
    yield Door("run", sorted(files), read)
    yield Door("run", sorted(own), read)
    yield Door("own files", [seed], own_files)


def _results(output: str) -> list[tuple[str, object]]:
    """What a user takes from a run, in values that can be compared."""
    run = RunFolder(output)
    captures = run.catalogue().captures
    rows = [(f["capture"], f["start"], f["stop"], f["stage"], f["reason"]) for f in run.failures()]
    reported: list[tuple[str, object]] = [("failures", rows), ("captures", _capture_values(captures))]
    summary = run.summary()
    reported += [("counts", (summary.captures, summary.clips, summary.frames, len(summary.failures)))]
    reported += [("figures", json.dumps(summary.figures, default=dict, sort_keys=True))]
    for plan in run.plans():
        poses, keypoints, rig = run.poses(plan), run.keypoints(plan), run.rig(plan)
        assert poses is not None and keypoints is not None
        reported += [("poses", (poses.xyz.tobytes(), poses.confidence.tobytes(), poses.track_id.tobytes()))]
        reported += [("keypoints", (keypoints.xy.tobytes(), keypoints.confidence.tobytes())), ("rig", rig_digest(rig))]
    return reported


def _capture_values(captures: list) -> list:
    return [
        (c.capture_id, rig_digest(c.rig), [(v.camera, v.uri, v.fps, v.num_frames) for v in c.videos]) for c in captures
    ]


def _tables(folder: str) -> Iterator[Door]:
    archives.pose2sim(f"{folder}/archive/capture", NAMES)
    capture_toml = 'id = "one"\nfps = 30.0\nunit = "m"\n[videos.cam1]\nuri = "videos/cam1.mp4"\nfirst_frame = 1\n'
    capture_toml += '[videos.cam2]\nuri = "videos/cam2.mp4"\n'
    toml = archives.write(f"{folder}/archive/capture/capture.toml", capture_toml)
    found = find_captures(f"{folder}/archive", CatalogueConfig())
    assert len(found.captures) == 1, found.problems

    def index(damage: str) -> None:
        for capture in find_captures(f"{folder}/archive", CatalogueConfig()).captures:
            _insist(all(v.uri.startswith(f"{folder}/archive/") for v in capture.videos), "footage outside the archive")

    yield Door("capture.toml", [toml], index)
    catalogue = f"{folder}/catalogue.parquet"
    captures = [replace(found.captures[0], capture_id=name) for name in NAMES]
    write_catalogue(catalogue, Catalogue(captures, found.problems, ["a note"]))
    was = _capture_values(read_catalogue(catalogue).captures)

    def read(damage: str) -> None:
        _insist(_capture_values(read_catalogue(catalogue).captures) == was, "other captures than there were")

    yield Door("catalogue", [catalogue], read)
    yield _samples(f"{folder}/samples.parquet")


def _samples(uri: str) -> Door:
    rig = coded_footage.scene(4).rig
    skeleton = Skeleton("two", ("a", "b"), (("a", "b"),))
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            capture_id="capture", frame=i, position=i, person=0, subject="s", action="a", split="train", damaged=False,
            rig=rig, images=tuple(SampleImage("", -1, rng.bytes(200)) for _ in rig.names),
            xyz=rng.normal(size=(2, 3)),
            visible=np.ones((len(rig), 2), bool), box=rng.uniform(0, 50, (len(rig), 4)), skeleton=skeleton,
        )
        for i in range(20)
    ]  # fmt: skip
    write_samples(uri, samples, skeleton, "fuzz")

    def values() -> list:
        return [
            (s.capture_id, s.frame, s.split, s.xyz.tobytes(), rig_digest(s.rig), s.images) for s in read_samples(uri)
        ]

    was = values()
    return Door("samples", [uri], lambda damage: _insist(values() == was, "other samples than there were"))


def _keypoints(folder: str) -> Iterator[Door]:
    skeleton = coded_footage.scene(4).skeleton
    numbers = np.random.default_rng(0).uniform(1, 50, (3, len(skeleton.joints), 3)).round(3)
    numbers[..., 2] /= 100  # a confidence
    person = {"people": [{"pose_keypoints_2d": row.ravel().tolist()} for row in numbers]}
    for i in range(3):
        archives.write(f"{folder}/openpose/view_{i:012d}_keypoints.json", json.dumps(person))
    files = [f"{folder}/openpose/{file}" for file in sorted(os.listdir(f"{folder}/openpose"))]
    yield Door("keypoints", files, _keypoints_door(f"{folder}/openpose", skeleton))
    for file in sorted(os.listdir(DATA)):
        if file.endswith(".h5"):
            with open(os.path.join(DATA, file), "rb") as data:
                uri = archives.write(f"{folder}/{file}", data.read())
            yield Door("keypoints", [uri], _keypoints_door(uri, skeleton))
    sleap = f"{folder}/sleap.h5"
    _write_sleap(sleap)
    yield Door("keypoints", [sleap], _keypoints_door(sleap, skeleton))


def _keypoints_door(uri: str, skeleton: Skeleton) -> Callable[[str], None]:
    def read(damage: str) -> None:
        folder = os.path.isdir(uri)
        view = read_openpose(numbered_files(uri), range(3), skeleton) if folder else read_table(uri)
        found = view.confidence > 0
        _insist(bool(np.isfinite(view.xy[found]).all()), "joints that are not finite")
        _insist(bool((view.confidence >= 0).all() and (view.confidence <= 1).all()), "confidence beyond 0..1")
        _insist(view.xy.shape == (*view.confidence.shape, 2), "shapes that do not fit")

    read("")
    return read


def _write_sleap(uri: str) -> None:
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(uri, "w") as file:
        file["node_names"] = [b"nose", b"tail"]
        file.create_dataset("tracks", data=rng.uniform(0, 99, (2, 2, 2, 8)), compression="gzip")
        file.create_dataset("point_scores", data=rng.uniform(0, 1, (2, 2, 8)), compression="gzip")


def _insist(sound: bool, otherwise: str) -> None:
    if not sound:
        raise Broken(f"read as if sound: {otherwise}")
