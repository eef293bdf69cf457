"""A copy of a file whose timestamps start again, with timestamps that go on: everything else reads the copy.

ffmpeg corrects such timestamps only while it reads a file from its start, by one stream at a time, and not at all where
it is told to keep them (`copyts`). The copy has all streams on one clock and can be decoded from any keyframe on. It is
an MPEG transport stream, which holds what those formats hold that start again, in the same ticks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.platform.errors import Canceled, FfmpegCancelled, PermanentError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import MediaInfo, probe_video
from worker.video.expressions import expression_tree
from worker.video.tracks import SOUND_LEFT_OUT, SUBTITLES_LEFT_OUT, VIDEO_LEFT_OUT

COPIED_AUDIO = frozenset({"aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "opus"})

# The file itself was within the limits.
UNLIMITED = MediaLimits(
    max_input_pixels=2**62,
    max_output_pixels=2**62,
    max_duration_seconds=2**40,
    max_output_frames=2**62,
    max_streams=2**31,
)

RESTARTS_WARNING = (
    "The timestamps of this file start again, as in joined recordings; "
    "its parts were put one after the other."
)


@dataclass(frozen=True, kw_only=True)
class ContinuousCopy:
    """How the copy is made. `streams`: those that it holds, by their index in the file; for each, the ticks to add to
    its timestamps, from the packet of that number on. `warnings`: sentences for the user.
    """

    streams: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    warnings: tuple[str, ...]


def plan_continuous_copy(info: MediaInfo) -> ContinuousCopy | None:
    """How to copy the file; None if its timestamps do not start again."""
    if not info.shifts:
        return None
    sounds = [stream for stream in info.others if stream.kind == "audio"]
    kept = [stream.index for stream in sounds if stream.codec in COPIED_AUDIO]
    left_out = {
        SOUND_LEFT_OUT: len(kept) < len(sounds),
        SUBTITLES_LEFT_OUT: any(stream.kind == "subtitle" for stream in info.others),
        VIDEO_LEFT_OUT: any(stream.kind == "video" for stream in info.others),
    }
    return ContinuousCopy(
        streams=tuple(
            (index, info.shifts[index]) for index in (info.video.index, *kept) if info.shifts[index]
        ),
        warnings=(RESTARTS_WARNING, *(warning for warning, holds in left_out.items() if holds)),
    )


def write_continuous_copy(
    runner: FfmpegRunner,
    source: Path,
    copy: ContinuousCopy,
    destination: Path,
    *,
    cancelled: Callable[[], bool],
) -> None:
    """Write the copy. Raises Canceled once `cancelled` returns True, and what FfmpegRunner.run raises."""
    read = runner.input(source)
    options = {}
    for number, (_index, shifts) in enumerate(copy.streams):
        ticks = expression_tree([(packet, str(ticks)) for packet, ticks in shifts])
        shifted = ":".join(
            f"{name.lower()}=if(eq({name}\\,NOPTS)\\,NOPTS\\,{name}+{ticks})" for name in ("PTS", "DTS")
        )
        options[f"bsf:{number}"] = f"setts={shifted}"
    stream = runner.output(
        *(read[str(index)] for index, _shifts in copy.streams),
        destination,
        **options,
        c="copy",
        copyts=None,
        copyinkf=None,
        f="mpegts",
        muxdelay=0,
        muxpreload=0,
        # One timestamp for each packet of sound.
        pes_payload_size=0,
        max_muxing_queue_size=16_384,
    )
    try:
        runner.run(stream, purpose="copying the video", cancelled=cancelled)
    except FfmpegCancelled as error:
        raise Canceled() from error


def continuous_source(
    runner: FfmpegRunner,
    source: Path,
    info: MediaInfo,
    *,
    directory: Path,
    cancelled: Callable[[], bool],
) -> tuple[Path, MediaInfo, ContinuousCopy | None]:
    """The file and what it holds; if its timestamps start again, those of a copy in `directory`, and how it was made.

    Raises what `write_continuous_copy` and `probe_copy` raise.
    """
    copy = plan_continuous_copy(info)
    if copy is None:
        return source, info, None
    destination = directory / "continuous.ts"
    write_continuous_copy(runner, source, copy, destination, cancelled=cancelled)
    return destination, probe_copy(runner, destination), copy


def probe_copy(runner: FfmpegRunner, path: Path) -> MediaInfo:
    """Probe a copy. Raises PermanentError if its timestamps start again."""
    info = probe_video(runner, path, limits=UNLIMITED)
    if info.shifts:
        raise PermanentError(
            "The timestamps of this file start again in a way that this server cannot correct."
        )
    return info
