"""The memory of a forward pass, and how a lack of memory shows."""

from dataclasses import dataclass

import torch

from models.architectures import NetworkProperties
from worker.inference.precision import Precision

_OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "could not create a memory object",
    "invalid buffer size",
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The network's input at once: `batch_size` frames, in tiles of at most `tile_pixels` input pixels each."""

    batch_size: int
    tile_pixels: int


def activation_bytes_per_pixel(properties: NetworkProperties, precision: Precision) -> int:
    """Returns the peak memory of a forward pass per input pixel, without the weights."""
    is_halved = precision == "fp16" or (precision == "bf16" and not properties.has_fp32_peak_in_bf16)
    return properties.activation_bytes_per_input_pixel // (2 if is_halved else 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether the error says that memory ran out, on a device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in _OUT_OF_MEMORY_WORDS
    )
