"""For `gpu`: what is measured on, how long it may take, and what was found."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bench.shapes import ARCHITECTURE_OF, network_without_weights, random_network
from models.architectures import UpscalingNetwork
from models.catalog import ENGINES, Engine
from models.loader import load_network
from worker.inference.cuda.runtime import trial_picture
from worker.inference.devices import Device
from worker.inference.devices.cuda import FusedKernels
from worker.inference.precision import Precision

# (width, height), frames at once.
SHAPES = {
    "regen-4x": (((640, 360), (1, 4)), ((1280, 720), (1,))),
    "regen-4x-lite": (((640, 360), (1, 4, 8)), ((1280, 720), (1, 2))),
}
TINY = {"regen-4x": {"blocks": 1}, "regen-4x-lite": {"convolutions": 1}}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One network, shape and way to run it, without transfers. `share`: of the matrix product's rate."""

    engine: str
    size: tuple[int, int]
    images: int
    way: FusedKernels
    seconds: float
    share: float
    decibels: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.images / self.seconds

    def __str__(self) -> str:
        return f"{self.way}, {self.images} x {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the sections measured, for those after them and for the verdicts. Rates are of host memory or file to the
    same, over that of the network alone; joins are the largest difference in codes of 8 bits."""

    operations: dict[str, float] = field(default_factory=dict)
    networks: list[Measured] = field(default_factory=list)
    joins: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Setting:
    device: Device
    weights: Path | None = None
    frames: Path | None = None
    tiny: bool = False
    # What begins later is skipped.
    deadline: float = float("inf")
    found: Found = field(default_factory=Found)

    @property
    def engines(self) -> list[Engine]:
        """One of each architecture. What takes least comes first: it is there whatever the time allows."""
        return [ENGINES["regen-4x-lite"], ENGINES["regen-4x"]]

    @property
    def torch_device(self) -> torch.device:
        return self.device.torch_device

    @property
    def on_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @property
    def precision(self) -> Precision:
        return "fp16" if self.on_cuda else "fp32"

    @property
    def has_time(self) -> bool:
        return time.monotonic() < self.deadline

    def shapes(self, engine: Engine) -> Iterator[tuple[tuple[int, int], int]]:
        for size, counts in (((16, 8), (1, 2)),) if self.tiny else SHAPES[engine.id]:
            for images in counts:
                yield size, images

    def network(self, engine: Engine) -> UpscalingNetwork:
        if self.tiny:
            return random_network(ARCHITECTURE_OF[engine.id], **TINY[engine.id])
        if self.weights is None:
            return network_without_weights(engine)
        return load_network(engine.id, weights_directory=self.weights)

    def best(self, engine: Engine) -> Measured | None:
        """The fastest way by frames a second at the smallest size, of those right enough to be used."""
        (size, _), *_ = self.shapes(engine)
        fit = [
            one
            for one in self.found.networks
            if one.engine == engine.id and one.size == size and one.decibels >= 50
        ]
        return max(fit, key=lambda one: one.rate, default=None)

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
            return trial_picture((images, 3, height, width), self.torch_device)
        _, _, rows, columns = self.natural.shape
        parts = []
        for index in range(images):
            top, left = (rows - height) * index // images, (columns - width) * index // images
            frame = self.natural[index % len(self.natural)]
            parts.append(frame[:, top : top + height, left : left + width])
        return torch.stack(parts).to(self.torch_device).contiguous(memory_format=torch.channels_last)

    def seconds_of(self, run: Callable[[], object], *, times: int = 9) -> float:
        """The median time of `times` runs (three on a CPU), after one that is not timed."""
        run()
        if not self.on_cuda:
            return statistics.median(_seconds(run) for _ in range(3))
        spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        for _ in range(times):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            spans.append((start, end))
        torch.cuda.synchronize()
        return statistics.median(float(start.elapsed_time(end)) for start, end in spans) / 1000

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """cuDNN's settings as the upscaler's, and the device current."""
        current: AbstractContextManager[object] = (
            torch.cuda.device(self.torch_device) if self.on_cuda else nullcontext()
        )
        with current, self.device.computing():
            yield

    def free(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
