"""What N nodes would make of an archive, from the times of one worker: a model, with all that it assumes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Times of one worker, and what bounds many."""

    decode_s: float
    """Core-seconds a camera-frame."""
    detect_s: float
    """Core-seconds a camera-frame."""
    rest_s: float
    """Core-seconds a frame of all cameras for all other stages and the storing."""
    ray_s_per_clip: float
    """What Ray adds to each clip and stage of a worker."""
    start_s: float
    """From the start of the job to its first clip."""
    cameras: int
    clip_frames: int
    stages: int
    bytes_per_camera_frame: float
    workers_per_node: int = 16
    storage_bytes_per_s: float = 2.5e9
    """That all nodes together read."""
    tasks_per_s: float = 100.0
    """That one driver hands out: 10 ms a task (measured with Ray 2.60)."""

    def bounds(self, nodes: int) -> dict[str, float]:
        """Frames (of all cameras) a second that each part could keep up with."""
        own = self.cameras * (self.decode_s + self.detect_s) + self.rest_s
        clip_s = own * self.clip_frames + self.ray_s_per_clip * self.stages
        return {
            "workers": nodes * self.workers_per_node * self.clip_frames / clip_s,
            "storage": self.storage_bytes_per_s / (self.cameras * self.bytes_per_camera_frame),
            "driver": self.tasks_per_s * self.clip_frames / self.stages,
        }

    def frames_per_s(self, nodes: int) -> tuple[float, str]:
        """Frames a second in the long run, and which part sets it."""
        bounds = self.bounds(nodes)
        slowest = min(bounds, key=lambda part: bounds[part])
        return bounds[slowest], slowest

    def hours(self, nodes: int, frames: float) -> float:
        """For so many frames, start included; the last clips of an archive leave workers idle, which is left out."""
        return (self.start_s + frames / self.frames_per_s(nodes)[0]) / 3600

    def assumptions(self) -> list[str]:
        """In words."""
        return [
            f"decoding {1e3 * self.decode_s:.2f} ms and detecting {1e3 * self.detect_s:.1f} ms a camera-frame and core",
            f"other stages {1e3 * self.rest_s:.2f} ms a frame of {self.cameras} cameras",
            f"Ray {self.ray_s_per_clip:.3f} s a clip and stage; {self.stages} stages",
            f"clips of {self.clip_frames} frames",
            f"start {self.start_s:.1f} s; {self.workers_per_node} workers a node, each as fast as the one measured",
            f"storage {self.storage_bytes_per_s / 1e9:.1f} GB/s for all, {self.bytes_per_camera_frame / 1e3:.1f} kB a "
            "camera-frame",
            f"one driver hands out {self.tasks_per_s:g} tasks a second; more clips than workers",
        ]
