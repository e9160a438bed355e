import pytest

from mvpose.benchmarks.scale import ScaleBenchmark, run
from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.benchmarks.throughput import Throughput
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder

MODEL = Throughput(
    decode_s=0.005, detect_s=0.1, rest_s=0.01, ray_s_per_clip=0.05, start_s=13.0, cameras=4, clip_frames=300,
    bytes_per_camera_frame=33e3,
)  # fmt: skip


def test_the_stand_in_s_person_is_reconstructed_where_she_stands(tmp_path):
    archive = write_archive(str(tmp_path / "footage"), 2, 6, (320, 180))
    job = ReconstructJob(
        archive=archive, output=str(tmp_path / "run"), clip_frames=3, detector=DetectorConfig(detector=STAND_IN),
        engine=EngineConfig(local=True),
    )  # fmt: skip
    summary = reconstruct_archive(job)
    assert summary.failures == () and summary.frames == 12
    for figures in summary.figures.values():
        assert figures["body_used_mean_px"] < 0.5 and figures["body_reconstructed_share"] == 1.0
    assert len(RunFolder(job.output).plans()) == 2


def test_more_nodes_are_faster_until_something_that_they_share_is_the_bound():
    rates = [MODEL.frames_per_s(nodes) for nodes in (1, 2, 10_000)]
    assert rates[1][0] == 2 * rates[0][0] and rates[0][1] == "workers"
    assert rates[2][1] != "workers" and rates[2][0] == min(MODEL.bounds(1)[part] for part in ("storage", "driver"))


def test_a_node_s_rate_is_its_workers_over_the_time_of_a_clip():
    clip_s = 300 * (4 * 0.105 + 0.01) + 0.05
    assert abs(MODEL.frames_per_s(1)[0] - 16 * 300 / clip_s) < 1e-9
    assert abs(MODEL.hours(1, 3600 * MODEL.frames_per_s(1)[0]) - (1 + 13 / 3600)) < 1e-9


@pytest.mark.slow
def test_the_benchmark_prints_costs_and_a_model_with_its_assumptions(capsys):
    sizes = {"width": 160, "height": 90, "clip_frames": 6, "lengths": (1, 2), "plan_clips": (100,)}
    figures = run(ScaleBenchmark(**sizes, ray_clips=(0, 0), memory_minutes=()))
    assert figures["cost per frame, longest over shortest archive"] > 0
    assert {"plan of 100 clips: s", "end of 100 clips: s", "resume of 100 clips: peak MiB"} <= figures.keys()
    reported = capsys.readouterr().out
    assert "A model, not a measurement" in reported and "storage 2.5 GB/s" in reported
