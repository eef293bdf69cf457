"""ffprobe runs that succeed in spite of streams in codecs outside the whitelist.

ffprobe opens a decoder for every stream of a file and fails at the first refused one: one sound track in a rare codec
would make the whole video unreadable. So a run that failed in this way is repeated with that one decoder allowed for
that one stream. It is opened but decodes nothing: ffprobe decodes only if asked for frames (in which case there is no
second run), and the demuxer's own probing uses the whitelist of the whole file.
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Self

from app.platform.errors import FfmpegError

from .process import FfmpegProcess

# Decoders allowed in addition to the whitelist, by stream index.
OpenedDecoders = Mapping[int, str]

# The maximum number of additional decoders: each costs a run, and no real file has more.
MOST_OPENED = 32

# ffprobe arguments that cause decoding: -show_frames, -count_frames, -analyze_frames, -show_entries frame=...
_DECODING = re.compile(r"^-(show|count|analyze)_frames|(^|:)(packets_and_)?frames?(=|:|_|$)")
_NOT_LISTED = re.compile(
    r"^(?:\[[^\]\n]* @ [^\]\n]*\] )+\[error\] Codec \(([\w.-]+)\) not on whitelist", re.M
)
_NOT_OPENED = re.compile(r"^\[\w+\] Could not open codec for input stream ([0-9]{1,4})\b", re.M)


def with_refused_decoder(
    error: FfmpegError, opened: OpenedDecoders, ffprobe_args: Sequence[str]
) -> OpenedDecoders | None:
    """`opened` plus the refused decoder, for the next run; None when another run would not help."""
    said = error.detail or ""
    streams, decoders = _NOT_OPENED.findall(said), _NOT_LISTED.findall(said)
    if not streams or not decoders or any(_DECODING.search(argument) for argument in ffprobe_args):
        return None
    index = int(streams[-1])
    if index in opened or len(opened) == MOST_OPENED:
        return None
    return {**opened, index: decoders[-1]}


class ScannedLines:
    """An iterator over the lines of one ffprobe run, for one thread. Close it when leaving it early.

    `stderr_tail` is complete after the last line. Raises what FfmpegProcess.wait raises, after the last line.
    """

    def __init__(self, start: Callable[[OpenedDecoders], FfmpegProcess], ffprobe_args: Sequence[str]) -> None:
        self.stderr_tail = ""
        self._lines = self._run(start, ffprobe_args)

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
        self, start: Callable[[OpenedDecoders], FfmpegProcess], ffprobe_args: Sequence[str]
    ) -> Generator[str, None, None]:
        opened: OpenedDecoders = {}
        while True:
            with start(opened) as process:
                yield from process.lines()
                try:
                    process.wait()
                    return
                except FfmpegError as error:
                    more = with_refused_decoder(error, opened, ffprobe_args)
                    if more is None:
                        raise
                finally:
                    self.stderr_tail = process.stderr_tail
            opened = more
