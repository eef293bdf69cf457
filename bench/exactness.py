"""What tiles cost: real frames beside the same frames whole. What precision costs: `bench.precision`.

    .venv/bin/python -m bench.exactness [--device cuda]

Prints a table for bench/RESULTS.md. Differences are in code values of 8 bits, measured on 16 bits of output, that is
before rounding; then how many codes differ once they are rounded to 8 and to 10 bits. `Engine.tile_overlap` is chosen
by it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.clips import FILM, LARGE_CARTOON, Size, read_picture
from bench.machine import heading
from models.catalog import ENGINES, Engine
from models.loader import load_network
from worker.inference.frames import FrameFormat
from worker.inference.precision import choose_device
from worker.inference.upscaler import Upscaler

# Of the file, from the start: a cartoon, a film, and the film with grain as of a fast photograph.
FRAMES = {"cartoon": (LARGE_CARTOON, 10), "film": (FILM, 20)}
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
            precision="fp32",
            tile_pixels=tile_pixels or rows * columns,
            batch_size=1,
        )
        (frame,) = upscaler.upscale([source.join([picture[:, :, index] for index in (1, 2, 0)])])
        codes: Picture = np.stack(target.split(frame), axis=-1).astype(np.float64) / CODE
        return codes, upscaler.tile_count


def pictures(size: Size) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Real frames, RGB, the middle of each."""
    shown = np.zeros((*size[::-1], 3), np.uint8)
    for name, (clip, number) in FRAMES.items():
        shown = read_picture(clip, number, size=size)
        yield name, shown
    grain = np.random.default_rng(1).normal(0, GRAIN_CODES, (*shown.shape[:2], 1))
    yield "film, grain", np.clip(np.rint(shown + grain), 0, 255).astype(np.uint8)


def measure(bench: Bench, network: nn.Module, engine: Engine) -> None:
    """Prints the lines of one engine."""
    for name, shown in pictures(PICTURES[engine.id]):
        whole, _ = bench.upscaled(network, engine, shown)
        for overlap in OVERLAPS[engine.id]:
            print(tile_line(bench, network, engine, name, shown, whole, overlap), flush=True)


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
    parser = argparse.ArgumentParser(description="What tiles cost.")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda, ...")
    device = choose_device(parser.parse_args().device)
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as directory:
        bench = Bench(device, Path(directory))
        networks = {one: load_network(one, weights_directory=directory) for one in ENGINES}
        print(f"{heading()} On {device}.\n")
        print(
            "| engine | picture | overlap | tiles | worst | mean | worst at the seam | worst 64 off | ",
            end="",
        )
        print("8-bit codes changed | 10-bit |\n|---|---|---|---|---|---|---|---|---|---|")
        for engine in ENGINES.values():
            measure(bench, networks[engine.id], engine)


if __name__ == "__main__":
    main()
