"""The processor."""

import hashlib
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

import torch
from torch import nn

from models.architectures import NetworkProperties
from worker.inference.cpu.direct_trial import compile_directly, find_agreeing_matrix_unit
from worker.inference.cpu.kernels import find_kernels, find_matrix_unit, kernels_digest
from worker.inference.cpu.network import compile_network
from worker.inference.devices.device import Device
from worker.inference.errors import PrecisionUnsupported
from worker.inference.frames import FrameFormat
from worker.inference.memory import Workload, activation_bytes_per_pixel
from worker.inference.precision import Precision
from worker.inference.runtime import Runtime

# More would bring no speed, and the machine has other work.
_BUDGET_BYTES = 4 * 1024**3
# Assumed where the system does not tell.
_FALLBACK_BYTES = 4 * 1024**3
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True)
class CpuDevice(Device):
    """The processor, with all threads that torch uses."""

    kind = "cpu"
    is_accelerator = False
    slowest_mflop_per_second = 1e4  # a twentieth of two cores of a server's CPU
    reuses_regions = True

    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def find_all(cls) -> list[Self]:
        return [cls()]

    @classmethod
    def open(cls, index: int | None) -> Self:
        return cls()

    @property
    def model(self) -> str:
        return f"CPU, {platform.machine()}, {torch.get_num_threads()} threads"

    @property
    def details(self) -> str:
        bf16 = "computes bf16" if has_native_bf16() else "no bf16"
        if (unit := find_matrix_unit()) is not None:
            agrees = "agrees" if find_agreeing_matrix_unit() else "DISAGREES"
            bf16 += f", matrix unit {unit.instructions} {agrees} with plain C"
        return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, {bf16}"

    @property
    def traits(self) -> dict[str, str]:
        processor, flags = _processor()
        return {
            **super().traits,
            "processor": processor,
            "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
            "kernels": kernels_digest(),
        }

    @property
    def threads(self) -> int | None:
        return torch.get_num_threads()

    def candidate_precisions(self, properties: NetworkProperties) -> Sequence[Precision]:
        native, every = self.native_precisions(), ("fp32", properties.reduced_precision, "bf16-direct")
        return [precision for precision in every if precision in native]

    def native_precisions(self) -> frozenset[Precision]:
        native: set[Precision] = {"fp32"}
        if has_native_bf16():
            native |= {"bf16", "mixed"}
        if find_agreeing_matrix_unit() is not None:
            native.add("bf16-direct")
        return frozenset(native)

    def numerics(self, precision: Precision) -> str:
        name = super().numerics(precision)
        return (
            name
            if name == precision
            else f"{precision}-{_bf16_instructions()}-{torch.__version__.partition('+')[0]}"
        )

    @property
    def has_direct_convolutions(self) -> bool:
        return find_kernels() is not None

    def computes_bf16(self) -> bool:
        return True

    def check_precision(self, choice: str) -> None:
        if choice == "fp16":
            raise PrecisionUnsupported("fp16 needs a GPU; on a CPU use fp32, bf16 or mixed.")
        super().check_precision(choice)

    def available_bytes(self) -> int:
        return min(_machine_bytes(), _control_group_bytes())

    def release_cached_memory(self) -> None:
        """torch caches nothing on the host."""

    def synchronize(self) -> None:
        """Calls return when their work is done."""

    def plan_workload(
        self, *, properties: NetworkProperties, precision: Precision, source: FrameFormat, memory_bytes: int
    ) -> Workload:
        budget = min(_BUDGET_BYTES, memory_bytes // 3)
        tile_pixels = max(1, budget // activation_bytes_per_pixel(properties, precision))
        return Workload(batch_size=1, tile_pixels=tile_pixels)

    def make_runtime(
        self, network: nn.Module, *, properties: NetworkProperties, precision: Precision
    ) -> Runtime:
        if precision == "fp32" and (compiled := compile_network(network)) is not None:
            return Runtime(
                network=compiled,
                memory_format=torch.contiguous_format,
                reach_pixels=compiled.reach_pixels,
            )
        if precision == "bf16-direct":
            if (direct := compile_directly(network)) is None:
                return self.make_runtime(network, properties=properties, precision="fp32")
            return Runtime(
                network=direct, memory_format=torch.contiguous_format, reach_pixels=direct.reach_pixels
            )
        return super().make_runtime(network, properties=properties, precision=precision)


def has_native_bf16() -> bool:
    """Returns whether this CPU multiplies bfloat16 in hardware; otherwise bf16 is slower than torch's fp32."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # Private functions: a later torch may lack them, and fp32 is always right.
        return any(
            bool(getattr(torch.cpu, name, lambda: False)())
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    if platform.machine().lower() in ("aarch64", "arm64"):
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is not None and bool(supported())
    return False


def _bf16_instructions() -> str:
    for name, instructions in (
        ("_is_amx_tile_supported", "amx"),
        ("_is_avx512_bf16_supported", "avx512_bf16"),
    ):
        if getattr(torch.cpu, name, lambda: False)():
            return instructions
    return torch.backends.cpu.get_cpu_capability().lower()


@cache
def _processor() -> tuple[str, str]:
    """Returns the processor's name and the list of its features, each empty where the system does not tell."""
    found = {"model name": "", "flags": ""}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() in found:
                found[name.strip()] = value.strip()
    return found["model name"], found["flags"]


def _machine_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        # Not every system reports free memory: half of the installed memory.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _FALLBACK_BYTES


def _control_group_bytes() -> int:
    """Returns what the limit of control groups version 2 leaves; beyond it the kernel kills instead of refusing."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return _UNLIMITED_BYTES
        return max(0, int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return _UNLIMITED_BYTES
