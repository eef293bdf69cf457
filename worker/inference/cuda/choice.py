"""Which of several ways to run a network for one shape is right, and the fastest of those.

Right means: on a picture with content at all scales, the result is as near to the network in 32 bits as that of
torch's modules in 16 bits is, or nearly so, and nowhere far from the modules' own. So two workers that choose
differently differ by rounding alone: by less than `WORST` anywhere, and by `LEAST_PSNR` or more over a picture.
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

# Against the modules' result, in dB: what 16 bits cost is some 10 dB less, a fault in one of a hundred pixels more.
LEAST_PSNR = 50.0
# Against the 32-bit result: this is enough, and so is hardly less than the modules reach.
ENOUGH_PSNR = 60.0
ALLOWED_LOSS_DB = 1.0
# Of any value, where 1 is white: a fault of a few pixels hides in a mean.
WORST = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to run the network. `make` gives it ready to run for that shape (images, 3, height, width)."""

    name: str
    make: Callable[[tuple[int, int, int, int]], StaticRun]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """`run` None: torch's modules are the fastest, or all that is right.

    seconds: what each right one took for one run; `dropped`: why each other one was not taken.
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
    """The fastest right candidate, or torch's `modules`. Call it with the device current, and without gradients.

    `exact`: the network in 32 bits. Whatever a candidate raises drops it, a lack of memory too: what the modules
    manage in one piece is not to be cut smaller for its sake. What the modules raise passes through.
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
        except Exception as error:  # compilers, drivers and libraries have many; the modules are always there
            fault = "too little memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        if fault is not None:
            dropped[candidate.name] = fault.strip().splitlines()[0][:300]
        elif seconds[candidate.name] < best[0]:
            best = (seconds[candidate.name], candidate.name, run)
        # Outside the handler, where the error's traceback no longer holds tensors: the next needs the memory.
        run = None  # type: ignore[assignment]
        torch.cuda.empty_cache()
    for name, reason in dropped.items():
        logger.warning("network_runner_dropped name=%s shape=%s reason=%s", name, shape, reason)
    logger.info("network_runner_chosen name=%s shape=%s seconds=%s", best[1], shape, seconds)
    return Choice(name=best[1], run=best[2], seconds=seconds, dropped=dropped)


def test_picture(shape: tuple[int, int, int, int], device: torch.device) -> torch.Tensor:
    """Waves of several lengths, edges, points and grain, up to every border; another one each image. Float32, in
    [0, 1], always the same for a shape.
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
    """What is wrong with a result, or None.

    found, expected: N x 3 x H x W, the candidate's and the modules'. reference: 1 x 3 x H x W, the first image in 32
    bits, where there is one.
    """
    if found.shape != expected.shape:
        return f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"
    # Chained comparisons with NaN are false: what is not a number is a fault.
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
    """In dB, where 1 is white; infinite for equal ones, NaN where values are missing."""
    error = float((found.float() - expected.float()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def _try_exact(
    exact: Callable[[torch.Tensor], torch.Tensor] | None, picture: torch.Tensor, device: torch.device
) -> torch.Tensor | None:
    """The first image in 32 bits, where that fits."""
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
    """A run gives nothing."""
