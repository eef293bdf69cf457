"""How near the networks come to what a GPU can do: every figure and a verdict for each goal, in under ten minutes.

    python -m bench.gpu [--weights DIRECTORY] [--frames FRAMES.npy] [--skip SECTION ...] [--seconds 540]
    python -m bench.gpu --write-frames FRAMES.npy        where ffmpeg is: natural frames, for a machine without it

Prints Markdown for bench/RESULTS.md. Needs torch, numpy and safetensors; Triton to measure our kernels; for the last
section also weights, ffmpeg and the worker's packages. Without weights those of the same shape are random, which
changes no time; without frames the picture is drawn. A section that fails says so, and the next one follows; so does
what would begin after `--seconds`, which is skipped. `--device cpu --tiny` only shows that it runs.
"""

import argparse
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from bench import gpu_frames, gpu_networks
from bench.gpu_setting import Setting
from bench.machine import heading
from models.catalog import ENGINES
from worker.inference.cuda import kernels
from worker.inference.devices import choose_device

MEDIA = Path(__file__).parents[1] / "tests" / "media"
CLIPS = ("bunny-480x270-25fps.mp4", "webb-480x270-2997fps-hevc.mp4")
# Not square, not a multiple of anything: what a camera gives, enlarged to what is measured.
FRAME_SIZE = (1280, 720)


def write_frames(path: Path) -> None:
    """One frame of each clip, enlarged to 1280x720, as N x 720 x 1280 x 3 uint8."""
    width, height = FRAME_SIZE
    frames = []
    for clip in CLIPS:
        command = ["ffmpeg", "-v", "error", "-ss", "0.5", "-i", str(MEDIA / clip), "-frames:v", "1"]
        command += ["-vf", f"scale={width}:{height}:flags=lanczos,format=rgb24", "-f", "rawvideo", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        frames.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
    np.save(path, np.stack(frames))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def versions() -> str:
    triton = "none"
    if kernels.AVAILABLE:
        import triton as found

        triton = found.__version__
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else "none"
    return f"CUDA {torch.version.cuda or 'none'}, cuDNN {cudnn}, Triton {triton}"


SECTIONS: dict[str, tuple[str, Callable[[Setting], None]]] = {
    "peak": ("What the device can do", gpu_networks.measure_peak),
    "networks": ("Networks alone", gpu_networks.compare),
    "power": ("Networks alone, for some time", gpu_networks.measure_power),
    "joins": ("Joins of tiles", gpu_frames.measure_joins),
    "frames": ("From host memory to host memory", gpu_frames.measure_frames),
    "files": ("From file to file", gpu_frames.measure_files),
}


def verdict(goal: str, reached: float | None, is_met: Callable[[float], bool], shown: str) -> str:
    """A line; `shown` is a format for what was reached, None if it was not measured."""
    if reached is None:
        return f"- {goal}: NOT MEASURED"
    return f"- {goal}: {shown.format(reached)}, {'MET' if is_met(reached) else 'MISSED'}"


def verdicts(setting: Setting) -> Iterator[str]:
    """The project's goals for a GPU, with what was reached."""
    found = setting.found
    shares = [one.share for one in found.networks if one.engine == "regen-4x"]
    goal = "regen-4x: at least 60 % of the matrix product's rate"
    yield verdict(goal, max(shares, default=None), lambda one: one >= 0.6, "{:.1%}")
    best = setting.best(ENGINES["regen-4x-lite"])
    goal = "regen-4x-lite: at least 1,000 frames/s of 640x360 by the network alone"
    yield verdict(goal, best.rate if best else None, lambda one: one >= 1000, "{:.0f}")
    ids = [engine.id for engine in setting.engines]
    for name in (*ids, *(f"{engine}, files" for engine in ids)):
        goal = f"{name}: end to end at least 90 % of the network alone"
        yield verdict(goal, found.shares.get(name), lambda one: one >= 0.9, "{:.1%}")
    for way in gpu_networks.WAYS:
        decibels = [one.decibels for one in found.networks if one.way == way]
        goal = f"{way}: at least 50 dB from fp32"
        yield verdict(goal, min(decibels, default=None), lambda one: one >= 50, "{:.1f} dB")
    for engine in ids:
        goal = f"{engine}: tiles change no code by more than 1"
        yield verdict(goal, found.joins.get(engine), lambda one: one <= 1, "{:.0f}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How near the networks come to what a GPU can do.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", type=Path, help="a folder of converted weights")
    parser.add_argument("--frames", type=Path, help="what --write-frames wrote")
    parser.add_argument("--write-frames", type=Path)
    parser.add_argument("--skip", nargs="*", default=[], choices=SECTIONS)
    parser.add_argument("--seconds", type=float, default=540, help="what would begin later is skipped")
    parser.add_argument("--tiny", action="store_true", help="sizes at which figures mean nothing")
    arguments = parser.parse_args(words)
    if arguments.write_frames:
        write_frames(arguments.write_frames)
        return
    setting = Setting(
        device=choose_device(arguments.device),
        weights=arguments.weights,
        frames=arguments.frames,
        tiny=arguments.tiny,
        deadline=time.monotonic() + arguments.seconds,
    )
    print(f"{heading()}\n\n{versions()}.", flush=True)
    failed = []
    for name, (title, measure) in SECTIONS.items():
        if name in arguments.skip:
            continue
        print(f"\n### {title}\n", flush=True)
        started = time.perf_counter()
        try:
            if setting.has_time:
                with torch.inference_mode():
                    measure(setting)
            else:
                print("Skipped: no time left.")
        except Exception:  # what can be measured is
            failed.append(name)
            print(f"FAILED:\n```\n{traceback.format_exc()}```")
        print(f"\n({time.perf_counter() - started:.0f} s)", flush=True)
    print("\n### Goals\n", *verdicts(setting), sep="\n", flush=True)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
