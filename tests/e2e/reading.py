"""What is in a video file, read with ffprobe and ffmpeg and nothing of ours."""

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def probe(path: Path) -> dict[str, Any]:
    answer = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams"),
            *("-show_entries", "packet=pts,duration,stream_index", "-show_packets", str(path)),
        ],
        capture_output=True,
        check=True,
    )
    facts: dict[str, Any] = json.loads(answer.stdout)
    return facts


def stream(facts: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in facts["streams"] if item["codec_type"] == kind)
    return found


def timestamps(facts: dict[str, Any], kind: str) -> list[Fraction]:
    """Seconds since the file's start, exact, in the order of display."""
    wanted = stream(facts, kind)
    time_base = Fraction(wanted["time_base"])
    return sorted(
        packet["pts"] * time_base for packet in facts["packets"] if packet["stream_index"] == wanted["index"]
    )


def duration(facts: dict[str, Any], kind: str) -> Fraction:
    wanted = stream(facts, kind)
    return int(wanted["duration_ts"]) * Fraction(wanted["time_base"])


def decode(path: Path, *, width: int, height: int) -> NDArray[np.uint8]:
    """Frames as RGB by the file's own colour tags, resampled to the given size."""
    raw = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"),
            *("-vf", f"scale={width}:{height}:flags=area+accurate_rnd+full_chroma_int"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
        ],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def sound(path: Path) -> NDArray[np.float32]:
    raw = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0"),
            *("-ac", "1", "-ar", "48000", "-f", "f32le", "-"),
        ],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.float32)


def decibels(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))
