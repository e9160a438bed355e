"""The parts of `mvpose benchmark gpu`, on the CPU."""

import time

import pytest

from mvpose.benchmarks import gpu
from mvpose.benchmarks.gpu import ON_DEVICE, ON_HOST, ONE_CORE, GpuBenchmark, Spent
from mvpose.errors import ConfigError
from mvpose.footage.archive_settings import CatalogueConfig


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_what_is_watched_counts_and_nothing_else():
    spent = Spent()
    spent.timed(burn)(0.05)
    burn(0.2)
    assert 0.05 <= spent.cpu < 0.2 and spent.wall >= 0.05


def test_every_part_is_measured_and_the_table_ends_with_the_cpus_of_a_gpu(footage, weights, monkeypatch, capsys):
    # Fails if decoding or networks are counted as the host's own work: those take 20 ms and more for a camera's frame.
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    monkeypatch.setattr(gpu, "_jobs", lambda config: iter(()))
    monkeypatch.setattr(gpu, "FRAMES", 2)
    archive, catalogue = f"{footage}/Demo_SinglePerson", CatalogueConfig(calibration="Calib_scene.toml")
    figures = gpu.run(
        GpuBenchmark(
            archive=archive, catalogue=catalogue, device="cpu", batches=(2,), clip_frames=4, points=1000, seconds=0.0
        )
    )
    assert all(value > 0 for name, value in figures.items() if name != ON_HOST)
    assert abs(figures[ON_HOST]) < figures[ON_DEVICE] / 4
    assert {"upload", "crop on the device", "joint network, float32, batch 2", "copy"} <= set(figures)
    last = capsys.readouterr().out.splitlines()[-1]
    expected = (figures[ONE_CORE] + figures[ON_HOST]) / figures[ON_DEVICE]
    assert last.startswith("CPUs that keep one GPU busy") and float(last.split()[-1]) == pytest.approx(
        expected, abs=1e-3
    )


def test_without_a_gpu_it_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="torch finds no CUDA device"):
        gpu.run(GpuBenchmark(archive=str(tmp_path)))
