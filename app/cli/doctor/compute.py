"""Checks for upscaling: torch, its devices, the compiled CPU kernels, and the engines' weights."""

from collections.abc import Iterator

from app.cli.doctor.findings import Finding
from app.cli.reporting import missing_worker_packages
from app.platform.settings import Settings
from models.added import added_engines
from models.catalog import ENGINES, AddedWeights


def check_devices() -> Iterator[Finding]:
    """The devices that torch can use."""
    if missing := missing_worker_packages():
        found = f"{' and '.join(missing)} not installed: this machine can serve the API, not upscale"
        yield Finding.absent("torch", found, fix="pip install 'regen-server[worker]'")
        return
    import torch

    from worker.inference.cpu.kernels import find_kernels
    from worker.inference.devices import CpuDevice, find_devices

    yield Finding.ok("torch", torch.__version__)
    yield Finding.ok("CPU", CpuDevice().details)
    if (kernels := find_kernels()) is not None:
        yield Finding.ok("CPU kernels", f"compiled, for {kernels.instructions}")
    else:
        yield Finding.absent(
            "CPU kernels",
            "not compiled, by another version, or not for this processor: on a CPU torch computes, two to three times "
            "slower",
            fix="install a C compiler (on Debian or Ubuntu: apt install gcc libc6-dev), then the package again",
        )
    accelerators = [device for device in find_devices() if device.is_accelerator]
    for device in accelerators:
        yield Finding.ok(str(device), device.details)
    if not accelerators:
        cuda = torch.version.cuda
        yield Finding.absent(
            "GPU",
            "none that torch can use: the CPU upscales, slowly",
            fix="for an NVIDIA GPU install its driver, and a torch built for CUDA"
            if cuda is None
            else f"for an NVIDIA GPU install a driver for CUDA {cuda}; a container is given GPUs by `--gpus all`",
        )


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Each engine's weights exist and are the expected ones."""
    can_verify = not missing_worker_packages()
    for engine in (*ENGINES.values(), *added_engines(settings.weights_dir).values()):
        subject = f"weights of {engine.id}"
        path = settings.weights_dir / f"{engine.id}.safetensors"
        fix = f"regen weights convert --engine {engine.id}"
        if isinstance(engine.source, AddedWeights):
            fix = f"regen weights add {engine.id} ..."
        if not can_verify:
            if path.exists():
                yield Finding.ok(subject, "needed only by workers; not verified without torch")
            else:
                yield Finding.absent(subject, "for workers alone", fix="pip install 'regen-server[worker]'")
            continue
        from models.errors import WeightsError, WeightsMissing
        from models.weights import load_state_dict

        try:
            load_state_dict(path, engine)
        except WeightsMissing:
            yield Finding.absent(subject, f"not at {path}; converted on first use", fix=fix)
        except WeightsError as error:
            yield Finding.missing(subject, str(error), fix=f"rm {path}; {fix}")
        else:
            yield Finding.ok(subject, f"{path}, verified")
    if can_verify:
        yield from _check_precision(settings)


def _check_precision(settings: Settings) -> Iterator[Finding]:
    """What `auto` was measured to mean on this device."""
    from worker.inference.devices import choose_device
    from worker.inference.errors import InferenceError
    from worker.inference.fastest_precision import measurements

    try:
        device = choose_device(settings.device)
        device.check_precision(settings.precision)
    except InferenceError as error:
        yield Finding.missing("precision", str(error), fix="change REGEN_DEVICE or REGEN_PRECISION")
        return
    if settings.precision != "auto":
        yield Finding.ok("precision", settings.precision)
        return
    for measured in measurements(device, (settings.weights_dir, settings.data_dir)):
        yield Finding.ok(f"precision of {measured.engine_id} on {device}", str(measured))
