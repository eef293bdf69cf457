"""What the encoder's presets cost in processor time, and what each gives for it.

    .venv/bin/python -m bench.encoder_presets [--frames 40] [--quality high | --against medium:16]
        [--presets ultrafast,...,medium] [--x265]

Two clips, photographs and a cartoon, are upscaled by regen-4x-lite to 1280x720, kept losslessly, and encoded by every
preset at several CRFs, with the server's other settings. Each is compared with what it was made of. The first
table has each preset at the CRF of the server's `--quality`, with one thread and with ffmpeg's choice. The second says
what a preset costs that is to be as good as the server's, or another: the highest CRF at which PSNR and SSIM, mean
and worst frame, of every clip are at least as good, and the bits that this takes. Processor time is ffmpeg's, all
threads, reading raw frames included (about a millisecond a frame).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.clips import LARGE_CARTOON, PHOTOGRAPHS, Size, cut, parse_size
from bench.machine import heading, table
from worker.video.encoder import ENCODERS, QUALITIES, QualityStep

CLIPS = {"photographs": PHOTOGRAPHS, "cartoon": LARGE_CARTOON}
SIZE: Size = (320, 180)
RATE = 25
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
# How much higher a preset's CRF may be where it matches the server's, and how much lower it may have to be.
STEPS_ABOVE, STEPS_BELOW = 3, 6
# As worker.video.encoder gives them.
PARAMETERS = {
    "libx264": ("-profile:v", "high", "-x264-params", f"fps={RATE}/1:stitchable=1:open-gop=0"),
    "libx265": (
        "-tag:v",
        "hvc1",
        "-x265-params",
        f"fps={RATE}/1:open-gop=0:log-level=error:repeat-headers=0:info=0",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One clip, encoded. `likeness`: PSNR mean and worst in dB, SSIM mean and worst, of the luma."""

    processor_seconds: float
    wall_seconds: float
    bits: int
    likeness: tuple[float, float, float, float]


def ffmpeg(*arguments: str) -> str:
    done = subprocess.run(["ffmpeg", "-y", *arguments], capture_output=True, text=True, check=True)
    return done.stderr


def compare(encoded: Path, original: Path, directory: Path) -> tuple[float, float, float, float]:
    """Mean and worst luma PSNR in dB, mean and worst luma SSIM."""
    stats = {name: directory / f"{name}.log" for name in ("psnr", "ssim")}
    graph = (
        f"[0:v]split[a][b];[1:v]split[c][d];[a][c]psnr=stats_file={stats['psnr']}[e];"
        f"[b][d]ssim=stats_file={stats['ssim']}[f]"
    )
    outputs = ("-map", "[e]", "-f", "null", "-", "-map", "[f]", "-f", "null", "-")
    ffmpeg("-i", str(encoded), "-i", str(original), "-filter_complex", graph, *outputs)
    psnr = [float(value) for value in re.findall(r"psnr_y:([\d.]+)", stats["psnr"].read_text())]
    ssim = [float(value) for value in re.findall(r"Y:([\d.]+)", stats["ssim"].read_text())]
    return sum(psnr) / len(psnr), min(psnr), sum(ssim) / len(ssim), min(ssim)


class Encodings:
    """Encodes clips; each combination once."""

    def __init__(self, directory: Path, *, frames: int, size: Size) -> None:
        self._directory = directory
        self.frames = frames
        self._size = size
        self._found: dict[tuple[str, str, str, int, int], Encoded] = {}
        for name, clip in CLIPS.items():
            self._prepare(name, clip)

    def _prepare(self, name: str, clip: Path) -> None:
        source, enlarged = self._directory / f"{name}.mp4", self._directory / f"{name}-4x.mp4"
        cut(clip, source, frames=self.frames, size=self._size)
        command = [
            sys.executable,
            "-m",
            "app.cli",
            "upscale",
            str(source),
            str(enlarged),
            "--quality",
            "lossless",
        ]
        subprocess.run(
            [*command, "--data-dir", str(self._directory / "data")], check=True, stdout=subprocess.DEVNULL
        )
        ffmpeg("-i", str(enlarged), "-an", "-f", "rawvideo", str(self._raw(name)))

    def _raw(self, name: str) -> Path:
        return self._directory / f"{name}.yuv"

    def _input(self, name: str) -> tuple[str, ...]:
        columns, rows = (4 * length for length in self._size)
        video = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{columns}x{rows}")
        return (*video, "-framerate", str(RATE), "-i", str(self._raw(name)))

    def encode(self, name: str, encoder: str, preset: str, crf: int, *, threads: int = 0) -> Encoded:
        """`threads` 0: ffmpeg's choice."""
        key = (name, encoder, preset, crf, threads)
        if key not in self._found:
            self._found[key] = self._encode(*key)
        return self._found[key]

    def _encode(self, name: str, encoder: str, preset: str, crf: int, threads: int) -> Encoded:
        out = self._directory / "encoded.mp4"
        parameters = list(PARAMETERS[encoder])
        if threads and encoder == "libx265":
            parameters[-1] += f":pools={threads}:frame-threads=1"
        command = ["ffmpeg", "-v", "error", "-y", *self._input(name), "-c:v", encoder, "-preset", preset]
        command += ["-crf", str(crf), "-g", str(10 * RATE), "-threads", str(threads), *parameters, str(out)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"{encoder} {preset}: ffmpeg ended with {process.returncode}")
        return Encoded(
            processor_seconds=usage.ru_utime + usage.ru_stime,
            wall_seconds=seconds,
            bits=out.stat().st_size * 8,
            likeness=compare(out, self._directory / f"{name}-4x.mp4", self._directory),
        )

    def cells(self, one: Encoded) -> tuple[str, ...]:
        psnr, worst_psnr, ssim, worst_ssim = one.likeness
        return (
            f"{1000 * one.processor_seconds / self.frames:.1f} ms",
            f"{one.bits * RATE / self.frames / 1e6:.2f}",
            f"{psnr:.2f} dB",
            f"{worst_psnr:.2f} dB",
            f"{ssim:.4f}",
            f"{worst_ssim:.4f}",
        )


