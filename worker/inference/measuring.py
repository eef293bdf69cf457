"""Measures a network that is added as an engine: its exact precisions, and what its dimensions do not tell."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.architectures import NetworkProperties, UpscalingNetwork
from models.architectures.foreign import ForeignNetwork
from models.architectures.network import count_parameters
from worker.inference.precision import Precision, place_network

LEAST_PSNR = 50.0
# Half of the least difference between two codes would be rounding; a twentieth of a code is never seen.
MOST_TILE_ERROR = 0.05 / 255
OVERLAPS = (8, 16, 24, 32, 48, 64, 96)
_CORE = 16
# Off every window of attention: most windows measure a power of two.
_CORE_START = OVERLAPS[-1] + 21
_PICTURE = _CORE_START + _CORE + OVERLAPS[-1] + 19
_SMALL_PICTURE = 64
# Networks with attention have another path for sizes other than that of their training.
_ODD_PICTURE = 45
# Of torch's modules: inputs, outputs and residuals that are alive beside the widest tensor, in float32.
_TENSORS_ALIVE = 4
_FLOAT_BYTES = 4
_HOST = torch.device("cpu")


def measure(network: UpscalingNetwork) -> NetworkProperties:
    """Returns the properties of a network in float32 on the CPU, by running it there on a made picture.

    Of a network of `models.architectures` only the precisions are measured. Raises `ValueError` for a network whose
    output is not four times as wide and high as its input, or not finite.
    """
    small = _picture(_SMALL_PICTURE)
    exact = _run(network, small)
    if exact.shape != (1, 3, network.scale * _SMALL_PICTURE, network.scale * _SMALL_PICTURE):
        raise ValueError(f"Its output has the shape {tuple(exact.shape)}.")
    if not bool(torch.isfinite(exact).all()):
        raise ValueError("Its output is not finite.")
    candidates: Sequence[Precision] = ("fp16", "bf16", "mixed")
    if isinstance(network, ForeignNetwork):
        candidates = [one for one in candidates if one in network.supported_precisions]
    pairs = [(small, exact), (odd := _picture(_ODD_PICTURE), _run(network, odd))]
    precisions = ("fp32", *(one for one in candidates if _psnr(network, one, pairs) >= LEAST_PSNR))
    if not isinstance(network, ForeignNetwork):
        return replace(network.properties, exact_precisions=precisions)
    widest = _WidestTensor()
    with FlopCounterMode(display=False) as counted, widest:
        _run(network, small)
    pixels = _SMALL_PICTURE**2
    values = math.ceil(widest.values / pixels)
    return NetworkProperties(
        architecture=network.architecture_name,
        scale=network.scale,
        parameters=count_parameters(network),
        mflop_per_input_pixel=counted.get_total_flops() / 1e6 / pixels,
        # Attention may reach anywhere, even if faintly: results of parts of a frame are never reused.
        receptive_radius=2**15,
        tile_overlap=_overlap(network),
        activation_bytes_per_input_pixel=_TENSORS_ALIVE * _FLOAT_BYTES * values,
        widest_tensor_values_per_input_pixel=values,
        reduced_precision="bf16",
        least_decibels=LEAST_PSNR,
        exact_precisions=precisions,
    )


def _overlap(network: UpscalingNetwork) -> int:
    """Returns the least overlap with which a tile is the same as in the whole picture; the greatest if none is."""
    picture = _picture(_PICTURE)
    whole = _core_of(network, picture, _CORE_START)
    for overlap in OVERLAPS[:-1]:
        start, end = _CORE_START - overlap, _CORE_START + _CORE + overlap
        tile = _core_of(network, picture[:, :, start:end, start:end], overlap)
        if (tile - whole).abs().max().item() <= MOST_TILE_ERROR:
            return overlap
    return OVERLAPS[-1]


def _core_of(network: UpscalingNetwork, picture: torch.Tensor, start: int) -> torch.Tensor:
    first, last = network.scale * start, network.scale * (start + _CORE)
    return _run(network, picture)[:, :, first:last, first:last]


def _run(network: torch.nn.Module, picture: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = network(picture)
    return result.clamp(0, 1)


def _psnr(
    network: UpscalingNetwork, precision: Precision, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    """Returns the least PSNR over pairs of a picture and its exact result; -inf where the network does not run."""
    placed = place_network(network, device=_HOST, precision=precision)
    try:
        errors = [torch.mean((_run(placed, one) - exact) ** 2).item() for one, exact in pairs]
    except RuntimeError:
        return -math.inf
    if any(math.isnan(error) for error in errors):
        return -math.inf
    return -10 * math.log10(max(*errors, 1e-20))


def _picture(size: int) -> torch.Tensor:
    """1 x 3 x size x size, from 0 to 1: slopes, edges and texture, always the same."""
    generator = torch.Generator().manual_seed(0)
    across = torch.arange(size).float()
    slope = (across[None, :] + 0.5 * across[:, None]) / (1.5 * size)
    blocks = ((across[None, :] // 11 + across[:, None] // 7) % 3) / 2
    texture = torch.rand(3, size, size, generator=generator)
    channels = [0.5 * slope + 0.3 * blocks, 0.8 - 0.6 * slope, 0.2 + 0.5 * blocks]
    return (torch.stack(channels) + 0.15 * texture).clamp(0, 1)[None]


class _WidestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The number of values of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.values = max(self.values, leaf.numel())
        return result
