"""Real frames for measurements: clips cut to a length and a size, and their frames as arrays."""

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.inference.frames import FrameFormat

MEDIA = Path(__file__).parents[1] / "tests" / "media"
# Of two kinds, at the size that is upscaled to 1280x720, and a smaller one.
PHOTOGRAPHS = MEDIA / "webb-320x180-25fps.mp4"
LARGE_CARTOON = MEDIA / "bunny-480x270-25fps.mp4"
FILM = MEDIA / "webb-480x270-2997fps-hevc.mp4"
# Near enough to the clip that a decoder has the same work with it.
CRF = 12

Frame = NDArray[np.uint8]
Size = tuple[int, int]


def cut(clip: Path, destination: Path, *, frames: int, size: Size | None = None) -> None:
    """Write that many frames, with their sound, as H.264 in MP4; the clip is begun anew when it ends.

    size: columns and rows, of the middle, or enlarged where the clip is smaller; even numbers.
    """
    command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(clip)]
    command += ["-map", "0:v:0", "-map", "0:a:0?", "-frames:v", str(frames), "-shortest"]
    if size is not None:
        command += ["-vf", f"{_fit(size_of(clip), size)}={size[0]}:{size[1]}"]
    command += ["-c:v", "libx264", "-preset", "fast", "-crf", str(CRF), "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*command, str(destination)], check=True)


def _fit(whole: Size, size: Size) -> str:
    """The filter that makes frames of `size`."""
    return "crop" if size[0] <= whole[0] and size[1] <= whole[1] else "scale"


def decode(
    clip: Path, *, frames: int, size: Size | None = None, first: int = 0
) -> tuple[FrameFormat, list[Frame]]:
    """So many frames as yuv420p, of the middle, or enlarged where the clip is smaller; the clip is begun anew when
    it ends."""
    whole = size_of(clip)
    columns, rows = size or whole
    source = FrameFormat(width=columns, height=rows)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-stream_loop",
        "-1",
        "-i",
        str(clip),
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    command += [
        "-vf",
        f"select=gte(n\\,{first}),{_fit(whole, (columns, rows))}={columns}:{rows},format=yuv420p",
        "-frames:v",
        str(frames),
    ]
    raw = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
    found = np.frombuffer(raw, np.uint8).reshape(-1, source.frame_bytes)
    return source, [frame.copy() for frame in found]


def read_picture(clip: Path, number: int, *, size: Size) -> NDArray[np.uint8]:
    """The middle of a frame as rows x columns x 3, RGB."""
    (width, height), (columns, rows) = size_of(clip), size
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-frames:v", "1", "-f", "rawvideo"]
    command += ["-vf", f"select=eq(n\\,{number}),format=rgb24", "-"]
    raw = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    left, top = (width - columns) // 2, (height - rows) // 2
    return raw.reshape(height, width, 3)[top : top + rows, left : left + columns]


def size_of(clip: Path) -> Size:
    """Columns and rows."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=width,height",
        "-of",
        "csv=p=0",
    ]
    answer = subprocess.run([*command, str(clip)], capture_output=True, text=True, check=True).stdout
    columns, rows = answer.strip().rstrip(",").split(",")
    return int(columns), int(rows)


def parse_size(text: str) -> Size:
    """`320x180`. Raises `ValueError`."""
    columns, rows = text.split("x")
    return int(columns), int(rows)
