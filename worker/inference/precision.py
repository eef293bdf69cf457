"""On which device, and in which number formats, a network runs.

What each precision means:
    fp32    everything in 32-bit floats.
    fp16    all layers in 16-bit floats; the sum with the enlarged input (regen-4x-lite) in 32 bits; GPUs
            only
    bf16    regen-4x-lite: all layers but the first convolution in bfloat16, the sum with the enlarged input
            in 32 bits. regen-4x: all layers but the first and the last convolution, and every residual sum;
            less exact than mixed, and never chosen unasked.
    mixed   bfloat16 inside only. regen-4x: in the dense blocks' convolutions; the first, last and upsampling
            convolutions and every residual sum in 32 bits. regen-4x-lite: as bf16, and
            the last convolution in 32 bits.

The 8 significant bits of bfloat16 hold no 10-bit picture: none of them lets it touch what goes into a network,
nor what is added to the enlarged input or comes out in its place. 32 bits are 32 bits, on CUDA too (no TF32).
"""

import copy
import platform
from typing import Literal, get_args

import torch
from torch import nn

from models.architectures import ResidualDenseBlock, RRDBNet, SRVGGNetCompact
from models.catalog import Engine
from worker.inference.cpu.kernels import find_kernels
from worker.inference.errors import DeviceUnavailable, PrecisionUnsupported

Precision = Literal["fp32", "fp16", "bf16", "mixed"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16", "mixed"]


def choose_device(choice: str = "auto") -> torch.device:
    """`auto` (cuda, else mps, else cpu) or torch's name of a device, such as `cuda:1`.

    Raises `DeviceUnavailable` for a device this machine lacks or a kind that is not supported.
    """
    if choice == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{choice!r} is no device.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceUnavailable(f"There is no device {choice}: CUDA devices found: {count}.")
        return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("There is no Metal device here.")
    if device.type not in ("cpu", "mps"):
        raise DeviceUnavailable(f"Devices of type {device.type} are not supported.")
    return device


def describe_device(name: str) -> str:
    """What all devices of that kind have in common, by torch's name of one of them: the make of a GPU; of a CPU its
    architecture and how many threads compute."""
    device = torch.device(name)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Metal, {platform.machine()}"
    return f"CPU, {platform.machine()}, {torch.get_num_threads()} threads"


def choose_precision(choice: str, *, device: torch.device, engine: Engine) -> Precision:
    """What `auto` means on the device, or the choice itself. Raises `PrecisionUnsupported` where it cannot
    be.

    On Metal `auto` is fp32: its fp16 convolutions promise little speed, and their accuracy has not been
    measured.
    """
    if choice not in get_args(PrecisionChoice):
        raise PrecisionUnsupported(
            f"{choice!r} is no precision; there are {', '.join(get_args(PrecisionChoice))}."
        )
    if choice == "auto":
        if device.type == "cuda":
            return "fp16"
        if device.type == "cpu" and has_native_bf16() and not _has_faster_fp32():
            return "bf16" if engine.architecture == "srvgg" else "mixed"
        return "fp32"
    if choice == "fp16" and device.type == "cpu":
        raise PrecisionUnsupported("fp16 needs a GPU; on a CPU use fp32, bf16 or mixed.")
    if choice in ("bf16", "mixed") and not _computes_bf16(device):
        raise PrecisionUnsupported(
            f"{choice} needs bfloat16, which {device} does not compute; use fp16 or fp32."
        )
    for precision in get_args(Precision):
        if choice == precision:
            return precision  # type: ignore[no-any-return]
    raise AssertionError(choice)


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it does not, bf16 is slower than torch's fp32."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # Private functions: a later torch may lack them, and then fp32 is always right.
        return any(
            bool(getattr(torch.cpu, name, lambda: False)())
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    if platform.machine().lower() in ("aarch64", "arm64"):
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is not None and bool(supported())
    return False


def _has_faster_fp32() -> bool:
    """Whether 32 bits are the fastest here: in compiled kernels they outrun bfloat16, but for that of matrix units."""
    kernels = find_kernels()
    has_matrix_unit = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return kernels is not None and kernels.instructions == "avx512" and not has_matrix_unit


def place_network(network: nn.Module, *, device: torch.device, precision: Precision) -> nn.Module:
    """A copy of the network on the device, its parameters in the dtypes of `precision`, laid out
    channels-last.

    Not channels-last on Metal, where it brings no speed and has given wrong results.
    """
    placed = copy.deepcopy(network).requires_grad_(False).eval()
    if precision == "fp16":
        placed = placed.half()
    elif precision != "fp32":
        _cast_to_bf16(placed, everything=precision == "bf16")
    placed = placed.to(device)
    if device.type != "mps":
        for parameter in placed.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return placed


def _cast_to_bf16(network: nn.Module, *, everything: bool) -> None:
    if isinstance(network, SRVGGNetCompact):
        layers = list(network.body)
        # The first convolution and its PReLU stay; without `everything` the last convolution too.
        for layer in layers[2:] if everything else layers[2:-1]:
            layer.to(torch.bfloat16)
    elif isinstance(network, RRDBNet):
        for module in network.modules():
            if isinstance(module, ResidualDenseBlock):
                module.to(torch.bfloat16)
        if everything:
            for convolution in (network.conv_body, network.conv_up1, network.conv_up2, network.conv_hr):
                convolution.to(torch.bfloat16)
    else:
        network.to(torch.bfloat16)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "mps":
        try:
            torch.ones(1, device=device, dtype=torch.bfloat16).add_(1)
        except (RuntimeError, TypeError):
            return False
    return True