def compare_presets(encodings: Encodings, encoder: str, presets: Sequence[str], server: QualityStep) -> str:
    """Every preset at the server's CRF."""
    lines = []
    for preset in presets:
        for name in CLIPS:
            own = encodings.encode(name, encoder, preset, _crf(server))
            single = encodings.encode(name, encoder, preset, _crf(server), threads=1)
            processor, *others = encodings.cells(own)
            walls = (f"{1000 * one.wall_seconds / encodings.frames:.1f} ms" for one in (own, single))
            lines.append((encoder, preset, name, processor, encodings.cells(single)[0], *walls, *others))
    head = ("encoder", "preset", "clip", "processor, a frame", "with one thread", "wall", "with one thread")
    return table((*head, "Mbit/s", "PSNR mean", "PSNR worst", "SSIM mean", "SSIM worst"), lines)


def match_server(encodings: Encodings, encoder: str, presets: Sequence[str], server: QualityStep) -> str:
    """Every preset at the CRF at which it is as good as the server's."""
    wanted = {name: encodings.encode(name, encoder, server.preset, _crf(server)) for name in CLIPS}
    lines: list[Sequence[str]] = []
    for preset in presets:
        for crf in range(_crf(server) + STEPS_ABOVE, _crf(server) - STEPS_BELOW - 1, -1):
            found = {name: encodings.encode(name, encoder, preset, crf) for name in CLIPS}
            if all(_is_as_good(found[name], wanted[name]) for name in CLIPS):
                for name, one in found.items():
                    processor = one.processor_seconds / wanted[name].processor_seconds
                    bits = one.bits / wanted[name].bits
                    ratios = (f"{processor:.0%}", f"{bits:.0%}")
                    lines.append((encoder, preset, str(crf), name, *ratios, *encodings.cells(one)))
                break
        else:
            lines.append((encoder, preset, f"below {_crf(server) - STEPS_BELOW}", *[""] * 9))
    ratio_head = ("encoder", "preset", "CRF", "clip", "processor, of the server's", "bits, of the server's")
    found_head = ("processor, a frame", "Mbit/s", "PSNR mean", "PSNR worst", "SSIM mean", "SSIM worst")
    return table(ratio_head + found_head, lines)


def parse_step(text: str) -> QualityStep:
    """`medium:16`. Raises ValueError."""
    preset, crf = text.split(":")
    return QualityStep(crf=int(crf), preset=preset)


def _crf(step: QualityStep) -> int:
    if step.crf is None:
        raise ValueError("a lossless step has no CRF")
    return step.crf


def _is_as_good(one: Encoded, other: Encoded) -> bool:
    return all(a >= b for a, b in zip(one.likeness, other.likeness, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="What the encoder's presets cost and give.")
    parser.add_argument("--frames", type=int, default=40, help="of each clip")
    parser.add_argument(
        "--size", type=parse_size, default=SIZE, help="of the clips' middle, before upscaling"
    )
    parser.add_argument(
        "--quality", choices=("high", "medium", "small"), default="high", help="the server's step"
    )
    parser.add_argument("--against", type=parse_step, help="PRESET:CRF in the place of the server's")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--x265", action="store_true", help="x265 as well")
    arguments = parser.parse_args()
    presets = arguments.presets.split(",")
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        encodings = Encodings(Path(name), frames=arguments.frames, size=arguments.size)
        columns, rows = (4 * length for length in arguments.size)
        print(f"{heading()} {columns}x{rows}, {arguments.frames} frames of each clip.\n")
        for codec in ("h264", *(("hevc",) if arguments.x265 else ())):
            encoder, server = ENCODERS[codec], arguments.against or QUALITIES[codec][arguments.quality]
            print(f"To be matched: {encoder} {server.preset} at CRF {server.crf}.\n")
            print(compare_presets(encodings, encoder, presets, server), end="\n\n", flush=True)
            print(match_server(encodings, encoder, presets, server), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
