"""For `gpu`: what surrounds the networks: joins of tiles, host memory to host memory, file to file."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.clips import PHOTOGRAPHS, cut
from bench.gpu_setting import Measured, Setting
from bench.machine import table
from bench.processes import run
from models.catalog import Engine
from worker.inference.colour import rgb_to_planes
from worker.inference.devices import CudaDevice, Device
from worker.inference.frames import Frame, FrameFormat
from worker.inference.upscaler import Upscaler


def device_for(setting: Setting, best: Measured) -> Device:
    """The device, computing in the way that was fastest."""
    device = setting.device
    return replace(device, fused_kernels=best.way) if isinstance(device, CudaDevice) else device


def upscaler_for(
    setting: Setting, engine: Engine, best: Measured, *, batch_size: int = 1, tile_pixels: int | None = None
) -> Upscaler:
    source = FrameFormat(width=best.size[0], height=best.size[1])
    return Upscaler(
        setting.network(engine),
        engine=engine,
        source=source,
        target=source.enlarged(engine.scale),
        device=device_for(setting, best),
        precision=setting.precision,
        batch_size=batch_size,
        tile_pixels=tile_pixels,
    )


def frames_of(setting: Setting, source: FrameFormat, count: int) -> list[Frame]:
    """Frames of which no two are equal: nothing is reused."""
    pictures = setting.pictures(count, (source.width, source.height))
    return list(rgb_to_planes(pictures, source).cpu().numpy())


def bests(setting: Setting) -> Iterator[tuple[Engine, Measured | None, str]]:
    """Each engine, its fastest way, and why it cannot be measured."""
    for engine in setting.engines:
        best = setting.best(engine) if setting.has_time else None
        yield engine, best, "skipped: " + ("no figure of its network" if setting.has_time else "no time left")


def measure_joins(setting: Setting) -> None:
    """Frames in tiles beside the same frames in one piece."""
    lines = []
    for engine, best, reason in bests(setting):
        if best is None:
            lines.append([engine.id, reason, "", ""])
            continue
        pixels = best.size[0] * best.size[1]
        whole = upscaler_for(setting, engine, best, tile_pixels=pixels)
        tiled = upscaler_for(setting, engine, best, tile_pixels=pixels // 3)
        frames = frames_of(setting, whole.source, 1)
        differences = np.abs(
            np.stack(whole.upscale(frames)).astype(int) - np.stack(tiled.upscale(frames)).astype(int)
        )
        setting.found.joins[engine.id] = float(differences.max())
        changed = f"{np.mean(differences > 0):.2%}"
        lines.append([engine.id, str(tiled.tile_count), f"{differences.max()}", changed])
    print(table(["engine", "tiles", "largest difference, 8-bit codes", "codes changed"], lines))


def measure_frames(setting: Setting) -> None:
    """Planes in host memory to planes in host memory: upload, conversion, network, conversion, download."""
    lines = []
    for engine, best, reason in bests(setting):
        if best is None:
            lines.append([engine.id, reason, "", "", ""])
            continue
        upscaler = upscaler_for(setting, engine, best, batch_size=best.images)
        frames = frames_of(setting, upscaler.source, best.images * (2 if setting.tiny else 24))
        upscaler.upscale(frames[: 2 * best.images])
        started = time.perf_counter()
        upscaler.upscale(frames)
        rate = len(frames) / (time.perf_counter() - started)
        share = setting.found.shares[engine.id] = rate / best.rate
        lines.append([engine.id, str(best), f"{rate:.4g}", f"{best.rate:.4g}", f"{share:.1%}"])
    print(table(["engine", "way", "frames/s", "network alone", "of it"], lines))


def measure_files(setting: Setting) -> None:
    """`regen upscale` of two lengths of a clip: what a further frame takes, beside the network alone."""
    if setting.weights is None or shutil.which("ffmpeg") is None:
        print("Not measured: it needs --weights, ffmpeg and all packages of the worker.")
        return
    short, long = (2, 4) if setting.tiny else (50, 250)
    lines = []
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        directory = Path(name)
        for engine, best, reason in bests(setting):
            if best is None:
                lines.append([engine.id, reason, "", ""])
                continue
            seconds = [_seconds_of_file(setting, engine, best, count, directory) for count in (short, long)]
            rate = (long - short) / max(seconds[1] - seconds[0], 1e-9)
            share = setting.found.shares[f"{engine.id}, files"] = rate / best.rate
            lines.append([engine.id, f"{seconds[1]:.1f} s", f"{rate:.4g}", f"{share:.1%}"])
    print(table(["engine", f"{long} frames", "further frames/s", "of the network alone"], lines))


def _seconds_of_file(setting: Setting, engine: Engine, best: Measured, frames: int, directory: Path) -> float:
    clip = directory / f"{frames}-{engine.id}.mp4"
    cut(PHOTOGRAPHS, clip, frames=frames, size=best.size)
    command = [sys.executable, "-m", "app.cli", "upscale", "--engine", engine.id]
    command += ["--device", str(setting.torch_device), "--data-dir", str(directory / "data")]
    own = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    own |= {"REGEN_WEIGHTS_DIR": str(setting.weights), "REGEN_FUSED_KERNELS": best.way}
    log = directory / "log"
    return run([*command, clip, clip.with_suffix(".4x.mp4")], environment=own, log=log).wall_seconds
