"""A network that kills a process at a step: a worker of a training its own, or the driver, so that no clock decides."""

import os
import signal
import time

import torch.distributed as dist

from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_fusion import CanonicalFusion, FusionConfig
from mvpose.models.network_settings import OwnMethod

NETWORK = "tests.training.killing_network:KillingNetwork"
VICTIM, STEP, MARK = "KILLED_PROCESS", "KILLED_AT", "KILLED_MARK"
"""Environment: the driver's ID, or `worker` for the last worker; the step (from 1); a file, made once it did."""


class KillingNetwork(CanonicalFusion):
    """Canonical Fusion of the sizes of the tiny training. It kills once, before the result of its step."""

    def __init__(self, backbone: ResNet, joints: int, config: OwnMethod) -> None:
        super().__init__(backbone, joints, FusionConfig(points=4, head_width=8, fusion="pooling"))
        self.steps = 0

    def forward(self, crops, projections, present=None, keep_maps=False):
        self.steps += self.training
        victim = os.environ.get(VICTIM)
        if victim and self.training and self.steps == int(os.environ[STEP]):
            last = not dist.is_initialized() or dist.get_rank() == dist.get_world_size() - 1
            if last and not os.path.exists(os.environ[MARK]):
                with open(os.environ[MARK], "x"):
                    os.kill(os.getpid() if victim == "worker" else int(victim), signal.SIGKILL)
            if victim != "worker":
                time.sleep(3600)  # its driver is dead, and Ray ends it
        return super().forward(crops, projections, present, keep_maps)
