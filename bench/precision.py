"""What reduced precision costs: real frames, each precision beside the plain modules of torch in fp32 on the CPU.

    .venv/bin/python -m bench.precision [--device cuda] [--frames 3] [--tiny]

Frames go the upscaler's own way, kernels of its own included, to 16 bits of output (which alone costs 107 dB); the
reference is the network's modules called with the same pixels. Photographs, film and a cartoon. Differences are in
code values of 8 bits; then how many codes differ once they are rounded to 8 bits. The last lines say whether what each
engine does on this device when nothing is asked for stays above 50 dB in every frame; the exit status says so too.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from bench.clips import FILM, LARGE_CARTOON, PHOTOGRAPHS, Size, read_picture
from bench.machine import heading, table
from models.architectures import UpscalingNetwork
from models.catalog import ENGINES, Engine
from models.loader import load_network
from worker.inference.devices import Device, choose_device
from worker.inference.devices.cpu import has_native_bf16
from worker.inference.errors import PrecisionUnsupported
from worker.inference.fastest_precision import choose_precision
from worker.inference.frames import FrameFormat
from worker.inference.precision import Precision
from worker.inference.upscaler import Upscaler

CLIPS = {"photographs": PHOTOGRAPHS, "film": FILM, "cartoon": LARGE_CARTOON}
CLIP_FRAMES = {"photographs": 75, "film": 60, "cartoon": 100}
# regen-4x costs thirty times as much.
SIZES: dict[str, Size] = {"regen-4x-lite": (320, 180), "regen-4x": (112, 80)}
TINY: Size = (32, 24)
LEAST_DECIBELS = 50.0
CODE = 65535 / 255

Picture: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one frame. `worst` is in codes of 8 bits, `changed` the share of them that are others once rounded."""

    decibels: float
    worst: float
    changed: float


def reference(network: UpscalingNetwork, shown: NDArray[np.uint8]) -> Picture:
    """rows x columns x 3 in codes of 8 bits with a fraction, by torch alone."""
    values = torch.from_numpy(shown.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        enlarged = network(values)[0].clamp(0, 1).permute(1, 2, 0)
    codes: Picture = enlarged.numpy().astype(np.float64) * 255
    return codes


def upscaler_for(
    network: UpscalingNetwork, engine: Engine, *, size: Size, device: Device, precision: Precision
) -> Upscaler:
    source = FrameFormat(width=size[0], height=size[1], layout="gbr", full_range=True)
    return Upscaler(
        network,
        engine=engine,
        source=source,
        target=replace(source.enlarged(engine.scale), bit_depth=16),
        device=device,
        precision=precision,
        tile_pixels=size[0] * size[1],
        batch_size=1,
    )


def difference(upscaler: Upscaler, shown: NDArray[np.uint8], whole: Picture) -> Difference:
    (frame,) = upscaler.upscale([upscaler.source.join([shown[:, :, index] for index in (1, 2, 0)])])
    green, blue, red = (plane / CODE for plane in upscaler.target.split(frame))
    found = np.stack((red, green, blue), axis=-1)
    squared = float(np.mean((found - whole) ** 2))
    return Difference(
        decibels=10 * math.log10(255**2 / squared) if squared else math.inf,
        worst=float(np.abs(found - whole).max()),
        changed=float(np.mean(np.rint(found) != np.rint(whole))),
    )


def possible(device: Device) -> Iterator[Precision]:
    for precision in get_args(Precision):
        with suppress(PrecisionUnsupported):
            device.check_precision(precision)
            yield precision


def measure(
    network: UpscalingNetwork, engine: Engine, *, size: Size, device: Device, frames: int
) -> tuple[list[Sequence[str]], float]:
    """The engine's lines, and the worst frame's PSNR of what it does unasked."""
    pictures: dict[str, list[tuple[NDArray[np.uint8], Picture]]] = {}
    for name, clip in CLIPS.items():
        step = CLIP_FRAMES[name] // (frames + 1)
        shown = [read_picture(clip, step * (index + 1), size=size) for index in range(frames)]
        pictures[name] = [(one, reference(network, one)) for one in shown]
    unasked = choose_precision(device, "auto", network, engine_id=engine.id)
    lines: list[Sequence[str]] = []
    least = math.inf
    for precision in possible(device):
        upscaler = upscaler_for(network, engine, size=size, device=device, precision=precision)
        for name, pairs in pictures.items():
            found = [difference(upscaler, shown, whole) for shown, whole in pairs]
            lowest = min(one.decibels for one in found)
            if precision == unasked:
                least = min(least, lowest)
            mark = "**" if precision == unasked else ""
            lines.append(
                (
                    *(engine.id, f"{mark}{precision}{mark}", name, str(len(found))),
                    f"{np.mean([one.decibels for one in found]):.1f} dB",
                    f"{lowest:.1f} dB",
                    f"{max(one.worst for one in found):.3f}",
                    f"{np.mean([one.changed for one in found]):.2%}",
                )
            )
    return lines, least


def main() -> None:
    parser = argparse.ArgumentParser(description="What reduced precision costs.")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, ...")
    parser.add_argument("--frames", type=int, default=3, help="of each clip")
    parser.add_argument("--tiny", action="store_true", help="tiny pictures, to see that it runs")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    lines: list[Sequence[str]] = []
    verdicts = {}
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as directory:
        for engine in ENGINES.values():
            network = load_network(engine.id, weights_directory=directory)
            size = TINY if arguments.tiny else SIZES[engine.id]
            own, verdicts[engine.id] = measure(
                network, engine, size=size, device=device, frames=arguments.frames
            )
            lines += own
    bfloat16 = "multiplies" if has_native_bf16() else "does not multiply"
    print(f"{heading()} On {device}; this CPU {bfloat16} bfloat16 in hardware. Bold: what is done unasked.\n")
    head = (
        "engine",
        "precision",
        "pictures",
        "frames",
        "PSNR",
        "worst frame",
        "worst value",
        "8-bit codes changed",
    )
    print(table(head, lines))
    print()
    for engine_id, least in verdicts.items():
        verdict = "holds" if least >= LEAST_DECIBELS else "DOES NOT HOLD"
        print(f"- {engine_id}: {least:.1f} dB in its worst frame; {LEAST_DECIBELS:.0f} dB {verdict}")
    if min(verdicts.values()) < LEAST_DECIBELS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
