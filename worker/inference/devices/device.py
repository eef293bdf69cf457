"""The interface of a device to the rest of inference: one subclass for each kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Self, get_args

import torch
from torch import nn

from models.architectures import NetworkProperties
from worker.inference.errors import PrecisionUnsupported
from worker.inference.frames import FrameFormat
from worker.inference.memory import Workload, activation_bytes_per_pixel
from worker.inference.precision import PORTABLE_PRECISIONS, Precision, PrecisionChoice, place_network
from worker.inference.runtime import Runtime
from worker.inference.transfers import Transfers

# One pass over about this many pixels keeps a large GPU busy; more frames at once only add latency.
_BUSY_PIXELS = 1 << 20
_MAX_BATCH = 16
# Per input pixel of a whole frame: RGB of both sizes and the planes made of them, all float32.
_FRAME_BYTES_PER_PIXEL = 640
# More where they are transparent: alpha, and what straight colours are made of.
_ALPHA_BYTES_PER_PIXEL = 1000


@dataclass(frozen=True)
class Device(ABC):
    """One device that computes. The defaults are those of a GPU.

    `kind` is torch's name for the type of device. `is_accelerator` tells GPUs from the CPU.
    `slowest_mflop_per_second` is a speed that every usable device of the kind exceeds. `max_tensor_values` limits the
    values of one tensor. `memory_format` is the layout of pictures and weights for torch's modules. `reuses_regions`
    is true where computing small parts of a frame saves time.
    """

    kind: ClassVar[str]
    is_accelerator: ClassVar[bool] = True
    slowest_mflop_per_second: ClassVar[float] = 1e6  # half a percent of a data-centre GPU
    max_tensor_values: ClassVar[int] = 2**31 - 1
    memory_format: ClassVar[torch.memory_format] = torch.channels_last
    reuses_regions: ClassVar[bool] = False

    torch_device: torch.device

    def __str__(self) -> str:
        return str(self.torch_device)

    @classmethod
    @abstractmethod
    def find_all(cls) -> list[Self]:
        """Returns the devices of this kind that this machine has; the preferred one first."""

    @classmethod
    @abstractmethod
    def open(cls, index: int | None) -> Self:
        """Returns the device of that number, or the preferred one. Raises `DeviceUnavailable`."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The name that all devices of the same make share; measured speeds are kept under it."""

    @property
    @abstractmethod
    def details(self) -> str:
        """The device's facts for an operator, in one line."""

    @property
    def traits(self) -> dict[str, str]:
        """What decides which precision is the fastest here: a measured one is kept under it."""
        return {"device": self.model, "torch": str(torch.__version__)}

    @property
    def threads(self) -> int | None:
        """The number of processor threads that compute; None where the processor does not."""
        return None

    @abstractmethod
    def candidate_precisions(self, properties: NetworkProperties) -> Sequence[Precision]:
        """Returns the precisions that may be the fastest here, the most exact first: `auto` means one of them."""

    @abstractmethod
    def native_precisions(self) -> frozenset[Precision]:
        """Returns those that the hardware computes, fp32 included: in these it goes on with what others began."""

    def numerics(self, precision: Precision) -> str:
        """Returns the name of this precision's results: devices with the same name give the same picture to within half
        an 8-bit code, in fp16 with a few samples more than that.

        Where torch rounds sums to bfloat16, their order decides on a bit of a few values, and after dozens of layers
        the results differ by as much as each of them does from fp32.
        """
        return precision if precision in PORTABLE_PRECISIONS else f"{precision}-{self.kind}"

    @abstractmethod
    def computes_bf16(self) -> bool:
        """Returns whether bfloat16 works here at all."""

    @property
    def has_direct_convolutions(self) -> bool:
        """Whether the compiled direct convolutions run here."""
        return False

    def check_precision(self, choice: str) -> None:
        """Raises `PrecisionUnsupported` if the choice (`auto` or a precision) is unknown or not possible here."""
        if choice not in get_args(PrecisionChoice):
            raise PrecisionUnsupported(
                f"{choice!r} is no precision; there are {', '.join(get_args(PrecisionChoice))}."
            )
        if choice == "bf16-direct" and not self.has_direct_convolutions:
            raise PrecisionUnsupported(
                f"bf16-direct needs compiled kernels for CPUs, which {self} does not use."
            )
        if choice in ("bf16", "mixed") and not self.computes_bf16():
            raise PrecisionUnsupported(
                f"{choice} needs bfloat16, which {self} does not compute; use fp16 or fp32."
            )

    def possible_precisions(self, choice: str, properties: NetworkProperties) -> Sequence[Precision]:
        """Returns the choice itself, or for `auto` the candidates; fp32 where the network may run in none of these.

        Raises `PrecisionUnsupported`.
        """
        self.check_precision(choice)
        named = [precision for precision in get_args(Precision) if precision == choice]
        wanted = named or self.candidate_precisions(properties)
        exact = [precision for precision in wanted if precision in properties.exact_precisions]
        return wanted if len(exact) == len(wanted) else exact or ["fp32"]

    @abstractmethod
    def available_bytes(self) -> int:
        """Returns the memory that is free now."""

    @abstractmethod
    def release_cached_memory(self) -> None:
        """Returns memory that torch keeps for later to the device, so that smaller pieces fit."""

    def plan_workload(
        self, *, properties: NetworkProperties, precision: Precision, source: FrameFormat, memory_bytes: int
    ) -> Workload:
        """Returns a first guess of batch and tile size for that much free memory; it may prove too large."""
        pixels = source.width * source.height
        bytes_per_pixel = activation_bytes_per_pixel(properties, precision)
        frame_bytes = _FRAME_BYTES_PER_PIXEL + (_ALPHA_BYTES_PER_PIXEL if source.has_alpha else 0)
        budget = memory_bytes * 7 // 10
        widest = self.max_tensor_values // properties.widest_tensor_values_per_input_pixel
        batch_size = max(1, min(_MAX_BATCH, _BUSY_PIXELS // pixels, widest // pixels))
        while batch_size > 1 and batch_size * pixels * (bytes_per_pixel + frame_bytes) > budget:
            batch_size //= 2
        for_tiles = max(budget // 4, budget - batch_size * pixels * frame_bytes)
        return Workload(
            batch_size=batch_size,
            tile_pixels=max(1, min(widest, for_tiles // bytes_per_pixel) // batch_size),
        )

    def make_runtime(
        self, network: nn.Module, *, properties: NetworkProperties, precision: Precision
    ) -> Runtime:
        """Returns the network ready to run here; `network` is copied or only read."""
        placed = place_network(
            network, device=self.torch_device, precision=precision, memory_format=self.memory_format
        )
        return Runtime(
            network=placed,
            memory_format=self.memory_format,
            reach_pixels=properties.receptive_radius,
        )

    def make_transfers(self) -> Transfers:
        """Returns what copies frames to the device and back, for one upscaler."""
        return Transfers(self.torch_device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Surrounds all computing: no gradients, and whatever arithmetic and exclusion the device needs."""
        with torch.inference_mode():
            yield

    @abstractmethod
    def synchronize(self) -> None:
        """Waits for all work that was started on the device."""
