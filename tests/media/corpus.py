"""The conformance corpus: a small clip of every kind of file that people have.

    python -m tests.media.corpus DIRECTORY

writes all that the ffmpeg at hand can make, and names the others. The kinds are in `kinds.py`.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.media.drawing import draw_fields
from tests.media.kind import Kind
from tests.media.kinds import KINDS


@lru_cache(maxsize=1)
def _encoders() -> str:
    return subprocess.run(
        ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, check=True, text=True
    ).stdout


@lru_cache(maxsize=1)
def _filters() -> str:
    return subprocess.run(
        ["ffmpeg", "-hide_banner", "-filters"], capture_output=True, check=True, text=True
    ).stdout


def has_filter(name: str) -> bool:
    """Whether this ffmpeg has it."""
    return f" {name} " in _filters()


def missing(kind: Kind) -> str | None:
    """Why this ffmpeg cannot make the clip; None when it can."""
    lacking = [name for name in kind.encoders if f" {name} " not in _encoders()]
    return f"ffmpeg has no encoder {' and '.join(lacking)}" if lacking else None


def camera_frames(kind: Kind) -> NDArray[np.uint16]:
    """What the camera saw at the first moment of each interlaced frame, in RGB of 16 bits."""
    assert kind.frames is not None
    return draw_fields(kind.frames, *kind.size)[::2]


def write_corpus(directory: Path, kinds: Iterable[Kind]) -> Iterator[tuple[Kind, Path]]:
    """Write the clips that can be made, and yield each once it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    possible = [kind for kind in kinds if missing(kind) is None]
    with ThreadPoolExecutor(2) as pool:
        paths = pool.map(lambda kind: kind.make(directory / kind.file_name), possible)
        yield from zip(possible, paths, strict=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the conformance corpus.")
    parser.add_argument("directory", type=Path)
    for kind, path in write_corpus(parser.parse_args().directory, KINDS.values()):
        _say(f"{path}: {kind.about}, {path.stat().st_size} bytes")
    for kind in KINDS.values():
        if reason := missing(kind):
            _say(f"{kind.name}: left out, {reason}")


if __name__ == "__main__":
    main()
