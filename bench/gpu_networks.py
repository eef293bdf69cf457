"""For `gpu`: the networks alone, run in every way there is, beside what the device can do at all."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from bench.gpu_setting import Measured, Setting
from bench.machine import table
from models.architectures import UpscalingNetwork
from worker.inference.cuda import kernels
from worker.inference.cuda.fused import FusedNetwork
from worker.inference.cuda.runtime import psnr
from worker.inference.devices.cuda import FusedKernels
from worker.inference.precision import place_network

MATRIX, CONVOLUTION = 8192, (8, 256, 180, 320)
POWER = ("nvidia-smi", "--query-gpu=power.draw,power.limit", "--format=csv,noheader,nounits")
Shape = tuple[int, int, int, int]
# "off": torch's modules, as the setting REGEN_FUSED_KERNELS calls it.
WAYS: tuple[FusedKernels, ...] = ("off", "winograd")


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
        large = random((4 if setting.tiny else 2048), 1024, 1024)
        copied = 2 * large.nbytes / setting.seconds_of(large.clone, times=10)
    setting.found.operations["matrix"] = matrices
    lines = [
        [f"matrix product, {side} x {side}", f"{matrices / 1e12:.4g} TFLOP/s"],
        [
            f"3x3 convolution, {channels} to {channels} channels, {images} x {columns}x{rows}",
            f"{convolutions / 1e12:.4g} TFLOP/s",
        ],
        ["copy within the device, bytes read and written", f"{copied / 1e12:.3g} TB/s"],
    ]
    print(table(["", f"{str(dtype).removeprefix('torch.')}, random values"], lines))


def made(
    setting: Setting, network: nn.Module, way: FusedKernels, shape: Shape
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network, ready to run in that way for that shape."""
    images, _, height, width = shape
    placed = place_network(network, device=setting.torch_device, precision=setting.precision)
    if way == "off":
        return placed
    return FusedNetwork(network, placed, images=images, height=height, width=width)


def compare(setting: Setting) -> None:
    """Each engine, size, number of frames at once and way. Prints each line as it is measured."""
    head = (
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
    )
    print(table(head, []), flush=True)
    ways = WAYS if kernels.AVAILABLE else WAYS[:1]
    with setting.arithmetic():
        for engine in setting.engines:
            network = setting.network(engine)
            exact = place_network(network, device=setting.torch_device, precision="fp32")
            for size, images in setting.shapes(engine):
                pictures = setting.pictures(images, size)
                setting.free()
                expected = exact(pictures[:1]).clone()
                for way in ways:
                    cells = _measure_way(setting, engine.id, network, way, pictures, expected)
                    named = [engine.id, f"{images} x {size[0]}x{size[1]}", way, *cells]
                    print(f"| {' | '.join(named)} |", flush=True)


def _measure_way(
    setting: Setting,
    engine_id: str,
    network: UpscalingNetwork,
    way: FusedKernels,
    pictures: torch.Tensor,
    expected: torch.Tensor,
) -> list[str]:
    if not setting.has_time:
        return ["skipped: no time left", *[""] * 6]
    setting.free()
    images, colours, height, width = pictures.shape
    try:
        run = made(setting, network, way, (images, colours, height, width))
        seconds = setting.seconds_of(partial(run, pictures))
        found = run(pictures)[:1].float()
    except Exception as error:  # one way that fails is a line of the table
        return [f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:80]}", *[""] * 6]
    operations = network.properties.mflop_per_input_pixel * 1e6 * images * height * width / seconds
    share = operations / setting.found.operations.get("matrix", float("nan"))
    taken = torch.cuda.max_memory_allocated() / 1e9 if setting.on_cuda else 0.0
    one = Measured(
        engine=engine_id,
        size=(width, height),
        images=images,
        way=way,
        seconds=seconds,
        share=share,
        decibels=psnr(found, expected),
    )
    setting.found.networks.append(one)
    worst = float((found - expected).abs().max()) * 255
    cells = [f"{seconds * 1e3:.4g}", f"{one.rate:.4g}", f"{operations / 1e12:.4g}", f"{share:.1%}"]
    return [*cells, f"{one.decibels:.1f} dB", f"{worst:.2f}", f"{taken:.2f}"]


def measure_power(setting: Setting) -> None:
    """Each engine's fastest way for some seconds on end: clocks fall when a device grows warm."""
    lines = []
    seconds = 0.1 if setting.tiny else 10.0
    with setting.arithmetic():
        for engine in setting.engines:
            best = setting.best(engine)
            if best is None or not setting.has_time:
                lines.append([engine.id, "skipped: " + ("no time left" if best else "no figure"), "", "", ""])
                continue
            width, height = best.size
            run = made(setting, setting.network(engine), best.way, (best.images, 3, height, width))
            pictures = setting.pictures(best.images, best.size)
            rounds, taken, power = _sustained(setting, partial(run, pictures), seconds)
            rate = rounds * best.images / taken
            watts = f"{power[0]:.0f} of {power[1]:.0f} W" if power else "not readable"
            joules = f"{power[0] / rate:.3g} J" if power else ""
            lines.append([engine.id, str(best), f"{rate:.4g} frames/s", watts, joules])
    print(table(["engine", "way", f"over {seconds:g} s", "power", "a frame"], lines))


def _sustained(
    setting: Setting, run: Callable[[], object], seconds: float
) -> tuple[int, float, tuple[float, float] | None]:
    """Returns runs, their time, and the mean power with its limit in watts, None where it cannot be read."""
    readings: list[tuple[float, float]] = []
    # By its UUID, for the driver's numbers are not torch's.
    name = f"GPU-{torch.cuda.get_device_properties(setting.torch_device).uuid}" if setting.on_cuda else "0"
    done = threading.Event()

    def read() -> None:
        while not done.wait(seconds / 10):
            if (reading := read_power(name)) is not None:
                readings.append(reading)

    reader = threading.Thread(target=read)
    reader.start()
    started, rounds = time.perf_counter(), 0
    try:
        while time.perf_counter() < started + seconds:
            for _ in range(4):
                run()
                rounds += 1
            setting.device.synchronize()
        taken = time.perf_counter() - started
    finally:
        done.set()
        reader.join()
    if not readings:
        return rounds, taken, None
    mean = sum(watts for watts, _ in readings) / len(readings)
    return rounds, taken, (mean, readings[-1][1])


def read_power(name: str) -> tuple[float, float] | None:
    """The power that the device of that name draws, and its limit, in watts; None where they cannot be read."""
    if (program := shutil.which(POWER[0])) is None:
        return None
    try:
        command = [program, *POWER[1:], "-i", name]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
        drawn, limit = answer.strip().split(",")
        return float(drawn), float(limit)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
