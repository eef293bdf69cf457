"""The ways to run a network on a GPU that are worth trying."""

import torch
from torch import nn

from worker.inference.cuda import kernels
from worker.inference.cuda.choice import Candidate
from worker.inference.cuda.fused import can_fuse, fuse
from worker.inference.cuda.graphs import GraphedRun, ModulesRun, StaticRun
from worker.inference.cuda.layers import Autotuner

GRAPHED = "modules, graph"
FUSED = "fused, graph"


def make_candidates(
    network: nn.Module, *, modules: nn.Module, device: torch.device, tuner: Autotuner
) -> list[Candidate]:
    """Returns the candidates for a CUDA device.

    `network` is in 32 bits on any device, `modules` the same network in 16 bits on this one. All candidates share
    `tuner`.
    """

    def graphed(shape: tuple[int, int, int, int]) -> StaticRun:
        return GraphedRun(ModulesRun(modules, shape=shape, device=device))

    def fused(shape: tuple[int, int, int, int]) -> StaticRun:
        images, _, height, width = shape
        return GraphedRun(
            fuse(network, images=images, height=height, width=width, device=device, tuner=tuner)
        )

    made = [Candidate(name=GRAPHED, make=graphed)]
    if kernels.AVAILABLE and can_fuse(network):
        made.append(Candidate(name=FUSED, make=fused))
    return made
