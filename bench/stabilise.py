"""What `stabilise` brings: flicker, detail and likeness to the original, of clips upscaled by the networks.

    .venv/bin/python -m bench.stabilise --weights DIR [--clips DIR] [--engines regen-4x-lite,regen-4x] [--frames 9]
        [--crf 28] [--network FOLDER]

Each clip is reduced four times by averaging, optionally encoded at a constant quality, upscaled, and compared with what
it was. Ways: the network alone; strengths 1 to 3; the same averaging of the network's input instead of its output; and,
with `--network`, the trained network of `vs-temporalfix` (the folder `models` of its wheel), which sees seven frames.

Warping error: the mean squared difference of a frame and the frame before, moved along the motion, where that motion
exists in both directions (Lai et al., "Learning blind video temporal consistency", 2018), in 1e-4 of white squared. The
motion is that of the original, by Farneback's method, which no way of filtering uses. PSNR is that of R'G'B' to the
original and to the network alone; sharpness is the mean absolute Laplacian of luma, against the network alone. Three
frames at each end do not count. Times are ratios to the network's on this machine.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bench.clips import size_of
from models.catalog import ENGINES
from worker.inference.aligned_frames import AlignedFrame
from worker.inference.frames import FrameFormat
from worker.inference.stabilising import average
from worker.inference.upscaler import Upscaler, make_upscaler
from worker.video.alignment import aligned_frames

MEDIA = Path(__file__).parents[1] / "tests" / "media"
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
ENDS = 3
STRENGTHS = {"temporalfix_s1_v1.1.pth": 1, "temporalfix_s2_v1.pth": 2}

# frames x rows x columns x R, G, B; 0 to 1.
Film = NDArray[np.float32]


def read(path: Path, frames: int, *, start: float = 0.5) -> Film:
    """Cropped to sides that are multiples of 8."""
    width, height = (side // 8 * 8 for side in size_of(path))
    command = ["ffmpeg", "-v", "error", "-ss", str(start), "-i", str(path), "-frames:v", str(frames)]
    command += ["-vf", f"crop={width}:{height}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.asarray(np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3) / 255, np.float32)


def reduced(film: Film, *, crf: int | None) -> Film:
    """A quarter as wide and high, in 8 bits; encoded with x264 at that quality."""
    rows, columns = film.shape[1] // 4, film.shape[2] // 4
    small = film.reshape(-1, rows, 4, columns, 4, 3).mean(axis=(2, 4))
    codes = np.rint(small * 255).astype(np.uint8)
    if crf is not None:
        form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}"]
        encode = ["ffmpeg", "-v", "error", *form, "-r", "25", "-i", "-", "-c:v", "libx264", "-crf", str(crf)]
        coded = subprocess.run(
            [*encode, "-pix_fmt", "yuv444p", "-f", "matroska", "-"],
            input=codes.tobytes(),
            capture_output=True,
            check=True,
        ).stdout
        decode = ["ffmpeg", "-v", "error", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(decode, input=coded, capture_output=True, check=True).stdout
        codes = np.frombuffer(raw, np.uint8).reshape(codes.shape)
    return np.asarray(codes, np.float32) / np.float32(255)


def warped(picture: NDArray[Any], flow: NDArray[np.float32]) -> NDArray[Any]:
    rows, columns = flow.shape[:2]
    x = np.arange(columns, dtype=np.float32) + flow[..., 0]
    y = np.arange(rows, dtype=np.float32)[:, None] + flow[..., 1]
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def farneback(here: Film, other: Film) -> NDArray[np.float32]:
    one, two = ((frame @ LUMA * 255).astype(np.uint8) for frame in (here, other))
    return np.asarray(
        cv2.calcOpticalFlowFarneback(
            one, two, np.zeros((*one.shape, 2), np.float32), 0.5, 5, 21, 5, 7, 1.5, 0
        )
    )


def motions(original: Film) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """For each frame but the first, where it was in the frame before, and whether that frame agrees."""
    found = []
    for before, after in pairwise(original):
        back, forth = farneback(after, before), farneback(before, after)
        there = warped(forth, back)
        cycle = np.square(back + there).sum(axis=2)
        least = 0.01 * (np.square(back).sum(axis=2) + np.square(there).sum(axis=2)) + 0.5
        found.append((back, cycle < least))
    return found


def warping_error(film: Film, motion: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> float:
    errors = []
    for index in range(ENDS, len(film) - ENDS):
        flow, agrees = motion[index - 1]
        errors.append(np.square(film[index] - warped(film[index - 1], flow)).mean(axis=2)[agrees].mean())
    return float(np.mean(errors)) * 1e4


def psnr(one: Film, other: Film) -> float:
    error = float(np.square(one[ENDS:-ENDS] - other[ENDS:-ENDS]).mean(dtype=np.float64))
    return 100.0 if error == 0 else float(-10 * np.log10(error))


def sharpness(film: Film) -> float:
    return float(
        np.mean([np.abs(cv2.Laplacian(frame @ LUMA, cv2.CV_32F)).mean() for frame in film[ENDS:-ENDS]])
    )


def frames_of(film: Film) -> tuple[FrameFormat, list[NDArray[np.uint8]]]:
    source = FrameFormat(width=film.shape[2], height=film.shape[1], layout="gbr")
    codes = np.rint(film * 255).astype(np.uint8)
    return source, [source.join([frame[..., plane] for plane in (1, 2, 0)]) for frame in codes]


def steadied(pictures: Sequence[torch.Tensor], small: Film, *, strength: int) -> list[torch.Tensor]:
    source, frames = frames_of(small)
    aligned = aligned_frames(
        [AlignedFrame(frame, 1) for frame in frames],
        source=source,
        strength=strength,
        shown=range(len(frames)),
    )
    return [
        average(pictures[at], [(pictures[at + one.offset], one.field) for one in frame.alignments])
        for at, frame in enumerate(aligned)
    ]


def as_film(pictures: Sequence[torch.Tensor]) -> Film:
    return torch.cat(list(pictures)).permute(0, 2, 3, 1).clamp(0, 1).float().cpu().numpy()


def as_pictures(film: Film) -> list[torch.Tensor]:
    return list(torch.from_numpy(film).permute(0, 3, 1, 2).contiguous().split(1))


def trained(folder: Path, weights: str) -> Callable[[Film], Film]:
    sys.path.insert(0, str(folder))
    from temporalfix_arch import temporalfix_arch  # type: ignore[import-not-found]

    network = temporalfix_arch(conf_thresh=0.6, min_support=1, gate_slope=12.0, count_slope=4.0)
    network.load_state_dict(torch.load(folder / weights, map_location="cpu", weights_only=True))
    network.eval()

    def run(film: Film) -> Film:
        tensor = torch.from_numpy(film).permute(0, 3, 1, 2)
        last = len(film) - 1
        with torch.inference_mode():
            return as_film(
                [
                    network(tensor[[min(max(at + by, 0), last) for by in range(-3, 4)]][None])
                    for at in range(len(film))
                ]
            )

    return run


def measure(
    path: Path, engine: str, *, frames: int, crf: int | None, weights: Path, network: Path | None
) -> None:
    original = read(path, frames)
    small = reduced(original, crf=crf)
    motion = motions(original)
    source, inputs = frames_of(small)
    upscaler: Upscaler = make_upscaler(
        engine_id=engine,
        source=source,
        target=FrameFormat(width=4 * source.width, height=4 * source.height),
        weights_directory=weights,
        device="cpu",
    )
    began = time.perf_counter()
    pictures = [one.values for one in upscaler.enlarge(inputs)]
    network_seconds = time.perf_counter() - began
    alone = as_film(pictures)

    def row(way: str, film: Film, seconds: float) -> None:
        cells = [
            path.stem if crf is None else f"{path.stem}, crf {crf}",
            engine,
            way,
            f"{warping_error(film, motion):.3f}",
            f"{psnr(film, original):.2f}",
            "" if film is alone else f"{psnr(film, alone):.1f}",
            f"{sharpness(film) / sharpness(alone):.2f}",
            f"{seconds / network_seconds:.2f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)

    row("network alone", alone, network_seconds)
    for strength in (1, 2, 3):
        began = time.perf_counter()
        film = as_film(steadied(pictures, small, strength=strength))
        row(f"`stabilise` {strength}", film, time.perf_counter() - began)
    began = time.perf_counter()
    steady = as_film(steadied(as_pictures(small), small, strength=2))
    seconds = time.perf_counter() - began
    # Not rounded to 8 bits before the network.
    deep = FrameFormat(width=source.width, height=source.height, layout="gbr", bit_depth=16)
    codes = np.rint(steady * 65535)
    upscaler = make_upscaler(
        engine_id=engine,
        source=deep,
        target=FrameFormat(width=4 * source.width, height=4 * source.height),
        weights_directory=weights,
        device="cpu",
    )
    frames_16 = [deep.join([one[..., plane] for plane in (1, 2, 0)]) for one in codes]
    film = as_film([one.values for one in upscaler.enlarge(frames_16)])
    row("the input instead, as 2", film, seconds)
    if network is not None:
        for name, strength in STRENGTHS.items():
            run = trained(network, name)
            began = time.perf_counter()
            film = run(alone)
            row(f"temporalfix {strength}", film, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clips", type=Path, default=MEDIA)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--crf", type=int)
    parser.add_argument("--network", type=Path)
    asked = parser.parse_args()
    print(
        "| clip | engine | way | warping error, 1e-4 | PSNR, dB | to the network's, dB | sharpness | time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in sorted(asked.clips.glob("*.mp4")):
        for engine in asked.engines.split(","):
            measure(
                path,
                engine,
                frames=asked.frames,
                crf=asked.crf,
                weights=asked.weights,
                network=asked.network,
            )


if __name__ == "__main__":
    main()
