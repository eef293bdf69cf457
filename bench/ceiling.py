"""What this CPU's arithmetic can do at most, and how near something comes."""

import time
from collections.abc import Callable
from functools import partial

import torch

from bench.clips import Size
from bench.shapes import properties_of
from models.catalog import Engine
from worker.inference.precision import Precision


def ceiling_gflops(precision: Precision) -> float:
    """The fastest of several large convolutions by oneDNN and one matrix product in this precision, in GFLOP/s."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    best = 0.0
    with torch.inference_mode():
        for channels, height, width in ((64, 90, 160), (64, 180, 320), (128, 128, 128)):
            convolution = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype)
            convolution.weight.data = convolution.weight.contiguous(memory_format=torch.channels_last)
            x = torch.rand(1, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
            best = max(best, 18 * channels**2 * height * width / _fastest(partial(convolution, x)))
        a, b = torch.rand(1024, 1024).to(dtype), torch.rand(1024, 1024).to(dtype)
        return max(best, 2 * 1024**3 / _fastest(lambda: a @ b)) / 1e9


def frame_gflop(engine: Engine, size: Size) -> float:
    """Of a frame of these columns and rows, by plain convolutions."""
    return properties_of(engine).mflop_per_input_pixel * size[0] * size[1] / 1e3


def roofline(engine: Engine, size: Size, *, ceiling: float, **seconds: float) -> str:
    """A line that says how many GFLOP/s each of these is, that takes so many seconds a frame, and beside the ceiling.

    Names have underscores for spaces.
    """
    rates = {name: frame_gflop(engine, size) / each for name, each in seconds.items()}
    shown = (f"{name.replace('_', ' ')} {rate:.0f} ({rate / ceiling:.0%})" for name, rate in rates.items())
    return f"Roofline, {engine.id}, GFLOP/s (of the ceiling, {ceiling:.0f}): {', '.join(shown)}."


def _fastest(run: Callable[[], object], times: int = 6) -> float:
    run()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
