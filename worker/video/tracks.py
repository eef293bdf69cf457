"""Chooses which of the input's other streams go into the output, and whether they are copied or converted."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any, Literal

from app.platform.byte_sizes import MIB
from app.platform.media.containers import MP4, OutputContainer
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.ffprobe_output import UNTAGGED, integer
from app.platform.media.recognition import is_encrypted
from app.platform.media.whitelists import TEXT_SUBTITLES, is_decodable
from worker.video.channel_layouts import (
    LAYOUTS_OF,
    MAX_STEREO,
    MAX_SURROUND,
    KeptLayout,
    is_kept_in_flac,
    kept_layout,
)
from worker.video.sound_headers import SoundFormat

# In microseconds, ffmpeg's default, texts more than 35 minutes apart overflow MP4's durations of 32 bits.
SUBTITLE_TIME_BASE = "1/1000"
CAPTIONS_NAME = "Closed captions"

AUDIO_BITS_PER_SECOND_AND_CHANNEL = 96_000
# Of one that puts the output together: some ten times what slow machines take.
LEAST_CPU_SECONDS = 600
SLOWEST_COPY = 10 * MIB
# Corrects from 10 ms on, where ffmpeg leaves up to 100: in most files those are rounded timestamps.
CLOSELY = ":min_hard_comp=0.01"

SOUND_LEFT_OUT = f"A sound track was left out: {MP4.name} cannot hold it, and it cannot be converted."
SOUND_EMPTY = "A sound track was left out: none of its sound can be read."
SOUND_ENCRYPTED = "A sound track was left out: it is encrypted."
SUBTITLES_LEFT_OUT = (
    "Subtitles stored as pictures, or in an unknown form, were left out: "
    f"{MP4.name} holds subtitles of text only."
)
VIDEO_LEFT_OUT = "The file has more than one video track; the others were left out."
COVER_LEFT_OUT = "The cover picture was left out."
ATTACHMENTS_LEFT_OUT = "Files attached to the video, such as fonts, were left out."
DATA_LEFT_OUT = "A track of data was left out ({name})."
# Data tracks of timecode, which is a tag too, and of MP4's own chapters.
TOLD_ELSEWHERE = ("tmcd", "text")
SOUND_CONVERTED = (
    f"Sound was converted to {MP4.audio_codec}, because {MP4.name} players do not take the input's."
)
SOUND_CHANGES = (
    f"Sound whose channels or sampling rate change was converted to {MP4.audio_codec}: an {MP4.name} track has "
    "one format."
)
SOUND_JOINED = (
    f"Sound was converted to {MP4.audio_codec}, to stay with the picture where the file's parts meet."
)
SOUND_MISPLACED = (
    f"Sound was converted to {MP4.audio_codec}: {MP4.name} does not keep the places of FLAC's channels."
)
SOUND_MIXED = (
    "Sound of {channels} channels{layout} was mixed to {kept}: {codec} has no place for each channel."
)


@dataclass(frozen=True, kw_only=True)
class KeptTrack:
    """A stream of the input that goes into the output.

    `tag`: of data. `layout`, `sample_rate`: of sound, if it is converted; 0 for the input's rate. `mixed`: a warning,
    if conversion mixes channels. `follows_closely`: even small gaps and overlaps of it are corrected.
    `is_default`: of subtitles, whether players show them without being asked. `is_captions`: they are closed captions.
    `runs`: of sound with long gaps, the start and end in seconds of what is kept. `cut`: a filter for converted sound
    of which a part is kept.
    """

    index: int
    kind: Literal["audio", "subtitle", "data"]
    is_copied: bool
    tag: str = ""
    layout: KeptLayout | None = None
    sample_rate: int = 0
    mixed: str | None = None
    follows_closely: bool = False
    is_default: bool = True
    is_captions: bool = False
    runs: tuple[tuple[float, float], ...] = ()
    cut: str = ""

    def options(self, number: int, *, file: OutputContainer = MP4) -> dict[str, Any]:
        """ffmpeg's options for the track as the `number`-th stream of its kind in `file`."""
        if self.kind == "data":
            return {f"c:d:{number}": "copy", f"tag:d:{number}": self.tag}
        if self.kind == "subtitle":
            is_default = self.is_default and not self.is_captions
            shown = {} if file.is_iso else {f"disposition:s:{number}": "default" if is_default else "0"}
            if self.is_copied:
                return {f"c:s:{number}": "copy", **shown}
            captions = {
                f"metadata:s:s:{number}": f"{'handler_name' if file.is_iso else 'title'}={CAPTIONS_NAME}",
                f"disposition:s:{number}": "hearing_impaired",
            }
            return {
                f"c:s:{number}": file.subtitle_encoder,
                f"time_base:s:{number}": SUBTITLE_TIME_BASE,
                **(captions if self.is_captions else shown),
            }
        if self.is_copied:
            return {f"c:a:{number}": "copy"}
        assert self.layout is not None
        sample_rate = file.audio_rate or self.sample_rate
        rate = f"{sample_rate}:" if sample_rate else ""
        closely = CLOSELY if self.follows_closely else ""
        return {
            f"c:a:{number}": file.audio_encoder,
            f"b:a:{number}": self.layout.channels * AUDIO_BITS_PER_SECOND_AND_CHANNEL,
            # Gaps in the timestamps become silence: an encoder would close them, and later sound would be too early.
            f"filter:a:{number}": ",".join(
                [
                    self._with_gaps_filled(f"aresample={rate}async=1{closely}"),
                    # Sound that changes has the layout already.
                    (not self.sample_rate and self.layout.mix)
                    or f"aformat=channel_layouts={self.layout.name}",
                    *([self.cut] if self.cut else []),
                ]
            ),
        }

    def _with_gaps_filled(self, resample: str) -> str:
        """`resample`, which fills gaps in memory, for each run by itself; the gaps between runs are filled as they are
        written.
        """
        if not self.runs:
            return resample
        # Between two runs it is cut in the middle of the gap.
        cuts = [(before[1] + after[0]) / 2 for before, after in pairwise(self.runs)]
        cuts = [0.0, *cuts, self.runs[-1][1] + 1]
        count = len(self.runs)
        graph = [f"asplit={count}" + "".join(f"[split{n}]" for n in range(count))]
        for number, (start, end) in enumerate(pairwise(cuts)):
            piece = f"[split{number}]atrim=start={start:.6f}:end={end:.6f},{resample},asetpts=PTS-STARTPTS"
            if number + 1 < count:
                piece += f",apad=whole_dur={self.runs[number + 1][0] - self.runs[number][0]:.6f}"
            graph.append(f"{piece}[run{number}]")
        joined = "".join(f"[run{n}]" for n in range(count))
        graph.append(f"{joined}concat=n={count}:v=0:a=1,asetpts=PTS+{self.runs[0][0]:.6f}/TB")
        return ";".join(graph)


