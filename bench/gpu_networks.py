"""For `gpu`: the networks alone, run in every way there is, beside what the device can do at all."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bench.machine import table
from bench.shapes import network_without_weights, properties_of
from models.architectures import UpscalingNetwork
from models.catalog import ENGINES, Engine
from models.loader import load_network
from worker.inference.cuda import kernels
from worker.inference.cuda.fused import FusedNetwork, fuse
from worker.inference.cuda.runtime import psnr, test_picture
from worker.inference.devices import Device
from worker.inference.precision import Precision, place_network

# (width, height), frames at once.
SHAPES = {
    "regen-4x": (((640, 360), (1, 4)), ((1280, 720), (1,))),
    "regen-4x-lite": (((640, 360), (1, 4, 8)), ((1280, 720), (1, 2))),
}
MATRIX, CONVOLUTION = 8192, (8, 256, 180, 320)


@dataclass(frozen=True, kw_only=True)
class Setting:
    device: Device
    weights: Path | None
    frames: Path | None
    compiles: bool
    tiny: bool
    # What was measured, for what is measured later: operations a second.
    found: dict[str, float] = field(default_factory=dict)

    @property
    def engines(self) -> list[Engine]:
        return list(ENGINES.values())

    @property
    def torch_device(self) -> torch.device:
        return self.device.torch_device

    @property
    def on_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @property
    def precision(self) -> Precision:
        return "fp16" if self.on_cuda else "fp32"

    def shapes(self, engine: Engine) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
        if self.tiny:
            yield (24, 16), (1, 2)
        else:
            yield from SHAPES[engine.id]

    def network(self, engine: Engine) -> UpscalingNetwork:
        if self.weights is None:
            return network_without_weights(engine)
        return load_network(engine.id, weights_directory=self.weights)

    @cached_property
    def natural(self) -> torch.Tensor | None:
        """N x 3 x H x W in [0, 1]."""
        if self.frames is None:
            return None
        return torch.from_numpy(np.load(self.frames)).permute(0, 3, 1, 2).float() / 255

    def pictures(self, images: int, size: tuple[int, int]) -> torch.Tensor:
        """Parts of the frames that were given, or drawn ones."""
        width, height = size
        if self.natural is None:
            return test_picture((images, 3, height, width), self.torch_device)
        _, _, rows, columns = self.natural.shape
        parts = []
        for index in range(images):
            top, left = (rows - height) * index // images, (columns - width) * index // images
            frame = self.natural[index % len(self.natural)]
            parts.append(frame[:, top : top + height, left : left + width])
        return torch.stack(parts).to(self.torch_device).contiguous(memory_format=torch.channels_last)

    def seconds_of(self, run: Callable[[], object], *, times: int = 9) -> float:
        """The median."""
        if self.on_cuda:
            return seconds_on_cuda(lambda: _discard(run()), times=times)
        run()
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """cuDNN's settings as the upscaler's, and the device current."""
        current: AbstractContextManager[object] = (
            torch.cuda.device(self.torch_device) if self.on_cuda else nullcontext()
        )
        flags = torch.backends.cudnn.flags(
            enabled=True, benchmark=True, deterministic=False, allow_tf32=False
        )
        with current, flags:
            yield

    def free(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def seconds_on_cuda(run: Callable[[], None], *, times: int) -> float:
    """The median time of `times` runs on the current device, after one that is not timed."""
    run()
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    for _ in range(times):
        start, end = _timed_event(), _timed_event()
        start.record()
        run()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(float(start.elapsed_time(end)) for start, end in spans) / 1000


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _discard(result: object) -> None:
    """A run gives nothing."""


def measure_peak(setting: Setting) -> None:
    """Products of random matrices and convolutions of many channels, in fp16 on a GPU."""
    dtype = torch.float16 if setting.on_cuda else torch.float32
    side = 256 if setting.tiny else MATRIX
    images, channels, rows, columns = (1, 16, 24, 24) if setting.tiny else CONVOLUTION
    random = partial(torch.randn, device=setting.torch_device, dtype=dtype)
    with setting.arithmetic():
        left, right = random(side, side), random(side, side)
        matrices = 2 * side**3 / setting.seconds_of(lambda: left @ right, times=30)
        x = random(images, channels, rows, columns).contiguous(memory_format=torch.channels_last)
        weight = random(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
        operations = 18 * images * rows * columns * channels**2
        convolutions = operations / setting.seconds_of(lambda: F.conv2d(x, weight, padding=1), times=30)
        large = random((64 if setting.tiny else 2048), 1024, 1024)
        copied = 2 * large.nbytes / setting.seconds_of(large.clone, times=10)
    setting.found["matrix"] = matrices
    lines = [
        [f"matrix product, {side} x {side}", f"{matrices / 1e12:.4g} TFLOP/s"],
        [
            f"3x3 convolution, {channels} to {channels} channels, {images} x {columns}x{rows}",
            f"{convolutions / 1e12:.4g} TFLOP/s",
        ],
        ["copy within the device, bytes read and written", f"{copied / 1e12:.3g} TB/s"],
    ]
    print(table(["", f"{str(dtype).removeprefix('torch.')}, random values"], lines))


class ModulesRun:
    """torch's modules for one input shape, with the attributes of a fused network."""

    def __init__(self, placed: nn.Module, *, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._placed = placed
        self.input = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        self.output = torch.empty(0)

    def run(self) -> None:
        self.output = self._placed(self.input)


def ways(
    setting: Setting, network: nn.Module, placed: nn.Module
) -> dict[str, Callable[[tuple[int, int, int, int]], ModulesRun | FusedNetwork]]:
    """All there are on this device, slowest first as far as one can guess."""
    device = setting.torch_device
    made: dict[str, Callable[[tuple[int, int, int, int]], ModulesRun | FusedNetwork]] = {
        "modules": lambda shape: ModulesRun(placed, shape=shape, device=device)
    }
    if setting.compiles:
        compiled = cast(nn.Module, torch.compile(placed, mode="max-autotune-no-cudagraphs", dynamic=False))
        made["torch.compile"] = lambda shape: ModulesRun(compiled, shape=shape, device=device)
    if kernels.AVAILABLE:
        made["fused"] = lambda shape: fuse(
            network, images=shape[0], height=shape[2], width=shape[3], device=device
        )
    return made


def compare(setting: Setting) -> None:
    """Each engine, size and number of frames at once."""
    head = [
        "engine",
        "frames",
        "way",
        "ms",
        "frames/s",
        "TFLOP/s",
        "of matrix product",
        "PSNR",
        "worst",
        "GB",
    ]
    lines = []
    with setting.arithmetic():
        for engine in setting.engines:
            network = setting.network(engine)
            placed = place_network(network, device=setting.torch_device, precision=setting.precision)
            exact = place_network(network, device=setting.torch_device, precision="fp32")
            for size, counts in setting.shapes(engine):
                for images in counts:
                    pictures = setting.pictures(images, size)
                    setting.free()
                    expected = exact(pictures[:1]).clone()
                    for name, make in ways(setting, network, placed).items():
                        line = [engine.id, f"{images} x {size[0]}x{size[1]}", name]
                        lines.append(line + _measure_way(setting, engine, make, pictures, expected))
    print(table(head, lines))


def _measure_way(
    setting: Setting,
    engine: Engine,
    make: Callable[[tuple[int, int, int, int]], ModulesRun | FusedNetwork],
    pictures: torch.Tensor,
    expected: torch.Tensor,
) -> list[str]:
    setting.free()
    images, colours, height, width = pictures.shape
    try:
        run = make((images, colours, height, width))
        run.input.copy_(pictures)
        seconds = setting.seconds_of(run.run)
        found = run.output[:1].float()
    except Exception as error:  # one way that fails is a line of the table
        return [f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}", *[""] * 6]
    rate = properties_of(engine).mflop_per_input_pixel * 1e6 * images * height * width / seconds
    peak = setting.found.get("matrix")
    taken = torch.cuda.max_memory_allocated() / 1e9 if setting.on_cuda else 0.0
    return [
        f"{seconds * 1e3:.4g}",
        f"{images / seconds:.4g}",
        f"{rate / 1e12:.4g}",
        "" if peak is None else f"{rate / peak:.1%}",
        f"{psnr(found, expected):.1f} dB",
        f"{float((found - expected).abs().max()) * 255:.2f}",
        f"{taken:.2f}",
    ]
