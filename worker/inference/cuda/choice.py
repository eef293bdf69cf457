"""Chooses the fastest right way to run a network for one input shape.

A candidate is right if, on a picture with content at all scales, its result is about as close to the network in 32
bits as that of torch's modules in 16 bits, and close to the modules' result everywhere. So the results of two workers
that choose differently differ by rounding alone: by at most `WORST` in any value, with a PSNR of at least `LEAST_PSNR`.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from worker.inference.cuda.graphs import StaticRun
from worker.inference.cuda.timing import seconds_on_cuda
from worker.inference.memory import is_out_of_memory

logger = logging.getLogger(__name__)

MODULES = "modules"

# In dB, against the modules' result. 16-bit rounding stays 10 dB above it; a fault in one of a hundred pixels does not.
LEAST_PSNR = 50.0
# In dB, against the 32-bit result: this suffices, and so does this much less than the modules reach.
ENOUGH_PSNR = 60.0
ALLOWED_LOSS_DB = 1.0
# The largest difference of a value, where 1 is white: a mean hides a fault of a few pixels.
WORST = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to run the network. `make` prepares it for an input shape (images, 3, height, width)."""

    name: str
    make: Callable[[tuple[int, int, int, int]], StaticRun]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The way that was chosen; `run` is None for torch's modules.

    `seconds` is the time of one run of each right candidate; `dropped` is the reason against each other one.
    """

    name: str
    run: StaticRun | None
    seconds: dict[str, float]
    dropped: dict[str, str]


def choose(
    candidates: Sequence[Candidate],
    *,
    modules: Callable[[torch.Tensor], torch.Tensor],
    exact: Callable[[torch.Tensor], torch.Tensor] | None,
    shape: tuple[int, int, int, int],
    device: torch.device,
    seconds_of: Callable[[Callable[[], None]], float] = seconds_on_cuda,
) -> Choice:
    """Returns the fastest right candidate, or torch's `modules`. Requires the current device and no gradients.

    `exact` is the network in 32 bits. An error drops the candidate that raised it, a lack of memory too: frames that
    the modules process in one piece are not cut smaller for a candidate. Errors of the modules pass through.
    """
    picture = test_picture(shape, device)
    expected = modules(picture).clone()
    reference = _try_exact(exact, picture, device)
    seconds = {MODULES: seconds_of(lambda: _discard(modules(picture)))}
    dropped: dict[str, str] = {}
    best: tuple[float, str, StaticRun | None] = (seconds[MODULES], MODULES, None)
    for candidate in candidates:
        fault: str | None
        try:
            run = candidate.make(shape)
            run.input.copy_(picture)
            run.run()
            fault = find_fault(run.output, expected, reference)
            if fault is None:
                seconds[candidate.name] = seconds_of(run.run)
        except Exception as error:  # compilers, drivers and libraries have many kinds; the modules remain
            fault = "too little memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        if fault is not None:
            dropped[candidate.name] = fault.strip().splitlines()[0][:300]
        elif seconds[candidate.name] < best[0]:
            best = (seconds[candidate.name], candidate.name, run)
        # Outside the handler, whose traceback holds tensors: the next candidate needs the memory.
        run = None  # type: ignore[assignment]
        torch.cuda.empty_cache()
    for name, reason in dropped.items():
        logger.warning("network_runner_dropped name=%s shape=%s reason=%s", name, shape, reason)
    logger.info("network_runner_chosen name=%s shape=%s seconds=%s", best[1], shape, seconds)
    return Choice(name=best[1], run=best[2], seconds=seconds, dropped=dropped)


def test_picture(shape: tuple[int, int, int, int], device: torch.device) -> torch.Tensor:
    """Returns waves of several lengths, edges, points and grain up to every border, different for each image.

    Float32 in [0, 1], always the same for a shape.
    """
    images, colours, height, width = shape
    y = torch.arange(height, dtype=torch.float32).view(1, 1, height, 1)
    x = torch.arange(width, dtype=torch.float32).view(1, 1, 1, width)
    colour = torch.arange(colours, dtype=torch.float32).view(1, colours, 1, 1)
    index = torch.arange(images, dtype=torch.float32).view(images, 1, 1, 1)
    waves = torch.sin((x + 3 * index) / 9 + colour) + torch.sin(y / 5 + x / 17) + torch.cos(y * x / 991)
    edges = ((x + y + 7 * index) % 64 < 20).float() + ((x // 11 + y // 7) % 2)
    grain = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    picture = 0.4 + 0.12 * waves + 0.15 * edges + 0.1 * grain + 0.4 * (grain > 0.995)
    return picture.clamp_(0, 1).to(device).contiguous(memory_format=torch.channels_last)


def find_fault(
    found: torch.Tensor, expected: torch.Tensor, reference: torch.Tensor | None = None
) -> str | None:
    """Returns what is wrong with a result, or None.

    found, expected: N x 3 x H x W, the candidate's and the modules' result. reference: 1 x 3 x H x W, the first image
    in 32 bits, if it is known.
    """
    if found.shape != expected.shape:
        return f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"
    # Comparisons with NaN are false, so NaN is a fault.
    worst = float((found.float() - expected.float()).abs().max())
    if not worst <= WORST:
        return f"differs from the modules by up to {worst:.3g}"
    least = min(psnr(one, other) for one, other in zip(found, expected, strict=True))
    if not least >= LEAST_PSNR:
        return f"agrees with the modules to {least:.1f} dB only"
    if reference is not None:
        reached, usual = psnr(found[:1], reference), psnr(expected[:1], reference)
        if not reached >= min(ENOUGH_PSNR, usual - ALLOWED_LOSS_DB):
            return f"agrees with 32 bits to {reached:.1f} dB only, the modules to {usual:.1f} dB"
    return None


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the PSNR in dB, where 1 is white: infinite for equal tensors, NaN if a value is NaN."""
    error = float((found.float() - expected.float()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def _try_exact(
    exact: Callable[[torch.Tensor], torch.Tensor] | None, picture: torch.Tensor, device: torch.device
) -> torch.Tensor | None:
    """Returns the first image's result in 32 bits, or None if memory does not suffice."""
    if exact is None:
        return None
    try:
        return exact(picture[:1]).clone()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    return None


def _discard(result: torch.Tensor) -> None:
    """Drops the result: timed functions return None."""