@dataclass(frozen=True, kw_only=True)
class TrackChoice:
    tracks: tuple[KeptTrack, ...]
    warnings: tuple[str, ...]


def choose_tracks(
    streams: Sequence[dict[str, Any]],
    *,
    video_index: int,
    formats: Mapping[int, Set[SoundFormat]],
    is_joined: bool = False,
    file: OutputContainer = MP4,
    has_exact_times: bool = False,
) -> TrackChoice:
    """Choose from ffprobe's streams (`index`, `codec_type`, `codec_name`, `channels`, `disposition`, ...).

    `formats`: of sound tracks by their index, as far as they are known from the tracks' headers. `is_joined`: the
    file's timestamps start again. Where its parts meet, sound overlaps or has a gap, which a copy cannot follow.
    `has_exact_times`: timestamps are not rounded, so that small overlaps and gaps are real.
    """
    tracks: list[KeptTrack] = []
    warnings: dict[str, None] = {}
    for stream in streams:
        index, kind, codec = int(stream["index"]), stream.get("codec_type"), stream.get("codec_name")
        if index == video_index:
            continue
        if kind == "audio":
            track, told = _sound_track(
                stream,
                formats.get(index, set()),
                is_joined=is_joined,
                has_exact_times=has_exact_times,
                file=file,
            )
            tracks += [track] if track else []
            warnings |= dict.fromkeys(told)
        elif kind == "subtitle":
            is_copied = codec in file.copied_subtitles
            if is_copied or (codec in (*TEXT_SUBTITLES, "mov_text") and is_decodable(codec)):
                is_default = stream.get("disposition", {}).get("default") == 1
                tracks.append(
                    KeptTrack(index=index, kind="subtitle", is_copied=is_copied, is_default=is_default)
                )
            else:
                warnings[told_of(SUBTITLES_LEFT_OUT, file)] = None
        elif kind == "video":
            is_cover = stream.get("disposition", {}).get("attached_pic") == 1
            warnings[COVER_LEFT_OUT if is_cover else VIDEO_LEFT_OUT] = None
        elif kind == "attachment":
            warnings[ATTACHMENTS_LEFT_OUT] = None
        else:
            tag = str(stream.get("codec_tag_string"))
            if tag in file.copied_data:
                tracks.append(KeptTrack(index=index, kind="data", is_copied=True, tag=tag))
            elif tag not in TOLD_ELSEWHERE:
                warnings[data_left_out(codec, tag=tag)] = None
    return TrackChoice(tracks=tuple(tracks), warnings=tuple(warnings))


