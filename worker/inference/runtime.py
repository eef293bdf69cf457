"""How a network is run on a device: as torch's modules, or by what is faster there and as right.

What takes the place of the modules takes and gives the same: N x 3 x H x W (RGB, 0 to 1) -> N x 3 x 4H x 4W.
What it gives may be written over by its next call.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from models.catalog import Engine
from worker.inference.cpu.network import CompiledNetwork, compile_network
from worker.inference.precision import Precision, place_network

Network: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def make_runtime(
    network: nn.Module, *, engine: Engine, device: torch.device, precision: Precision
) -> Network:
    """The network ready to run there; `network` is only read."""
    if device.type == "cpu" and precision == "fp32" and (compiled := compile_network(network)) is not None:
        return compiled
    if device.type == "cuda" and precision == "fp16":
        # Here, since it loads Triton where there is one.
        from worker.inference.cuda.planned import can_plan
        from worker.inference.cuda.runtime import CudaRuntime

        if can_plan(network):
            return CudaRuntime(network, engine=engine, device=device)
    return place_network(network, device=device, precision=precision)


def reach_pixels(network: Network, engine: Engine) -> int:
    """How many input pixels away a pixel changes a result, if only its last bit, when `engine` is run by `network`."""
    return network.reach_pixels if isinstance(network, CompiledNetwork) else engine.receptive_radius


def memory_format(network: Network, device: torch.device) -> torch.memory_format:
    """How pictures should lie for it."""
    is_planar = isinstance(network, CompiledNetwork) or device.type == "mps"
    return torch.contiguous_format if is_planar else torch.channels_last


def release_runtime(network: Network) -> None:
    """Gives back what it keeps on a device beside its weights, when memory ran out there."""
    from worker.inference.cuda.runtime import CudaRuntime

    if isinstance(network, CudaRuntime):
        network.release()
