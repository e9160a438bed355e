import json

import pytest
import torch

from mvpose.benchmarks.contenders import CONTENDERS
from mvpose.benchmarks.drawn_observations import observe
from mvpose.benchmarks.solvers import TriangulationBenchmark, run


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    file = tmp_path_factory.mktemp("benchmark") / "figures.json"
    config = TriangulationBenchmark(points=(60,), views=(4,), dtypes=("float64",), seconds=0.0, json=str(file))
    returned = run(config)
    written = json.loads(file.read_text())
    assert [m["contender"] for m in written["measurements"]] == [m["contender"] for m in returned["measurements"]]
    return returned


def test_every_way_that_is_installed_is_measured_clean_and_with_outliers(figures):
    here = {c.name for c in CONTENDERS if c.installed}
    for share in (0.0, 0.1):
        assert {m["contender"] for m in figures["measurements"] if m["outlier_share"] == share} == here


def test_all_ways_err_alike_without_outliers_and_the_robust_one_less_with_them(figures):
    def median(name: str, share: float) -> float:
        return next(
            m["median_mm"] for m in figures["measurements"] if m["contender"] == name and m["outlier_share"] == share
        )

    svd = median("torch.linalg.svd", 0.0)
    for contender in CONTENDERS:
        if contender.installed and not contender.two_views:
            assert median(contender.name, 0.0) == pytest.approx(svd, rel=0.25)
    assert median("mvpose robust", 0.1) < median("torch.linalg.svd", 0.1)


def test_rates_are_positive_and_ratios_are_to_svd(figures):
    for share in (0.0, 0.1):
        rows = {m["contender"]: m for m in figures["measurements"] if m["outlier_share"] == share}
        svd = rows["torch.linalg.svd"]["points_per_s"]
        for row in rows.values():
            assert row["points_per_s"] > 0
            assert row["ratio"] == pytest.approx(row["points_per_s"] / svd)
    assert figures["machine"]["copy_gigabytes_per_s"] > 0.1


def test_the_table_names_the_ways_and_what_is_missing(capsys):
    run(TriangulationBenchmark(points=(20,), views=(4,), dtypes=("float32",), seconds=0.0, contenders=("fused",)))
    printed = capsys.readouterr().out
    assert "mvpose sii, fused" in printed
    assert "torch.linalg.svd" not in printed
    assert ("aniposelib" in printed) == any(not c.installed for c in CONTENDERS)


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="not available"):
        run(TriangulationBenchmark(device="tpu"))


def test_observations_are_as_noisy_and_as_wrong_as_asked_for():
    settings = {"dtype": torch.float64, "device": "cpu", "outlier_px": 150.0}
    exact = observe(4000, 5, noise_px=0.0, outlier_share=0.0, **settings)
    noisy = observe(4000, 5, noise_px=2.0, outlier_share=0.0, **settings)
    wrong = observe(4000, 5, noise_px=0.0, outlier_share=0.1, **settings)
    projected, seen = exact.rig.project(exact.points_world.double())
    assert seen.all()
    assert (projected.transpose(0, 1) - exact.pixels).abs().max() < 1e-2
    assert float((noisy.pixels - exact.pixels).std()) == pytest.approx(2.0, rel=0.03)
    off = (wrong.pixels - exact.pixels).norm(dim=-1)
    assert float((off > 1.0).double().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(off.max()) == pytest.approx(150.0, rel=1e-3)
