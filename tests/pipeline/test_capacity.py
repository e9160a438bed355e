"""Whether a cluster can give a pool, by laws and by the cases that hang Ray."""

from itertools import product

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


@given(
    cpus=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]), min_size=1, max_size=3),
    labelled=st.lists(st.booleans(), min_size=3, max_size=3),
    per_worker=st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    maximum=st.none() | st.integers(1, 8),
)
def test_wherever_ray_places_the_workers_a_task_of_the_stages_over_captures_can_run(
    cpus, labelled, per_worker, maximum
):
    """Fails if CPUs are summed over nodes: half of one is left on each of two, and nothing runs there."""
    nodes = [ClusterNode({"CPU": c}, {"kind": "other"} if own else {}) for c, own in zip(cpus, labelled, strict=False)]
    need, finisher = Need({"CPU": per_worker}), Need({"CPU": 1.0}, {"kind": "other"})
    placed = product(*(range(need.fits(node) + 1) for node in nodes))
    left = [
        any(finisher.fits(with_cpus(node, -per_worker * n)) for node, n in zip(nodes, numbers, strict=True))
        for numbers in placed
        if sum(numbers) == (maximum or 1)
    ]
    try:
        _, largest = pool_limits(nodes, need, None, maximum, finisher)
    except ConfigError:
        assert not left or not all(left)
        return
    if maximum is None:
        placed = product(*(range(need.fits(node) + 1) for node in nodes))
        left = [
            any(finisher.fits(with_cpus(node, -per_worker * n)) for node, n in zip(nodes, numbers, strict=True))
            for numbers in placed
            if sum(numbers) == largest
        ]
    assert left and all(left)


def with_cpus(node: ClusterNode, more: float) -> ClusterNode:
    return ClusterNode({"CPU": node.resources["CPU"] + more}, node.labels)


def test_a_pool_of_default_size_leaves_a_sixteenth_of_the_cpus_to_the_stages_over_captures():
    nodes = [ClusterNode({"CPU": 16.0})] * 4
    assert pool_limits(nodes, Need({"CPU": 1.0}), None, None, Need({"CPU": 1.0})) == (60, 60)
    assert pool_limits(nodes, Need({"CPU": 1.0}), None, 63, Need({"CPU": 1.0})) == (63, 63), "a number is meant"
    assert pool_limits(nodes, Need({"CPU": 1.0}), None, None) == (63, 63), "nothing else runs beside this pool"


def test_nodes_for_the_stages_over_captures_may_come_later_only_if_the_pool_grows():
    need, finisher = Need({"CPU": 1.0}), Need({"CPU": 1.0}, {"kind": "cpu"})
    with pytest.raises(ConfigError, match=r"no node .* stages over captures, which need 1 CPU, label kind=cpu"):
        pool_limits([HEAD, GPU_NODE], need, None, 2, finisher)
    assert pool_limits([HEAD], need, 0, 6, finisher) == (1, 6)


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
