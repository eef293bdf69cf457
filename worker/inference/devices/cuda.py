"""NVIDIA GPUs."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import nn

from models.architectures import NetworkProperties
from worker.inference.cuda.transfers import StreamTransfers
from worker.inference.devices.device import Device
from worker.inference.errors import DeviceUnavailable
from worker.inference.precision import Precision
from worker.inference.runtime import Runtime
from worker.inference.transfers import Transfers

FusedKernels = Literal["off", "winograd"]

_GIB = 1024**3
# What the driver names GPUs and instances of MIG by.
UUID_PREFIXES = ("GPU-", "MIG-")


@dataclass(frozen=True)
class CudaDevice(Device):
    """A CUDA device. cuDNN's kernels index values with 32 bits.

    `fused_kernels`: networks in fp16 run in a Triton kernel of our own, by Winograd, as long as it agrees with torch's
    modules.
    """

    kind = "cuda"
    fused_kernels: FusedKernels = "off"

    @classmethod
    def find_all(cls) -> list[Self]:
        if not torch.cuda.is_available():
            return []
        current = torch.cuda.current_device()
        indexes = sorted(range(torch.cuda.device_count()), key=lambda index: index != current)
        return [cls(torch.device(cls.kind, index)) for index in indexes]

    @classmethod
    def open(cls, index: int | None) -> Self:
        found = cls.find_all()
        if (index or 0) >= len(found):
            name = torch.device(cls.kind) if index is None else torch.device(cls.kind, index)
            raise DeviceUnavailable(f"There is no device {name}: CUDA devices found: {len(found)}.")
        return found[0] if index is None else cls(torch.device(cls.kind, index))

    @classmethod
    def open_by_uuid(cls, uuid: str) -> Self:
        """The device that the driver names `GPU-...` or `MIG-...`, which becomes this process's only one.

        CUDA shows a process one instance of MIG at most, the first unless the environment names another. Raises
        `DeviceUnavailable`, also when the process has used CUDA already.
        """
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            raise DeviceUnavailable(f"This process uses CUDA already, so {uuid} can no longer be chosen.")
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid
        found = cls.find_all()
        if not found:
            raise DeviceUnavailable(f"There is no device {uuid}. `nvidia-smi -L` shows what there is.")
        return found[0]

    @property
    def model(self) -> str:
        return torch.cuda.get_device_name(self.torch_device)

    @property
    def details(self) -> str:
        facts = torch.cuda.get_device_properties(self.torch_device)
        return f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB"

    def candidate_precisions(self, properties: NetworkProperties) -> Sequence[Precision]:
        return ("fp16",)

    def native_precisions(self) -> frozenset[Precision]:
        return frozenset(("fp32", "fp16"))

    def computes_bf16(self) -> bool:
        return bool(torch.cuda.is_bf16_supported())

    def available_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self.torch_device)[0])

    def release_cached_memory(self) -> None:
        torch.cuda.empty_cache()

    def make_runtime(
        self, network: nn.Module, *, properties: NetworkProperties, precision: Precision
    ) -> Runtime:
        if precision == "fp16" and self.fused_kernels == "winograd":
            # Imported here: it loads Triton where that is installed.
            from worker.inference.cuda import kernels
            from worker.inference.cuda.fused import can_fuse
            from worker.inference.cuda.runtime import FusedRuntime

            if kernels.AVAILABLE and can_fuse(network):
                fused = FusedRuntime(network, device=self.torch_device)
                return Runtime(
                    network=fused,
                    memory_format=self.memory_format,
                    reach_pixels=properties.receptive_radius,
                    release=fused.release,
                )
        return super().make_runtime(network, properties=properties, precision=precision)

    def make_transfers(self) -> Transfers:
        return StreamTransfers(self.torch_device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        # By default cuDNN computes fp32 convolutions in TF32, with 10 bits of mantissa. Neither fp32 nor the layers
        # that bf16 and mixed keep in 32 bits may be computed so.
        with torch.inference_mode(), _EXACT_CUDNN.held():
            yield

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)


class _ExactCudnn:
    """Holds cuDNN's settings, which belong to the process and not to a thread, until the last thread that computes has
    left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._flags: AbstractContextManager[None] = nullcontext()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self._holders == 0:
                self._flags = torch.backends.cudnn.flags(
                    enabled=True, benchmark=True, deterministic=False, allow_tf32=False
                )
                self._flags.__enter__()
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._flags.__exit__(None, None, None)


_EXACT_CUDNN = _ExactCudnn()
