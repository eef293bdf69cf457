"""How much memory a device has to give, how much a forward pass takes, and how a lack of it shows itself."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from models.catalog import Engine
from worker.inference.frames import FrameFormat
from worker.inference.precision import Precision

# One pass over about this many pixels keeps a large GPU busy; more frames at once only add latency.
_BUSY_PIXELS = 1 << 20
_MAX_BATCH = 16

# On a CPU more would buy nothing, and the machine has other work.
_CPU_BUDGET_BYTES = 4 * 1024**3
_FALLBACK_BYTES = 4 * 1024**3

# Of a whole frame, an input pixel: RGB of both sizes and the planes made of them, all float32.
_FRAME_BYTES_PER_PIXEL = 640

_CGROUP = Path("/sys/fs/cgroup")

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
    """What to give the network at once: `batch_size` frames, in tiles of at most `tile_pixels` input pixels
    each.
    """

    batch_size: int
    tile_pixels: int


def plan_workload(
    *, engine: Engine, precision: Precision, device_type: str, source: FrameFormat, available_bytes: int
) -> Workload:
    """A first guess, to be cut down where it proves too large."""
    pixels = source.width * source.height
    # With bf16 the last convolution of regen-4x, on the widest tensor, reads 32 bits.
    reduced = precision == "fp16" or (precision == "bf16" and engine.architecture == "srvgg")
    bytes_per_pixel = engine.activation_bytes_per_input_pixel // (2 if reduced else 1)
    if device_type == "cpu":
        budget = min(_CPU_BUDGET_BYTES, available_bytes // 3)
        return Workload(batch_size=1, tile_pixels=max(1, budget // bytes_per_pixel))
    budget = available_bytes * 7 // 10
    # cuDNN's kernels count values with 32 bits, Metal's tensors end at 4 GiB.
    widest = (2**30 if device_type == "mps" else 2**31 - 1) // engine.widest_tensor_values_per_input_pixel
    batch_size = max(1, min(_MAX_BATCH, _BUSY_PIXELS // pixels, widest // pixels))
    while batch_size > 1 and batch_size * pixels * (bytes_per_pixel + _FRAME_BYTES_PER_PIXEL) > budget:
        batch_size //= 2
    for_tiles = max(budget // 4, budget - batch_size * pixels * _FRAME_BYTES_PER_PIXEL)
    return Workload(
        batch_size=batch_size, tile_pixels=max(1, min(widest, for_tiles // bytes_per_pixel) // batch_size)
    )


def available_bytes(device: torch.device) -> int:
    """Memory free on the device now; of a CPU, what the machine and this process's control group leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return min(_machine_bytes(), _control_group_bytes())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in _OUT_OF_MEMORY_WORDS
    )


def release_cached(device: torch.device) -> None:
    """Gives memory that torch keeps for later back to the device, so that smaller pieces fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _machine_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        # Not every system tells what is free: take half of what there is.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _FALLBACK_BYTES


def _control_group_bytes() -> int:
    """Version 2 of control groups, as containers see it. Beyond such a limit the kernel kills instead of
    refusing.
    """
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        return (
            max(0, int(limit) - int((_CGROUP / "memory.current").read_text())) if limit != "max" else 1 << 62
        )
    except (OSError, ValueError):
        return 1 << 62
