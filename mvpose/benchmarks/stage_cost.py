"""CPU time of the stages after 2D detection on one core: of a clip, of a new process, and of captures of one instant.

Measured in new processes on 2D joints made from `scenes`, without the bookkeeping of a job, with modules compiled as an
installation has them, and with the settings of memory that a job's workers have. `--against` names a checkout of
another version of mvpose, which takes turns with this one: on a shared machine, only ratios in one run are reliable,
and of one version the minimum.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvpose.geometry.camera import CameraRig
    from mvpose.records import Keypoints2D

FPS, APART_M, MISSING = 30.0, 1.2, 0.1


@dataclass(frozen=True, kw_only=True)
class StagesBenchmark:
    """CPU time per frame of the stages after 2D detection, on one core; optionally against another checkout."""

    frames: int = 300
    """Frames of the clip, in four views."""
    people: int = 3
    captures: int = 1000
    """Captures of a single instant."""
    rounds: int = 3
    """New processes per version, in turns."""
    against: str | None = None
    """Folder of another checkout of mvpose, to compare with."""
    json: str | None = None
    """Output file for the figures."""


def run(config: StagesBenchmark) -> dict[str, float]:
    """Print one line per figure, the minimum over rounds; return those of this version, and ratios, by name.

    Of instants and of ratios, the median.
    """
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    versions = {"": own, **({"other: ": config.against} if config.against else {})}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as bytecode:
        for folder in versions.values():
            _in_new_process(replace(config, frames=2, captures=1), folder, bytecode)
        for _ in range(config.rounds):
            for name, folder in versions.items():
                found[name].append(_in_new_process(config, folder, bytecode))
    figures = {
        name + of: (min if of.startswith(("clip", "start")) else statistics.median)(one[of] for one in rounds)
        for name, rounds in found.items()
        for of in rounds[0]
    }
    if config.against:
        ratios = {of: [a[of] / b[of] for a, b in zip(*found.values(), strict=True)] for of in found[""][0]}
        figures |= {f"ratio: {of}": statistics.median(values) for of, values in ratios.items()}
    for name, value in figures.items():
        print(f"{name:48} {value:10.3f}", flush=True)
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _in_new_process(config: StagesBenchmark, checkout: str, bytecode: str) -> dict[str, float]:
    """Figures of the mvpose in a checkout, measured by this file; bytecode is kept in a folder of its own."""
    from mvpose.pipeline.engine import WORKER_ENVIRONMENT

    own = {"PYTHONPATH": checkout, "PYTHONPYCACHEPREFIX": bytecode, "MKL_NUM_THREADS": "1"}
    environment = {**os.environ, **WORKER_ENVIRONMENT, **own}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-P", os.path.abspath(__file__), json.dumps(asdict(config))]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measured(config: StagesBenchmark) -> dict[str, float]:
    """The figures, in ms and s of CPU time of this process."""
    import torch  # noqa: F401 (its import is not counted)

    started = time.process_time()
    import mvpose.pipeline.stages  # noqa: F401 (as a worker does)

    imports_s = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        given = _Recordings(config, folder)
        rounds = [given.seconds(slice(0, config.frames)) for _ in range(4)]
        instants = [given.seconds(slice(i % config.frames, i % config.frames + 1)) for i in range(config.captures)]
    warm = {stage: min(one[stage] for one in rounds[1:]) for stage in rounds[0]}
    job = ("read", "observe", "associate", "link", "triangulate", "write")
    figures = {f"clip: {stage}, ms per frame": 1e3 * seconds / config.frames for stage, seconds in warm.items()}
    figures["clip: read to write, ms per frame"] = 1e3 * sum(warm[stage] for stage in job) / config.frames
    figures["start: first clip over a warm one, s"] = sum(rounds[0].values()) - sum(warm.values())
    figures["start: imports after torch, s"] = imports_s
    if instants:
        total = {stage: sum(one[stage] for one in instants) for stage in warm}
        rest = sum(seconds for stage, seconds in total.items() if stage != "quality")
        figures["instants: all but quality, ms per capture"] = 1e3 * rest / config.captures
        figures["instants: quality, ms per capture"] = 1e3 * total["quality"] / config.captures
        figures["instants: captures per s"] = config.captures / (rest + total["quality"])
        figures["instants: quality over the rest"] = total["quality"] / rest
    return figures


class _Recordings:
    """2D joints of people who walk in circles, 10 % of them missing, and what each stage takes for some frames."""

    def __init__(self, config: StagesBenchmark, folder: str) -> None:
        import numpy as np

        from mvpose import scenes
        from mvpose.reconstruction.clip import ReconstructionConfig
        from mvpose.records import Kind
        from mvpose.run.store import ClipStore

        walkers = [scenes.ring4(seed=seed, num_frames=config.frames) for seed in range(config.people)]
        shift = APART_M * (np.arange(config.people) - (config.people - 1) / 2)
        joints = np.concatenate([w.joints + s * np.eye(3)[0] for w, s in zip(walkers, shift, strict=True)], axis=1)
        seen = np.ones((4, *joints.shape[:3]), bool)
        scene = replace(walkers[0], joints=joints, seen=seen, detected=seen[..., 0])
        found = scene.keypoints()
        gone = np.random.default_rng(0).random(found.confidence.shape) < MISSING
        self.keypoints: Keypoints2D = replace(
            found,
            xy=np.where(gone[..., None], np.nan, found.xy).astype(np.float32),
            confidence=np.where(gone, 0.0, found.confidence).astype(np.float32),
        )
        self.rig: CameraRig = scene.rig
        self.config, self.people = ReconstructionConfig(), config.people
        self.store = ClipStore(folder, Kind.KEYPOINTS)

    def seconds(self, frames: slice) -> dict[str, float]:
        """CPU seconds of each stage on these frames as one capture."""
        from mvpose.quality.quality import quality
        from mvpose.reconstruction import clip
        from mvpose.reconstruction.identities import identify, tracklets_of
        from mvpose.reconstruction.view_errors import keypoints_at
        from mvpose.records import Clip
        from mvpose.run.pose_tables import TableInfo, keypoints_from_table, keypoints_to_table, poses_to_table
        from mvpose.run.store import parquet_bytes

        config, rig, given = self.config, self.rig, keypoints_at(self.keypoints, frames)
        info = TableInfo(
            capture_id="a", start=0, stop=frames.stop - frames.start, fps=FPS, cameras=rig.names,
            skeleton=given.skeleton, fingerprint="",
        )  # fmt: skip
        commit = self.store.commit_table(Clip("a", frames.start, frames.stop), "", keypoints_to_table(given, info), {})
        laps = [("", time.process_time())]

        def lap(stage: str) -> None:
            laps.append((stage, time.process_time()))

        keypoints, _ = keypoints_from_table(self.store.read(commit))
        lap("read")
        seen = clip.observe(keypoints, rig, config.min_confidence)
        lap("observe")
        people = clip.associate(seen, rig, config.expected_error, clip.WIDEST * config.max_error)
        lap("associate")
        places = clip.strongest(clip.link(people, FPS, config.max_gap_s), people, self.people)
        lap("link")
        (pixels, weights), sizes = seen.of(places), seen.sizes(places)
        clip.triangulate_joints(pixels, weights, sizes, rig.projections, config.agreement(FPS))
        lap("triangulate")
        poses = clip.reconstruct(keypoints, rig, config, FPS, self.people)
        laps.append(("", time.process_time()))
        parquet_bytes(poses_to_table(poses, info))
        lap("write")
        identify([tracklets_of(poses, 0)], FPS, self.people, config.max_gap_s, len(poses.xyz))
        lap("identities")
        quality(poses, keypoints, rig, FPS, config)
        lap("quality")
        return {stage: at - laps[i][1] for i, (stage, at) in enumerate(laps[1:]) if stage}


if __name__ == "__main__":
    print(json.dumps(measured(StagesBenchmark(**json.loads(sys.argv[1])))))
