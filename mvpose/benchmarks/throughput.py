"""Model of the throughput of N nodes on an archive, from the times of one worker, with all its assumptions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Times of one worker, and the limits of many."""

    decode_s: float
    """Core-seconds per camera-frame."""
    detect_s: float
    """Core-seconds per camera-frame."""
    rest_s: float
    """Core-seconds per frame of all cameras for all other stages and for storing."""
    ray_s_per_clip: float
    """Overhead of Ray per clip of a worker."""
    start_s: float
    """From the start of the job to its first clip."""
    cameras: int
    clip_frames: int
    bytes_per_camera_frame: float
    workers_per_node: int = 16
    storage_bytes_per_s: float = 2.5e9
    """Read rate of all nodes together."""
    tasks_per_s: float = 100.0
    """Tasks scheduled by one driver: 10 ms per task (measured with Ray 2.60)."""

    def bounds(self, nodes: int) -> dict[str, float]:
        """Maximum rate of each part, in frames (of all cameras) per second."""
        own = self.cameras * (self.decode_s + self.detect_s) + self.rest_s
        clip_s = own * self.clip_frames + self.ray_s_per_clip
        return {
            "workers": nodes * self.workers_per_node * self.clip_frames / clip_s,
            "storage": self.storage_bytes_per_s / (self.cameras * self.bytes_per_camera_frame),
            "driver": self.tasks_per_s * self.clip_frames,
        }

    def frames_per_s(self, nodes: int) -> tuple[float, str]:
        """Sustained frames per second, and the part that limits it."""
        bounds = self.bounds(nodes)
        slowest = min(bounds, key=lambda part: bounds[part])
        return bounds[slowest], slowest

    def hours(self, nodes: int, frames: float) -> float:
        """Hours for a number of frames with start-up; workers that idle at the last clips of an archive are ignored."""
        return (self.start_s + frames / self.frames_per_s(nodes)[0]) / 3600

    def assumptions(self) -> list[str]:
        """The assumptions as sentences."""
        return [
            f"per camera-frame and core: decoding {1e3 * self.decode_s:.2f} ms, detecting {1e3 * self.detect_s:.1f} ms",
            f"other stages {1e3 * self.rest_s:.2f} ms per frame of {self.cameras} cameras",
            f"Ray {self.ray_s_per_clip:.3f} s per clip, a task each",
            f"clips of {self.clip_frames} frames",
            f"start {self.start_s:.1f} s; {self.workers_per_node} workers per node, each as fast as the measured one",
            f"storage {self.storage_bytes_per_s / 1e9:.1f} GB/s for all, {self.bytes_per_camera_frame / 1e3:.1f} kB "
            "per camera-frame",
            f"one driver schedules {self.tasks_per_s:g} tasks/s; more clips than workers",
        ]
