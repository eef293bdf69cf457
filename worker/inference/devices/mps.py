"""Apple GPUs, by Metal."""

import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch

from models.architectures import NetworkProperties
from worker.inference.devices.device import Device
from worker.inference.errors import DeviceUnavailable
from worker.inference.precision import Precision

_EXCLUSIVE = threading.Lock()


@dataclass(frozen=True)
class MpsDevice(Device):
    """A Metal device. Its tensors end at 4 GiB; channels-last brings no speed there and has given wrong results."""

    kind = "mps"
    max_tensor_values = 2**30
    memory_format = torch.contiguous_format

    @classmethod
    def find_all(cls) -> list[Self]:
        return [cls(torch.device(cls.kind))] if torch.backends.mps.is_available() else []

    @classmethod
    def open(cls, index: int | None) -> Self:
        found = cls.find_all()
        if not found:
            raise DeviceUnavailable("There is no Metal device here.")
        return found[0]

    @property
    def model(self) -> str:
        return f"Metal, {platform.machine()}"

    @property
    def details(self) -> str:
        return "Metal device"

    def candidate_precisions(self, properties: NetworkProperties) -> Sequence[Precision]:
        # Metal's fp16 convolutions promise little speed, and their accuracy has not been measured.
        return ("fp32",)

    def native_precisions(self) -> frozenset[Precision]:
        return frozenset(("fp32",))

    def computes_bf16(self) -> bool:
        try:
            torch.ones(1, device=self.torch_device, dtype=torch.bfloat16).add_(1)
        except (RuntimeError, TypeError):
            return False
        return True

    def available_bytes(self) -> int:
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())

    def release_cached_memory(self) -> None:
        torch.mps.empty_cache()

    @contextmanager
    def computing(self) -> Iterator[None]:
        # Two threads must not fill Metal's command buffers at the same time.
        with _EXCLUSIVE, torch.inference_mode():
            yield

    def synchronize(self) -> None:
        torch.mps.synchronize()
