"""What one run of ffprobe says of a user's file: its lines, in constant memory, and the fields of its sections."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from typing import Any, Self

from app.platform.errors import FfmpegError

from .process import FfmpegProcess
from .unlisted_codecs import OpenedDecoders, may_be_unlisted

UNTAGGED = frozenset({None, "unknown", "unspecified", "reserved", "N/A"})


def disposition(stream: dict[str, Any], name: str) -> bool:
    return bool(stream.get("disposition", {}).get(name) == 1)


def tagged(stream: dict[str, Any], name: str) -> str | None:
    value = stream.get(name)
    return None if value in UNTAGGED else str(value)


def section_list(section: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = section.get(name, [])
    return value if isinstance(value, list) else []


def integer(section: dict[str, Any], name: str) -> int:
    """A whole number, which ffprobe prints as a number or as text; 0 if missing."""
    value = section.get(name, 0)
    return int(value) if re.fullmatch(r"-?[0-9]{1,19}", str(value)) else 0


def fraction(text: str | None, *, separator: str = "/") -> Fraction | None:
    """`30000/1001`, `4:3` or `1.402733`; None for `0/0`, `0:1`, `N/A` and the like."""
    if text is None:
        return None
    if re.fullmatch(rf"-?[0-9]{{1,19}}(\.[0-9]{{1,9}}|{separator}[0-9]{{1,19}})?", text) is None:
        return None
    numerator, _, denominator = text.partition(separator)
    if separator not in text:
        return Fraction(text)
    return Fraction(int(numerator), int(denominator)) if int(numerator) and int(denominator) else None


def clock(text: str | None) -> Fraction | None:
    """Seconds of a time such as `01:00:01.000000000`; None for anything else."""
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)", text or "")
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else None


class ScannedLines:
    """An iterator over the lines of one ffprobe run, for one thread. Close it when leaving it early.

    `stderr_tail` is complete after the last line. Raises what FfmpegProcess.wait raises, after the last line.
    """

    def __init__(
        self,
        start: Callable[[OpenedDecoders], FfmpegProcess],
        find_decoders: Callable[[], OpenedDecoders],
        ffprobe_args: Sequence[str],
    ) -> None:
        """`start` starts a run; `find_decoders` tells what a second one must open, see `unlisted_codecs`."""
        self.stderr_tail = ""
        self._lines = self._run(start, find_decoders, ffprobe_args)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return next(self._lines)

    def close(self) -> None:
        """Kill ffprobe if it still runs."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self,
        start: Callable[[OpenedDecoders], FfmpegProcess],
        find_decoders: Callable[[], OpenedDecoders],
        ffprobe_args: Sequence[str],
    ) -> Generator[str, None, None]:
        try:
            yield from self._run_once(start({}))
        except FfmpegError as error:
            if not may_be_unlisted(error, ffprobe_args) or not (opened := find_decoders()):
                raise
            yield from self._run_once(start(opened))

    def _run_once(self, process: FfmpegProcess) -> Generator[str, None, None]:
        with process:
            yield from process.lines()
            try:
                process.wait()
            finally:
                self.stderr_tail = process.stderr_tail


class KnownLines:
    """Lines that an ended ffprobe run printed, in the shape of ScannedLines."""

    def __init__(self, lines: Sequence[str], stderr_tail: str) -> None:
        self._lines = lines
        self.stderr_tail = stderr_tail

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to end."""
