"""A network that notes what each worker sees in each step, and waits at some of them for another number of workers."""

import hashlib
import json
import os
import time

import numpy as np
import torch
import torch.distributed as dist

from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_fusion import CanonicalFusion, FusionConfig
from mvpose.models.network_settings import OwnMethod
from mvpose.training.checkpoints import Checkpoints

NETWORK = "tests.training.recording_network:RecordingNetwork"
RECORD, WAITS, NOTICE = "RECORD_OF_STEPS", "WAITS_OF_STEPS", "FOLDER_OF_NOTICE"
"""Environment: a file, with a line per step and worker; JSON, the number of workers that each step (from 1) waits for;
a folder of checkpoints, at whose first one the workers of the first step wait until they are ended."""
NOTED = 6
"""From the step after this one, steps take a second while a checkpoint is waited for."""


def workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


class RecordingNetwork(CanonicalFusion):
    """Canonical Fusion of the sizes of the tiny training. Its steps are part of its weights, so that they go on."""

    steps: torch.Tensor

    def __init__(self, backbone: ResNet, joints: int, config: OwnMethod) -> None:
        super().__init__(backbone, joints, FusionConfig(points=4, head_width=8, fusion="pooling"))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.resumed: int | None = None
        self.seen: list[str] = []
        # A copy that is only looked at has no backward pass, and parameters are copied without their hooks.
        next(self.parameters()).register_hook(self._note)

    def forward(self, crops, projections, present=None, keep_maps=False):
        if self.training:
            self.seen = [hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()[:16] for sample in crops]
            self._wait(int(self.steps) + 1)
        return super().forward(crops, projections, present, keep_maps)

    def _wait(self, step: int) -> None:
        self.resumed = step if self.resumed is None else self.resumed
        wanted = json.loads(os.environ.get(WAITS, "{}")).get(str(step))
        while wanted not in (None, workers()):
            time.sleep(0.05)
        folder = os.environ.get(NOTICE)
        if folder and self.resumed == 1:
            time.sleep(step > NOTED)
            while Checkpoints(folder, 1).latest().step:
                time.sleep(0.05)

    def _note(self, gradient: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        line = {"step": int(self.steps), "workers": workers(), "seen": self.seen}
        with open(os.environ[RECORD], "a") as file:
            file.write(json.dumps(line) + "\n")
        return gradient
