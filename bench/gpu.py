"""How near the networks come to what a GPU can do: every way to run them, side by side.

    python -m bench.gpu [--weights DIRECTORY] [--frames FRAMES.npy] [--skip SECTION ...]
    python -m bench.gpu --write-frames FRAMES.npy        where ffmpeg is: natural frames, for a machine without it

Prints Markdown for bench/RESULTS.md. Needs torch, numpy and safetensors; Triton to measure it. Without weights
those of the same shape are random, which changes no time; without frames the picture is drawn. `--device cpu --tiny`
only shows that it runs. A section that fails says so, and the next one follows.
"""

import argparse
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import gpu_networks
from bench.gpu_networks import Setting
from bench.machine import heading
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How near the networks come to what a GPU can do.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", type=Path, help="a folder of converted weights")
    parser.add_argument("--frames", type=Path, help="what --write-frames wrote")
    parser.add_argument("--write-frames", type=Path)
    parser.add_argument("--skip", nargs="*", default=[], choices=SECTIONS)
    parser.add_argument("--compile", action="store_true", help="torch.compile beside the others; minutes")
    parser.add_argument("--tiny", action="store_true", help="sizes at which figures mean nothing")
    arguments = parser.parse_args()
    if arguments.write_frames:
        write_frames(arguments.write_frames)
        return
    setting = Setting(
        device=choose_device(arguments.device),
        weights=arguments.weights,
        frames=arguments.frames,
        compiles=arguments.compile,
        tiny=arguments.tiny,
    )
    print(f"{heading()}\n\n{versions()}.", flush=True)
    failed = []
    for name, (title, measure) in SECTIONS.items():
        if name in arguments.skip:
            continue
        print(f"\n### {title}\n", flush=True)
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                measure(setting)
        except Exception:  # what can be measured is
            failed.append(name)
            print(f"FAILED:\n```\n{traceback.format_exc()}```")
        print(f"\n({time.perf_counter() - started:.0f} s)", flush=True)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
