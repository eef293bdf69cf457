"""The number formats in which a network runs.

fp32    every layer in 32-bit floats.
fp16    every layer in 16-bit floats; the sum with the enlarged input (srvgg) in 32 bits. GPUs only.
bf16    srvgg: every layer but the first convolution in bfloat16, the sum with the enlarged input in 32 bits.
        rrdbnet: every layer but the first and the last convolution, and every residual sum; less exact than
        mixed, and never the default.
mixed   rrdbnet: the convolutions of the dense blocks in bfloat16; the first, last and upsampling convolutions and
        every residual sum in 32 bits. srvgg: as bf16, with the last convolution in 32 bits.
bf16-direct
        CPUs with compiled kernels only: every convolution reads features and weights in bfloat16 and adds in 32 bits;
        the sums with residuals and the enlarged input stay in 32 bits. The network's input, and the last weights of
        rrdbnet, are split into two bfloat16 values.

The 8 significant bits of bfloat16 cannot hold a 10-bit picture: no precision uses it for the network's input, for what
is added to the enlarged input, or for the output. 32 bits means 32 bits on CUDA too: TF32 is off.
"""

import copy
from typing import Literal

import torch
from torch import nn

from models.architectures import UpscalingNetwork

Precision = Literal["fp32", "fp16", "bf16", "mixed", "bf16-direct"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16", "mixed", "bf16-direct"]

# Those in which unlike devices give the same picture, by `Device.numerics`.
PORTABLE_PRECISIONS = ("fp32", "fp16", "bf16-direct")


def place_network(
    network: nn.Module,
    *,
    device: torch.device,
    precision: Precision,
    memory_format: torch.memory_format = torch.channels_last,
) -> nn.Module:
    """Returns a copy of the network on the device, with its parameters in the dtypes of `precision` and its
    convolutions' weights in that memory format. For torch's modules bf16-direct is fp32.
    """
    placed = copy.deepcopy(network).requires_grad_(False).eval()
    if precision == "fp16":
        placed = placed.half()
    elif precision in ("bf16", "mixed"):
        reduced = placed.layers_in_bf16(precision) if isinstance(placed, UpscalingNetwork) else [placed]
        for layer in reduced:
            layer.to(torch.bfloat16)
    placed = placed.to(device)
    for parameter in placed.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
    return placed
