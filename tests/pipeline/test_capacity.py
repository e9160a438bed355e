"""Whether a cluster can give a pool, by laws and by the cases that hang Ray."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ConfigError
from mvpose.pipeline.capacity import ClusterNode, Need, pool_limits
from mvpose.pipeline.engine import EngineConfig

HEAD = ClusterNode({"CPU": 1.0})
GPU_NODE = ClusterNode({"CPU": 8.0, "GPU": 1.0}, {"kind": "gpu"})
CPU_NODE = ClusterNode({"CPU": 16.0}, {"kind": "cpu"})
MIXED = [HEAD, GPU_NODE, GPU_NODE, CPU_NODE]


@given(
    cpus=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    per_worker=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    maximum=st.none() | st.integers(1, 12),
)
def test_a_pool_that_is_granted_fits_node_by_node_and_leaves_a_cpu(cpus, per_worker, maximum):
    nodes = [ClusterNode({"CPU": float(c)}) for c in cpus]
    try:
        minimum, largest = pool_limits(nodes, Need({"CPU": per_worker}), None, maximum)
    except ConfigError:
        room = sum(int(c // per_worker) for c in cpus)
        wanted = 1 if maximum is None else maximum
        assert wanted > room or wanted * per_worker + 1 > sum(cpus)
        return
    assert minimum == largest == (maximum or largest) >= 1
    assert largest <= sum(int(c // per_worker) for c in cpus)
    assert largest * per_worker + 1 <= sum(cpus)


def test_a_quarter_of_a_gpu_puts_four_workers_on_each_gpu():
    need = EngineConfig(address="auto", gpus=0.25, cpus_per_worker=2.0).need(with_model=True)
    assert pool_limits(MIXED, need, None, None) == (8, 8)


def test_stages_without_a_model_ask_for_no_gpu_and_stay_on_their_nodes():
    config = EngineConfig(address="auto", gpus=1.0, model_nodes="kind=gpu", other_nodes="kind=cpu")
    assert pool_limits(MIXED, config.need(with_model=True), None, None) == (2, 2)
    assert pool_limits(MIXED, config.need(with_model=False), None, None) == (16, 16)


def test_a_custom_resource_that_no_node_has_is_named():
    need = EngineConfig(address="auto", model_resources={"nvdec": 1.0}).need(with_model=True)
    with pytest.raises(ConfigError, match=r"no node .* has room for a worker, which needs 1 CPU, 1 nvdec; .*16 CPU"):
        pool_limits(MIXED, need, None, None)


def test_a_worker_larger_than_every_node_is_refused_though_the_cluster_has_the_cpus():
    with pytest.raises(ConfigError, match="no node"):
        pool_limits([ClusterNode({"CPU": 4.0})] * 4, Need({"CPU": 8.0}), None, 1)


def test_a_growing_pool_needs_room_for_its_least_size_only():
    need = Need({"CPU": 2.0})
    assert pool_limits([HEAD, ClusterNode({"CPU": 4.0})], need, 2, 50) == (2, 50)
    with pytest.raises(ConfigError, match="room for 2"):
        pool_limits([HEAD, ClusterNode({"CPU": 4.0})], need, 3, 50)


def test_a_pool_may_begin_before_any_node_is_there():
    assert pool_limits([HEAD], Need({"CPU": 1.0, "GPU": 1.0}), 0, 6) == (1, 6)


def test_a_pool_that_would_grow_over_every_cpu_is_refused():
    with pytest.raises(ConfigError, match="would take every CPU"):
        pool_limits([ClusterNode({"CPU": 4.0})] * 2, Need({"CPU": 1.0}), 1, 50)


@pytest.mark.parametrize(
    "wrong", [{"min_workers": 2}, {"min_workers": 3, "workers": 2}, {"model_nodes": "gpu"}, {"clip_timeout_s": 0.0}]
)
def test_settings_that_contradict_each_other_are_a_sentence(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EngineConfig(**wrong)
