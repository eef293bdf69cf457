"""The files that an ffmpeg command reads and writes, to which its sandbox limits it."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

FILE_PROTOCOL = "file:"


def files_of(command: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files and directories that the command reads, and the files that it writes, from its arguments.
    Makes missing output files, empty."""
    readable: list[str] = []
    writable: list[str] = []
    since = 0
    for position, word in enumerate(command):
        if not word.startswith(FILE_PROTOCOL):
            continue
        path = Path(word.removeprefix(FILE_PROTOCOL))
        if command[position - 1] != "-i":
            with contextlib.suppress(OSError):  # the program will say so
                path.touch()
            writable.append(str(path))
        elif "concat" in command[since:position]:
            # The files in a list are beside it, or linked there.
            with os.scandir(path.parent) as entries:
                linked = {str(Path(one).resolve().parent) for one in entries if one.is_symlink()}
            readable += linked | {str(path.parent.resolve())}
        else:
            readable.append(str(path))
        since = position
    return tuple(readable), tuple(writable)


def total_bytes(paths: Sequence[str]) -> int:
    """For files, and for the files in directories."""
    total = 0
    for path in map(Path, paths):
        with contextlib.suppress(OSError):
            total += sum(one.stat().st_size for one in (path.iterdir() if path.is_dir() else [path]))
    return total
