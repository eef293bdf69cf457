"""A copy of a file that ffmpeg does not read correctly to its last frame: everything else reads the copy.

ffmpeg corrects timestamps that start again only while it reads a file from its start, by one stream at a
time, and not at all where it is told to keep them (`copyts`). The copy has all streams on one clock and can
be decoded from any keyframe on. A file whose video changes its shape loses frames (see `sequence_ends`); the
copy does not. It is an MPEG transport stream, which holds all streams of those formats, in the same ticks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any

import ffmpeg

from app.platform.errors import Canceled, PermanentError
from app.platform.media.clock import may_restart
from app.platform.media.containers import MP4
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import PacketShifts
from app.platform.media.limits import MediaLimits
from app.platform.media.packet_summary import SEQUENCE_CODECS
from app.platform.media.probe import MediaInfo, probe_video
from worker.video import sequence_ends
from worker.video.filter_expressions import expression_tree
from worker.video.opus_layouts import opus_warnings
from worker.video.tracks import (
    CLOSELY,
    SOUND_CONVERTED,
    SOUND_LEFT_OUT,
    SUBTITLES_LEFT_OUT,
    VIDEO_LEFT_OUT,
    data_left_out,
)

COPIED_AUDIO = frozenset({"aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "opus"})

# The file itself was within the limits.
UNLIMITED = MediaLimits(
    max_input_pixels=2**62,
    max_output_pixels=2**62,
    max_duration_seconds=2**40,
    max_output_frames=2**62,
    max_streams=2**31,
)

# More than the output's sound gets, into which it is converted once more.
CONVERTED_BITS_PER_SECOND = 512_000
# Of transport and program streams.
TICKS_PER_SECOND = 90_000
# How long their clock runs, and a step back that ffmpeg takes for its wrap.
CLOCK_TICKS = 2**33
WRAP_TICKS = CLOCK_TICKS * 9 // 10
# Where the copy of a joined file starts: timestamps of what precedes sound in its coding are not below 0.
START_SECONDS = 1
RESTARTS_WARNING = (
    "The timestamps of this file start again, as in joined recordings; its parts follow one another."
)


@dataclass(frozen=True, kw_only=True)
class ContinuousCopy:
    """How the copy is made. `streams`: those that it holds, by their index in the file; for each, the ticks to add to
    its timestamps, from the packet of that number on. `warnings`: sentences for the user. `is_joined`: timestamps start
    again. `ends_sequences`, `repeats_references`: see `sequence_ends`. `converted`: streams of sound that a transport
    stream cannot hold. `spacings`: see MediaInfo.
    """

    streams: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    warnings: tuple[str, ...]
    is_joined: bool = True
    ends_sequences: bool = False
    repeats_references: bool = False
    converted: tuple[int, ...] = ()
    spacings: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)


def plan_continuous_copy(
    runner: FfmpegRunner, source: Path, info: MediaInfo, *, cancelled: Callable[[], bool]
) -> ContinuousCopy | None:
    """How to copy the file; None if it needs no copy. Raises what `changes_shape` raises."""
    is_joined = bool(info.shifts)
    is_mpeg4 = info.video.codec == "mpeg4"
    changes_shape = (info.video.codec in SEQUENCE_CODECS or is_mpeg4) and may_restart(info.format_name)
    if changes_shape and (is_mpeg4 or not is_joined):
        changes_shape = sequence_ends.changes_shape(
            runner, source, stream_index=info.video.index, is_mpeg4=is_mpeg4, cancelled=cancelled
        )
    if not is_joined and not changes_shape:
        return None
    sounds = [stream for stream in info.others if stream.kind == "audio"]
    copied = [stream.index for stream in sounds if stream.codec in COPIED_AUDIO]
    converted = [stream.index for stream in sounds if stream.index not in copied and stream.is_decodable]
    kept = [info.video.index, *copied, *converted]
    left_out = {
        SOUND_CONVERTED: bool(converted),
        SOUND_LEFT_OUT: len(copied) + len(converted) < len(sounds),
        SUBTITLES_LEFT_OUT: any(stream.kind == "subtitle" for stream in info.others),
        VIDEO_LEFT_OUT: any(stream.kind == "video" for stream in info.others),
    }
    shifts: PacketShifts = dict.fromkeys(kept, ((0, 0),))
    if is_joined:
        shifts = {
            index: tuple(
                (packet, ticks + START_SECONDS * TICKS_PER_SECOND) for packet, ticks in info.shifts[index]
            )
            for index in kept
        }
    return ContinuousCopy(
        streams=tuple((index, ticks) for index, ticks in shifts.items() if ticks),
        warnings=(
            *([RESTARTS_WARNING] if is_joined else []),
            *(warning for warning, holds in left_out.items() if holds),
            *(opus_warnings(source) if any(stream.codec == "opus" for stream in sounds) else []),
            *(data_left_out(stream.codec) for stream in info.others if stream.kind == "data"),
        ),
        is_joined=is_joined,
        ends_sequences=changes_shape and not is_mpeg4,
        repeats_references=changes_shape and is_mpeg4,
        converted=tuple(converted),
        spacings={
            index: spacings for index, spacings in info.spacings.items() if is_joined and index in kept
        },
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
    # ffmpeg moves the part after one that began long before the first, which it shows as after the clock's wrap.
    is_raw = any(
        after - before > WRAP_TICKS
        for _index, shifts in copy.streams
        for (_, before), (_, after) in pairwise(shifts)
    )
    read = runner.input(source, **({"correct_ts_overflow": 0} if is_raw else {}))
    options: dict[str, Any] = {}
    for number, (index, shifts) in enumerate(copy.streams):
        leaves = [(packet, str(ticks)) for packet, ticks in shifts]
        if index in copy.converted:
            # A packet of PCM is decoded to a frame; the filter has no number of frames but one that it keeps itself.
            ticks = expression_tree(leaves, number="ld(0)")
            moved_to = _on_clock(f"PTS+{ticks}")
            shifted = f"asettb=1/{TICKS_PER_SECOND},asetpts={moved_to}+0*st(0\\,ld(0)+1)"
            options |= {
                f"filter:{number}": f"{shifted},aresample=async=1{CLOSELY}",
                f"c:{number}": MP4.audio_encoder,
                f"b:{number}": CONVERTED_BITS_PER_SECOND,
            }
            continue
        ticks = expression_tree(leaves)
        moved = {
            name: f"if(eq({name}\\,NOPTS)\\,NOPTS\\,{_on_clock(f'{name}+{ticks}')})"
            for name in ("PTS", "DTS")
        }
        if spacings := copy.spacings.get(index):
            # Up to the first of them, timestamps are as they seem to be.
            steps = expression_tree(
                [(0, "-1"), *((packet, f"{float(step):.3f}") for packet, step in spacings)]
            )
            moved = {
                name: f"if(gte({steps}\\,0)*lt(POS\\,0)\\,PREV_OUT{name}+{steps}\\,{value})"
                for name, value in moved.items()
            }
        shifted = ":".join(f"{name.lower()}={value}" for name, value in moved.items())
        options[f"bsf:{number}"] = f"setts={shifted}"
    stream = ffmpeg.output(
        *(read[str(index)] for index, _shifts in copy.streams),
        "pipe:1",
        **{"c": "copy", **options},
        copyts=None,
        copyinkf=None,
        f="mpegts",
        muxdelay=0,
        muxpreload=0,
        # One timestamp for each packet of sound.
        pes_payload_size=0,
        max_muxing_queue_size=16_384,
    )
    with (
        runner.start(
            stream, purpose="copying the video", stdin=False, stdout=True, may_wait=False
        ) as process,
        destination.open("wb") as file,
    ):
        written = BufferedReader(process.stdout, sequence_ends.CHUNK_BYTES)  # type: ignore[type-var]
        pieces = (
            sequence_ends.repeat_references(written)
            if copy.repeats_references
            else sequence_ends.end_sequences(written, has_sequences=copy.ends_sequences)
        )
        for piece in pieces:
            if cancelled():
                raise Canceled()
            file.write(piece)
        process.wait()


def _on_clock(ticks: str) -> str:
    """The expression for a place on the clock, whether or not the timestamp is counted on beyond its wrap."""
    return f"mod({ticks}\\,{CLOCK_TICKS})"


def continuous_source(
    runner: FfmpegRunner,
    source: Path,
    info: MediaInfo,
    *,
    directory: Path,
    cancelled: Callable[[], bool],
) -> tuple[Path, MediaInfo, ContinuousCopy | None]:
    """The file and what it holds; if it is not read as it is, those of a copy in `directory`, and how it was made.

    Raises what `write_continuous_copy` and `probe_copy` raise.
    """
    copy = plan_continuous_copy(runner, source, info, cancelled=cancelled)
    if copy is None:
        return source, info, None
    destination = directory / "continuous.ts"
    write_continuous_copy(runner, source, copy, destination, cancelled=cancelled)
    return destination, probe_copy(runner, destination, source=info, copy=copy), copy


def probe_copy(runner: FfmpegRunner, path: Path, *, source: MediaInfo, copy: ContinuousCopy) -> MediaInfo:
    """Probe the copy of a file. Raises PermanentError if its timestamps start again."""
    info = probe_video(runner, path, limits=UNLIMITED)
    if info.shifts:
        raise PermanentError(
            "The timestamps of this file start again in a way that this server cannot correct."
        )
    # Coded sound begins before its first sample, with what is not played.
    _index, ((_packet, ticks), *_later) = copy.streams[0]
    earliest = source.start_seconds + Fraction(ticks, TICKS_PER_SECOND)
    video = info.video
    if copy.repeats_references:
        # Repeated frames are not shown.
        video = replace(
            video,
            frames=source.video.frames,
            frame_rate=source.video.frame_rate,
            declared_frames=source.video.declared_frames,
        )
    return replace(info, video=video, start_seconds=max(info.start_seconds, earliest))
