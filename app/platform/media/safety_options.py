"""What a command of ffmpeg may open: the options that decide it, and the files that its sandbox permits."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .whitelists import DECODERS

# Options that decide what may be opened. Only the builders set them.
SAFETY_OPTIONS = frozenset(
    {"protocol_whitelist", "format_whitelist", "codec_whitelist", "max_pixels", "f", "format", "safe"}
    | {"enable_drefs", "use_absolute_path", "protocol_blacklist"}
)

# A whitelist of decoders, and what ffmpeg says of a stream that it therefore only copies.
NO_DECODER = "none"
NOT_DECODED = re.compile(
    rf"^\[.*Codec \(\w+\) not on whitelist '{NO_DECODER}'\n(?: *Last message repeated \d+ times\n)?",
    re.MULTILINE,
)


def file_name(path: Path) -> str:
    """The path for ffmpeg: absolute and with the `file:` protocol, so that no name is read as an option or a URL."""
    if not path.is_absolute():
        raise ValueError(f"not an absolute path: {path}")
    return f"{FILE_PROTOCOL}{path}"


def safety_options(
    *, formats: Sequence[str], protocols: Sequence[str], decoders: Sequence[str]
) -> dict[str, Any]:
    return {
        "protocol_whitelist": ",".join(protocols),
        "format_whitelist": ",".join(formats),
        "codec_whitelist": ",".join(decoders),
    }


def refuse_safety_options(options: dict[str, Any]) -> None:
    for option in options:
        if option.split(":")[0] in SAFETY_OPTIONS:
            raise ValueError(f"FfmpegRunner sets {option} itself")


def check_inputs(arguments: Sequence[str]) -> None:
    """Raises ValueError for an input that no builder of FfmpegRunner made."""
    since = 0
    for position, word in enumerate(arguments):
        if word == "-i":
            options = arguments[since:position]
            for required in ("-protocol_whitelist", "-format_whitelist", "-codec_whitelist"):
                if required not in options:
                    raise ValueError(
                        f"input {arguments[position + 1]} was not made by FfmpegRunner: no {required}"
                    )
            since = position + 2


def pcm_decoders() -> tuple[str, ...]:
    return tuple(decoder for decoder in DECODERS if decoder.startswith("pcm_"))


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
