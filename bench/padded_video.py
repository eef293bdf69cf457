"""Valid videos of any size, made cheaply: a short clip, followed by an MP4 box that players skip."""

import subprocess
from pathlib import Path

from app.platform.media.programs import find_programs

BLOCK_BYTES = 1024**2
BOX_HEAD_BYTES = 16


def make_clip(path: Path, *, size: str = "64x48", rate: int = 25, frames: int = 25) -> Path:
    """A test picture that moves, H.264 without sound."""
    source = f"testsrc2=size={size}:rate={rate}"
    subprocess.run(
        [
            *(find_programs().ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(frames)),
            *("-pix_fmt", "yuv420p", "-preset", "ultrafast", "-y", path),
        ],
        check=True,
    )
    return path


def pad(path: Path, *, size_bytes: int) -> Path:
    """Bring an MP4 to that size. What is added is no hole in the file, so that reading it costs what reading does."""
    box_bytes = size_bytes - path.stat().st_size
    assert box_bytes >= BOX_HEAD_BYTES
    left_bytes = box_bytes - BOX_HEAD_BYTES
    with path.open("ab") as file:
        file.write(box_head(box_bytes))
        while left_bytes:
            left_bytes -= file.write(bytes(min(BLOCK_BYTES, left_bytes)))
    return path


def box_head(box_bytes: int) -> bytes:
    """What such a box begins with; `box_bytes` counts it too."""
    # The size stands behind the name: it may be more than 32 bits hold.
    return (1).to_bytes(4, "big") + b"free" + box_bytes.to_bytes(8, "big")
