"""Two processes of a training against one, in float64 and without Ray: gradients, weights, validation."""

import pytest
import torch

from mvpose.training.loop import Process
from tests.training.two_processes import IN_PARTS, UNEVEN, run_both, trained_steps, validated


@pytest.fixture(scope="module")
def both(table, tmp_path_factory) -> list[dict]:
    return run_both(table, str(tmp_path_factory.mktemp("two")))


@pytest.mark.parametrize("kind", [UNEVEN, IN_PARTS])
def test_two_processes_move_the_weights_as_one_does(table, both, kind):
    """To 1e-12, however unevenly labels are spread over the processes, and with a batch in parts.

    Fails if gradients are not exchanged, or before the last part, or if each process divides by its own labels.
    """
    alone, (first, second) = trained_steps(table, Process(), kind), (found[kind] for found in both)
    assert alone.keys() == first.keys() == second.keys()
    assert sum(name.startswith("gradient/") for name in alone) > 50
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        error = (first[name] - expected).norm() / expected.norm().clamp_min(1e-6)
        assert expected.dtype == torch.float64 and error <= 1e-12, (name, float(error))


def test_validation_is_over_the_samples_of_both_processes(table, both):
    """With the weights of the first. Fails if sums are not added up, or each process judges its own network."""
    alone, (first, second) = validated(table, Process()), (found["validated"] for found in both)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)


def test_the_figures_of_a_log_line_are_of_every_worker(both):
    """Fails if only the first worker's machine is watched."""
    first, second = (found["system"] for found in both)
    assert first == second
    memory = [first[f"system/worker_{rank}/process_memory_megabytes"] for rank in range(2)]
    assert len(set(memory)) == 2 and min(memory) > 0
    assert {name.partition("/")[0] for name in first} == {"system"}
