"""Pose2Sim from videos to triangulated joints. Run by the Python of its own environment, never imported by mvpose:

    python pose2sim_job.py FOLDER DETECTOR.onnx WIDTH HEIGHT JOINTS.onnx WIDTH HEIGHT WORKERS

FOLDER has `videos/` and `calibration/`. WORKERS is `auto`, its default (one thread per video, as many as it finds
useful), or 1. Everything else is as in its demo, but nothing is drawn; the runtime is its default, OpenVINO on a CPU.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files


def main(folder: str, detector: str, detector_size: list[int], joints: str, joints_size: list[int], workers: str):
    """Estimate the 2D pose, associate the persons of the views, triangulate."""
    from Pose2Sim.Pose2Sim import Pose2SimPipeline  # pyright: ignore[reportMissingImports]

    with open(os.path.join(folder, "Config.toml"), "w") as file:
        file.write((files("Pose2Sim") / "Demo_SinglePerson" / "Config.toml").read_text())
    networks = {
        "det_class": "YOLOX",
        "det_model": detector,
        "det_input_size": detector_size,
        "pose_class": "RTMPose",
        "pose_model": joints,
        "pose_input_size": joints_size,
    }
    pose = {"mode": str(networks), "display_detection": False, "save_video": "none"}
    pose |= {"parallel_workers_pose": workers if workers == "auto" else int(workers)}
    pipeline = Pose2SimPipeline({"project": {"project_dir": folder}, "pose": pose})
    for step in (pipeline.poseEstimation, pipeline.personAssociation, pipeline.triangulation):
        print(f"step {step.__name__}", flush=True)
        step()


if __name__ == "__main__":
    place, boxes, box_width, box_height, network, width, height, number = sys.argv[1:]
    main(place, boxes, [int(box_width), int(box_height)], network, [int(width), int(height)], number)
