"""What the workers of `test_placement.py` do; apart from it, so that they import little."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from mvpose.pipeline.worker import Outcome
    from mvpose.records import Task

GIVEN = ("CPU", "GPU", "hall")


def given() -> dict:
    """What Ray gives this process, and the label of its node."""
    context = ray.get_runtime_context()
    amounts = context.get_assigned_resources()
    return {
        **{name: amounts.get(name, 0.0) for name in GIVEN},
        "kind": context.get_node_labels().get("kind"),
        "gpus": len(context.get_accelerator_ids()["GPU"]),
    }


class Placed:
    """A stage that leaves what its worker was given."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, task: Task) -> Outcome:
        import pyarrow as pa

        from mvpose.pipeline.worker import Outcome

        with open(os.path.join(self.folder, f"{task.clip.start}.json"), "w") as file:
            json.dump(given(), file)
        return Outcome(pa.table({"frame": [0]}))


def train_placed(settings: dict) -> None:
    """The worker function of a training that leaves the same."""
    import ray.train

    with open(os.path.join(settings["folder"], f"{ray.train.get_context().get_world_rank()}.json"), "w") as file:
        json.dump(given(), file)
