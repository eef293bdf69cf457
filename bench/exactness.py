"""What tiles and reduced precision cost: real frames beside the same frames whole and in fp32.

    .venv/bin/python -m bench.exactness [--device cuda]

Prints tables for bench/RESULTS.md. Differences are in code values of 8 bits, measured on 16 bits of output, that is
before rounding; then how many codes differ once they are rounded to 8 and to 10 bits. `Engine.tile_overlap` is chosen
by it.
"""

import argparse
import math
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.catalog import ENGINES, Engine
from models.loader import load_network
from worker.inference.frames import FrameFormat
from worker.inference.precision import Precision, choose_device
from worker.inference.upscaler import Upscaler

MEDIA = Path(__file__).parents[1] / "tests" / "media"
SIZE = (480, 270)
# Of the file, from the start: a cartoon, a film, and the film with grain as of a fast photograph.
FRAMES = {"cartoon": ("bunny-480x270-25fps.mp4", 10), "film": ("webb-480x270-2997fps-hevc.mp4", 20)}
GRAIN_CODES = 8.0
# regen-4x costs thirty times as much: a strip with one upright seam in its middle.
PICTURES = {"regen-4x-lite": (320, 180), "regen-4x": (288, 24)}
OVERLAPS = {"regen-4x-lite": (8, 12, 16, 18), "regen-4x": (48, 64, 80, 96, 128)}
SEAM_PIXELS = 4
FAR_PIXELS = 64
CODE = 65535 / 255

Picture = NDArray[np.float64]


@dataclass(frozen=True)
class Bench:
    device: torch.device
    weights: Path

    def upscaled(
        self,
        network: nn.Module,
        engine: Engine,
        picture: NDArray[np.uint8],
        *,
        precision: Precision = "fp32",
        tile_pixels: int | None = None,
    ) -> tuple[Picture, int]:
        """rows x columns x 3 in codes of 8 bits with a fraction, and in how many tiles."""
        rows, columns = picture.shape[:2]
        source = FrameFormat(width=columns, height=rows, layout="gbr", full_range=True)
        target = replace(source.enlarged(engine.scale), bit_depth=16)
        upscaler = Upscaler(
            network,
            engine=engine,
            source=source,
            target=target,
            device=self.device,
            precision=precision,
            tile_pixels=tile_pixels or rows * columns,
            batch_size=1,
        )
        (frame,) = upscaler.upscale([source.join([picture[:, :, index] for index in (1, 2, 0)])])
        return np.stack(target.split(frame), axis=-1) / CODE, upscaler.tile_count


def pictures(columns: int, rows: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Real frames, RGB, the middle of each."""
    left, top = (SIZE[0] - columns) // 2, (SIZE[1] - rows) // 2
    picture = np.zeros((rows, columns, 3), np.uint8)
    for name, (file, number) in FRAMES.items():
        command = ["ffmpeg", "-v", "error", "-i", str(MEDIA / file), "-frames:v", "1", "-f", "rawvideo"]
        command += ["-vf", f"select=eq(n\\,{number}),format=rgb24", "-"]
        raw = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
        picture = raw.reshape(SIZE[1], SIZE[0], 3)[top : top + rows, left : left + columns]
        yield name, picture
    grain = np.random.default_rng(1).normal(0, GRAIN_CODES, (rows, columns, 1))
    yield "film, grain", np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


def measure(bench: Bench, network: nn.Module, engine: Engine) -> list[str]:
    """Prints the lines about tiles, and returns those about precision."""
    lines = []
    for name, picture in pictures(*PICTURES[engine.id]):
        whole, _ = bench.upscaled(network, engine, picture)
        for overlap in OVERLAPS[engine.id]:
            print(tile_line(bench, network, engine, name, picture, whole, overlap), flush=True)
        reduced: tuple[Precision, ...] = ("bf16", "mixed")
        for precision in reduced if bench.device.type == "cpu" else ("fp16", *reduced):
            found, _ = bench.upscaled(network, engine, picture, precision=precision)
            error = np.abs(found - whole)
            psnr = 10 * math.log10(255**2 / np.mean(error**2))
            lines.append(f"| {engine.id} | {name} | {precision} | {psnr:.1f} dB | {error.max():.2f} |")
    return lines


def tile_line(
    bench: Bench,
    network: nn.Module,
    engine: Engine,
    name: str,
    picture: NDArray[np.uint8],
    whole: Picture,
    overlap: int,
) -> str:
    columns, rows = PICTURES[engine.id]
    strip = rows < FAR_PIXELS
    tile_pixels = (columns // 2 + overlap) * rows if strip else columns * rows // 3
    padded = replace(engine, tile_overlap=overlap)
    cut, count = bench.upscaled(network, padded, picture, tile_pixels=tile_pixels)
    difference = np.abs(cut - whole)
    by_column, scale = difference.max(axis=(0, 2)), engine.scale
    seam, far = columns // 2 * scale, FAR_PIXELS * scale
    at_seam = by_column[seam - SEAM_PIXELS : seam + SEAM_PIXELS].max()
    elsewhere = np.r_[by_column[: seam - far], by_column[seam + far :]].max()
    places = f"{at_seam:.3f} | {elsewhere:.3f}" if strip else " | "
    changed = [np.mean(np.rint(cut * step) != np.rint(whole * step)) for step in (1, 1023 / 255)]
    chosen = "**" if overlap == engine.tile_overlap else ""
    return (
        f"| {engine.id} | {name} | {chosen}{overlap}{chosen} | {count} | {difference.max():.3f} | "
        f"{difference.mean():.4f} | {places} | {changed[0]:.2%} | {changed[1]:.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What tiles and reduced precision cost.")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, ...")
    device = choose_device(parser.parse_args().device)
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as directory:
        bench = Bench(device, Path(directory))
        networks = {one: load_network(one, weights_directory=directory) for one in ENGINES}
        print(f"On {device}, torch {torch.__version__}.\n")
        print(
            "| engine | picture | overlap | tiles | worst | mean | worst at the seam | worst 64 off | ",
            end="",
        )
        print("8-bit codes changed | 10-bit |\n|---|---|---|---|---|---|---|---|---|---|")
        precisions = [
            line for engine in ENGINES.values() for line in measure(bench, networks[engine.id], engine)
        ]
        print("\n| engine | picture | precision | PSNR against fp32 | worst |\n|---|---|---|---|---|")
        print("\n".join(precisions))


if __name__ == "__main__":
    main()
