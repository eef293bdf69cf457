"""Sound whose format changes, decoded into one format. ffmpeg rebuilds its filters where channels or sampling
rate change, and they lose their state. Where parts overlap, if only by the samples that encoders put in
front, all later sound would be late by as much. So the format is unified before timestamps are followed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import structlog

from app.platform.byte_sizes import GIB
from app.platform.errors import FfmpegCancelled, FfmpegError
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from worker.video.filter_expressions import seconds_option
from worker.video.tracks import KeptTrack

log = structlog.get_logger(__name__)

# Sound may begin before the picture, and timestamps in the file may not be below 0. Where the sampling rate changes,
# ffmpeg gives one frame of MP2 and MP3 a timestamp in ticks of the other rate: after this shift, it is days away from
# the file's, and the frame follows the one before it.
SHIFT_SECONDS = Fraction(10_000_000)
LONGEST_SECONDS = 500_000
_FOLLOWING = (
    f"asetpts='if(lt(abs(T-{SHIFT_SECONDS}),{LONGEST_SECONDS}),PTS,PREV_OUTPTS+S)',aselect='gte(t,0)'"
)
# Four hours of eight channels at 48 kHz take two thirds of it.
MOST_BYTES = 16 * GIB


@dataclass(frozen=True, kw_only=True)
class UniformSound:
    """A NUT file of PCM. `indexes`: those of its tracks in the source, in order."""

    path: Path
    indexes: tuple[int, ...]

    def input(self, runner: FfmpegRunner, *, skipped_seconds: Fraction) -> Stream:
        """The input of a command with `copyts`, in which so much after the source's start is 0."""
        shift = seconds_option(-SHIFT_SECONDS - skipped_seconds)
        return runner.own_file_input(self.path, demuxer="nut", itsoffset=shift)


def write_uniform_sound(
    runner: FfmpegRunner,
    source: Path,
    tracks: Sequence[KeptTrack],
    path: Path,
    *,
    start_seconds: Fraction,
    cancelled: Callable[[], bool],
) -> UniformSound | None:
    """Decode the tracks that change; None if there are none, or if that fails.

    `start_seconds`: the source's start. Raises FfmpegCancelled once `cancelled` returns True.
    """
    changing = [track for track in tracks if track.sample_rate]
    if not changing:
        return None
    read = runner.input(source, copyts=None, itsoffset=seconds_option(SHIFT_SECONDS - start_seconds))
    options: dict[str, Any] = {}
    for number, track in enumerate(changing):
        assert track.layout is not None
        options[f"filter:a:{number}"] = (
            f"{_FOLLOWING},aresample={track.sample_rate},aformat=channel_layouts={track.layout.name}"
        )
    streams = [read[str(track.index)] for track in changing]
    command = runner.output(*streams, path, acodec="pcm_s16le", f="nut", **options)
    try:
        runner.run(command, purpose="converting the sound", cancelled=cancelled, output_bytes=MOST_BYTES)
    except FfmpegCancelled:
        raise
    except FfmpegError as error:
        # The sound is then read as it is.
        log.warning("sound_not_uniform", detail=error.detail)
        return None
    return UniformSound(path=path, indexes=tuple(track.index for track in changing))
