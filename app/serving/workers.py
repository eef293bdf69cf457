"""Several workers on one machine: one supervised process per device."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

import structlog

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings
from app.serving.child import ChildProcess
from app.serving.signals import StopSignals
from app.serving.supervisor import WORKER_GRACE_SECONDS, SupervisedProcess, stop_all, supervise_until

HIGHEST_PORT = 65535
FIND_SECONDS = 120.0
FIND_PROGRAM = (
    "from worker.inference.devices import find_devices; "
    "print(*(device for device in find_devices() if device.is_accelerator))"
)
THREADS_VARIABLE = "OMP_NUM_THREADS"

log = structlog.get_logger(__name__)


def run_workers(settings: Settings, devices: Sequence[str]) -> int:
    """Run one worker per device until SIGTERM or SIGINT, in the main thread. Returns the exit status.

    At the signal they finish their current work, as long as the settings allow; at a second one they release it at
    once. The status is EX_CONFIG if all of them end with it. Raises ConfigurationError.
    """
    commands = [
        worker_command(settings, device=device, metrics_port=port)
        for device, port in zip(devices, metrics_ports(settings, len(devices)), strict=True)
    ]
    environment = child_environment(devices)
    # The number distinguishes two workers on one device.
    workers = [
        SupervisedProcess(
            f"worker {number} ({device})",
            lambda command=command: ChildProcess(command, environment=environment),  # type: ignore[misc]
            grace_seconds=settings.drain_seconds + WORKER_GRACE_SECONDS,
        )
        for number, (device, command) in enumerate(zip(devices, commands, strict=True))
    ]
    with StopSignals() as signals:
        log.info("workers_started", devices=list(devices))
        try:
            supervise_until(lambda: signals.requested or all(one.misconfigured for one in workers), workers)
        finally:
            stop_all(workers, hurry=lambda: signals.repeated)
    return os.EX_OK if signals.requested else os.EX_CONFIG


def worker_command(
    settings: Settings, *, device: str | None = None, metrics_port: int | None = None
) -> list[str]:
    """The command of one worker process as a child of this one; `device` defaults to the setting."""
    # -P: an `app` package in the current directory must not shadow the installed one.
    command = [
        *(sys.executable, "-P", "-m", "app.cli", "worker"),
        *("--data-dir", str(settings.root), "--parent-pid", str(os.getpid())),
        *("--queues", ",".join(queue.value for queue in settings.queues)),
    ]
    if settings.engines:
        command += ["--engines", ",".join(settings.engines)]
    for label in settings.labels:
        command += ["--label", label]
    if device is not None:
        command += ["--device", device]
    if metrics_port is not None:
        command += ["--metrics-port", str(metrics_port)]
    return command


def metrics_ports(settings: Settings, count: int) -> list[int | None]:
    """One port per worker, counting up from the setting; 0 stays "any free port". Raises ConfigurationError."""
    first = settings.worker_metrics_port
    if not first:
        return [first] * count
    if first + count - 1 > HIGHEST_PORT:
        raise ConfigurationError(
            f"{count} workers need as many ports for their metrics; there are not enough from {first} on."
        )
    return list(range(first, first + count))


def child_environment(devices: Sequence[str]) -> dict[str, str]:
    """This process's environment; it divides the cores among CPU workers unless the threads are already set."""
    environment = dict(os.environ)
    on_cpu = devices.count("cpu")
    if on_cpu > 1:
        environment.setdefault(THREADS_VARIABLE, str(max(1, (os.cpu_count() or 1) // on_cpu)))
    return environment


def accelerators() -> list[str]:
    """The names of all devices that are not the CPU. Raises ConfigurationError when there is none.

    CUDA shows a process only one MIG instance, so the driver lists the instances of a divided GPU. Otherwise
    a separate process asks torch, which takes seconds and hundreds of megabytes to load.
    """
    if instances := mig_devices():
        return instances
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", FIND_PROGRAM],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FIND_SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigurationError(
            "torch could not list its devices: `regen doctor` may say more.",
            detail=getattr(error, "stderr", None) or str(error),
        ) from error
    if not asked.stdout.split():
        raise ConfigurationError(
            "There is no GPU that torch can use here. `regen doctor` shows what is missing; --device cpu works "
            "without one."
        )
    return asked.stdout.split()


def mig_devices() -> list[str]:
    """The UUIDs of all MIG instances that this process may use, and of the undivided GPUs.

    Empty if no GPU is divided: then torch names all devices. The format is that of `nvidia-smi -L`, in
    NVIDIA's MIG User Guide; CUDA_VISIBLE_DEVICES limits the devices, as it does for CUDA.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name.strip() for name in visible.split(",")]
        return named if any(name.startswith("MIG-") for name in named) else []
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = subprocess.run(
            [program, "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FIND_SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    devices: list[str] = []
    for line in asked.stdout.splitlines():
        if (found := re.search(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", line)) is None:
            continue
        uuid = found[1]
        # The instances of a GPU follow it, and replace it.
        if uuid.startswith("MIG-") and devices and devices[-1].startswith("GPU-"):
            devices.pop()
        devices.append(uuid)
    return devices if any(name.startswith("MIG-") for name in devices) else []
