"""The models' benchmark at toy sizes: every figure is there and follows from the networks."""

import json

import pytest

from mvpose.benchmarks.model_cost import METHODS, ModelsBenchmark, run
from mvpose.errors import ConfigError


@pytest.mark.slow
def test_every_method_has_a_cost_and_every_part_a_ratio(tmp_path):
    config = ModelsBenchmark(
        depths=(18,), batches=(1,), views=2, side=128, voxels=32, rounds=1, json=str(tmp_path / "costs.json")
    )
    figures = run(config)
    costs = {cost["method"]: cost for cost in figures["costs"]}
    assert tuple(costs) == METHODS
    assert costs["baseline"]["ratio"] == 1.0
    assert costs["ransac"]["parameters"] == costs["baseline"]["parameters"] < costs["canonical_fusion"]["parameters"]
    assert costs["volumetric"]["gigaflops_per_frame"] > costs["algebraic"]["gigaflops_per_frame"] > 1
    assert all(cost["ms_per_frame"] > 0 and cost["peak_megabytes"] >= 0 for cost in costs.values())
    assert [(p["part"], p["batch"]) for p in figures["parts"]] == [("unprojection", 1), ("triangulation", 1)]
    assert json.loads((tmp_path / "costs.json").read_text())["costs"] == figures["costs"]


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="octopus"):
        run(ModelsBenchmark(methods=("octopus",), batches=(1,)))