def told_of(warning: str, file: OutputContainer) -> str:
    """The warning, with the container's and its sound's names in place of MP4's."""
    for name, own in (
        (f"an {MP4.name}", f"a {file.name}"),
        (MP4.name, file.name),
        (MP4.audio_codec, file.audio_codec),
    ):
        if file is not MP4:
            warning = re.sub(rf"\b{name}\b", own, warning)
    return warning


def within_budget(
    runner: FfmpegRunner, streams: Sequence[Mapping[str, Any]], *, seconds: Fraction, copied_bytes: int
) -> FfmpegRunner:
    """`runner` with room for all sound to be converted beside copies of its inputs, however small the input's sound is,
    and with the processor time that this takes on a slow machine."""
    channels = sum(int(stream.get("channels", 0)) for stream in streams)
    sound_bytes = ceil(channels * AUDIO_BITS_PER_SECOND_AND_CHANNEL * seconds / 8)
    limits = replace(
        runner.limits,
        output_bytes=runner.limits.output_bytes + 2 * sound_bytes,
        cpu_seconds=LEAST_CPU_SECONDS + ceil(channels * seconds) + copied_bytes // SLOWEST_COPY,
    )
    return runner.under(limits)


def data_left_out(codec: str | None, *, tag: str = "") -> str:
    """The warning about a track of data."""
    if re.fullmatch(r"[A-Za-z0-9]{4}", tag):
        return DATA_LEFT_OUT.format(name=tag)
    return DATA_LEFT_OUT.format(name="of an unknown kind" if codec in (*UNTAGGED, "none") else codec)


def _sound_track(
    stream: dict[str, Any],
    formats: Set[SoundFormat],
    *,
    is_joined: bool,
    has_exact_times: bool,
    file: OutputContainer,
) -> tuple[KeptTrack | None, Sequence[str]]:
    """A sound track as it goes into the output, if it does, and warnings."""
    codec, channels = stream.get("codec_name"), integer(stream, "channels")
    if is_encrypted(stream):
        return None, [SOUND_ENCRYPTED]
    if codec not in file.copied_audio and not is_decodable(codec):
        return None, [told_of(SOUND_LEFT_OUT, file)]
    if not channels:
        # A transport stream may announce sound that never comes.
        return None, [SOUND_EMPTY]
    changes = len(formats) > 1
    layout = stream.get("channel_layout")
    if changes:
        channels, layout = max(channels, *(one.channels for one in formats)), None
        if channels > MAX_STEREO:
            # 5.1 has the places of the smaller layouts.
            channels = max(channels, MAX_SURROUND)
    known = None if layout in UNTAGGED else layout
    kept = kept_layout(known, channels=channels, known=LAYOUTS_OF[file.audio_encoder])
    is_misplaced = codec == "flac" and file.is_iso and not is_kept_in_flac(known, channels=channels)
    is_copied = codec in file.copied_audio and not changes and not is_joined and not is_misplaced
    named = f" ({layout})" if layout not in UNTAGGED else ""
    track = KeptTrack(
        index=int(stream["index"]),
        kind="audio",
        is_copied=is_copied,
        layout=kept,
        sample_rate=max(one.sample_rate for one in formats) if changes else 0,
        mixed=SOUND_MIXED.format(channels=channels, layout=named, kept=kept.name, codec=file.audio_codec)
        if kept.is_mixed
        else None,
        follows_closely=is_joined or changes or has_exact_times,
    )
    if is_copied:
        return track, []
    converted = SOUND_CONVERTED
    if codec in file.copied_audio:
        converted = SOUND_CHANGES if changes else SOUND_JOINED if is_joined else SOUND_MISPLACED
    return track, [told_of(converted, file), *([track.mixed] if track.mixed else [])]
