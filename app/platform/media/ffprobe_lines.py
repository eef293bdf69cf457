"""The lines of one ffprobe run about a user's file, in constant memory."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Self

from app.platform.errors import FfmpegError

from .process import FfmpegProcess
from .unlisted_codecs import OpenedDecoders, may_be_unlisted


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
