"""Real-ESRGAN's usual way with a video, rebuilt with our networks and weights, to be measured beside ours:

    python -m bench.peers_usual CLIP OUT --engine ENGINE --weights DIRECTORY --crf 16 --preset medium

One ffmpeg pipe in and one out, both bgr24; one frame after the other is read, made a tensor by numpy, computed, made
bytes by numpy, and written. torch as it comes: its own number of threads, plain layout; on a CPU 32 bits, on CUDA
16, as the script does unless told otherwise. Sound is copied. The script itself does not run without a GPU.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.loader import load_network

Picture = NDArray[np.uint8]


class UsualUpscaler:
    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device = device
        self._halves = device.type == "cuda"
        self._network = network.to(device)
        if self._halves:
            self._network = self._network.half()

    @torch.no_grad()
    def enlarge(self, picture: Picture) -> Picture:
        """rows x columns x 3, BGR, of 8 bits -> the same four times as large."""
        values = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_BGR2RGB)
        tensor = torch.from_numpy(np.transpose(values, (2, 0, 1))).float().unsqueeze(0).to(self._device)
        enlarged = self._network(tensor.half() if self._halves else tensor)
        result = enlarged.squeeze().float().cpu().clamp_(0, 1).numpy()
        result = np.transpose(result[[2, 1, 0], :, :], (1, 2, 0))
        rounded: Picture = (result * 255.0).round().astype(np.uint8)
        return rounded


def probe(clip: Path) -> tuple[int, int, str, bool]:
    """Columns, rows, frame rate, and whether it has sound."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(clip)]
    answer = subprocess.run(command, capture_output=True, check=True).stdout
    streams: list[dict[str, Any]] = json.loads(answer)["streams"]
    video = next(stream for stream in streams if stream["codec_type"] == "video")
    has_sound = any(stream["codec_type"] == "audio" for stream in streams)
    return video["width"], video["height"], video["avg_frame_rate"], has_sound


def main() -> None:
    parser = argparse.ArgumentParser(description="One video the way Real-ESRGAN's script goes.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--crf", required=True)
    parser.add_argument("--preset", required=True)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    upscaler = UsualUpscaler(load_network(arguments.engine, weights_directory=arguments.weights), device)
    columns, rows, rate, has_sound = probe(arguments.clip)
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24"]
    reading = ["ffmpeg", "-loglevel", "error", "-i", str(arguments.clip), *raw, "pipe:"]
    writing = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-y",
        *raw,
        "-s",
        f"{4 * columns}x{4 * rows}",
        "-framerate",
        rate,
    ]
    writing += ["-i", "pipe:"]
    if has_sound:
        writing += ["-i", str(arguments.clip), "-map", "1:a", "-map", "0:v", "-c:a", "copy"]
    writing += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", arguments.crf, "-preset", arguments.preset]
    writing += [str(arguments.out)]
    with (
        subprocess.Popen(reading, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as reader,
        subprocess.Popen(writing, stdin=subprocess.PIPE) as writer,
    ):
        if reader.stdout is None or writer.stdin is None:
            raise AssertionError("both are pipes")
        while data := reader.stdout.read(columns * rows * 3):
            picture = np.frombuffer(data, np.uint8).reshape(rows, columns, 3)
            writer.stdin.write(upscaler.enlarge(picture).tobytes())
    if reader.returncode or writer.returncode:
        raise SystemExit(f"ffmpeg ended with {reader.returncode} and {writer.returncode}")


if __name__ == "__main__":
    main()
