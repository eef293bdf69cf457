"""For `gpu`: the upscaler as the worker uses it, from a frame's bytes to the enlarged frame's."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.gpu_networks import Setting
from bench.machine import table
from models.catalog import ENGINES, Engine
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.cuda.runtime import CudaRuntime
from worker.inference.devices import choose_device
from worker.inference.frames import Frame, FrameFormat
from worker.inference.upscaler import Upscaler

SIZE = (640, 360)
BATCHES = {"regen-4x": 8, "regen-4x-lite": 60}
# Patience for what is compiled beside the first frames.
CHOICE_SECONDS = 400.0
_ROOT = Path(__file__).parents[1]


def frame_format(setting: Setting) -> FrameFormat:
    width, height = (32, 16) if setting.tiny else SIZE
    return FrameFormat(width=width, height=height)


def make_upscaler(setting: Setting, engine: Engine) -> Upscaler:
    source = frame_format(setting)
    return Upscaler(
        setting.network(engine),
        engine=engine,
        source=source,
        target=source.enlarged(engine.scale),
        device=setting.device,
        precision=setting.precision,
    )


def distinct_frames(source: FrameFormat, count: int) -> list[Frame]:
    """No two alike: an upscaler computes what repeats itself once."""
    y, x = np.mgrid[0 : source.height, 0 : source.width]
    frames = []
    for index in range(count):
        luma = 128 + 60 * np.sin((x + 3 * index) / 9) + 40 * np.sin(y / 5 + x / 17)
        frames.append(
            source.join(
                [np.clip(luma[:rows, :columns] + index % 7, 16, 235) for rows, columns in source.plane_shapes]
            )
        )
    return frames


def wait_for_choice(upscaler: Upscaler, frames: Sequence[Frame]) -> str:
    """Runs until it is settled what computes, and says what."""
    runtime = upscaler._runtime.network
    ends_at = time.monotonic() + CHOICE_SECONDS
    while isinstance(runtime, CudaRuntime) and runtime.choice is None:
        if time.monotonic() > ends_at:
            return "undecided"
        for begin in range(0, len(frames), upscaler.batch_size):
            upscaler.upscale(frames[begin : begin + upscaler.batch_size])
        time.sleep(0.05)
    return (
        runtime.choice.name if isinstance(runtime, CudaRuntime) and runtime.choice else type(runtime).__name__
    )


def measure_flow(setting: Setting) -> None:
    """Whole frames a second by way of the upscaler, beside the network alone; then the parts of one batch."""
    lines, parts = [], []
    for engine in setting.engines:
        upscaler = make_upscaler(setting, engine)
        batch = upscaler.batch_size
        count = batch * (2 if setting.tiny else BATCHES[engine.id])
        frames = distinct_frames(upscaler.source, count)
        chosen = wait_for_choice(upscaler, frames[: 2 * batch])
        with setting.arithmetic():
            alone, spans = parts_of_batch(setting, upscaler, frames[:batch])
        rates = []
        for at_once in (batch, 2 * batch):
            started = time.perf_counter()
            for begin in range(0, count, at_once):
                upscaler.upscale(frames[begin : begin + at_once])
            rates.append(count / (time.perf_counter() - started))
        line = [engine.id, chosen, str(batch), f"{batch / alone:.1f}"]
        lines.append([*line, *(f"{rate:.1f} ({rate * alone / batch:.0%})" for rate in rates)])
        parts += [
            [engine.id, name, f"{span * 1e3:.3f}", f"{span / sum(spans.values()):.1%}"]
            for name, span in spans.items()
        ]
        del upscaler
        setting.free()
    source = frame_format(setting)
    head = ["engine", "network run as", "batch", "network alone", "one batch a call", "two a call"]
    print(f"{source.width}x{source.height} {source.pix_fmt}, frames/s.\n")
    print(table(head, lines))
    print()
    print(table(["engine", "part of a batch", "ms", "share"], parts))


def parts_of_batch(
    setting: Setting, upscaler: Upscaler, frames: Sequence[Frame]
) -> tuple[float, dict[str, float]]:
    """Seconds of the network, and of every part, each measured alone."""
    raw = torch.from_numpy(np.stack(frames))
    on_cuda = setting.on_cuda
    host = raw.pin_memory() if on_cuda else raw
    there = host.to(setting.torch_device)
    rgb = planes_to_rgb(there, upscaler.source).contiguous(memory_format=torch.channels_last)
    enlarged = upscaler._runtime(rgb).clone()
    planes = rgb_to_planes(enlarged, upscaler.target)
    back = torch.empty(planes.shape, dtype=torch.uint8, pin_memory=on_cuda)
    spans = {
        "copy in": setting.seconds_of(lambda: there.copy_(host, non_blocking=True)),
        "planes to RGB": setting.seconds_of(lambda: planes_to_rgb(there, upscaler.source)),
        "network": setting.seconds_of(lambda: upscaler._runtime(rgb)),
        "RGB to planes": setting.seconds_of(lambda: rgb_to_planes(enlarged, upscaler.target)),
        "copy out": setting.seconds_of(lambda: back.copy_(planes, non_blocking=True)),
    }
    return spans["network"], spans


def measure_memory(setting: Setting) -> None:
    """The most that was taken in each third of many frames: flat, or it leaks."""
    if not setting.on_cuda:
        print("Only a CUDA device tells.")
        return
    lines = []
    for engine in setting.engines:
        setting.free()
        upscaler = make_upscaler(setting, engine)
        batch = upscaler.batch_size
        frames = distinct_frames(upscaler.source, batch * (2 if setting.tiny else 6))
        wait_for_choice(upscaler, frames[: 2 * batch])
        peaks = []
        for _ in range(3):
            torch.cuda.reset_peak_memory_stats()
            for _ in range(1 if engine.id == "regen-4x" else 10):
                for begin in range(0, len(frames), batch):
                    upscaler.upscale(frames[begin : begin + batch])
            peaks.append(torch.cuda.max_memory_allocated())
        reserved = torch.cuda.memory_reserved()
        lines.append([engine.id, *(f"{peak / 1e9:.3f}" for peak in peaks), f"{reserved / 1e9:.3f}"])
        del upscaler
    setting.free()
    print(table(["engine", "first third, GB", "second", "last", "reserved at the end"], lines))


def measure_start(setting: Setting) -> None:
    """A fresh process each: nothing compiled before, then with what the first one left."""
    lines = []
    for engine in setting.engines:
        with tempfile.TemporaryDirectory(prefix="regen-bench-") as cache:
            for state in ("cold", "warm"):
                told = start_once(setting, engine, cache)
                lines.append([engine.id, state, *(f"{seconds:.1f}" for seconds in told[:3]), str(told[3])])
    print(table(["engine", "caches", "imports, s", "first frame, s", "settled, s", "network run as"], lines))


def start_once(setting: Setting, engine: Engine, cache: str) -> tuple[float, float, float, str]:
    command = [sys.executable, "-m", "bench.gpu_flow", engine.id, str(setting.device), str(int(setting.tiny))]
    environment = os.environ | {"TRITON_CACHE_DIR": cache}
    answer = subprocess.run(
        command,
        check=False,
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHOICE_SECONDS + 60,
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr[-2000:])
    told = json.loads(answer.stdout.strip().splitlines()[-1])
    return told["imported"], told["first"], told["settled"], told["chosen"]


def _start(engine_id: str, device: str, tiny: bool) -> None:
    """What `start_once` starts: seconds since this process began."""
    imported = _seconds_since_start()
    setting = Setting(device=choose_device(device), weights=None, frames=None, compiles=False, tiny=tiny)
    upscaler = make_upscaler(setting, ENGINES[engine_id])
    frames = distinct_frames(upscaler.source, 4 * upscaler.batch_size)
    upscaler.upscale(frames[:1])
    first = _seconds_since_start()
    chosen = wait_for_choice(upscaler, frames)
    settled = _seconds_since_start()
    print(json.dumps({"imported": imported, "first": first, "settled": settled, "chosen": chosen}))


def _seconds_since_start() -> float:
    """On Linux; elsewhere since this module was loaded."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return time.perf_counter() - _LOADED
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


_LOADED = time.perf_counter()

if __name__ == "__main__":
    _start(sys.argv[1], sys.argv[2], sys.argv[3] == "1")
