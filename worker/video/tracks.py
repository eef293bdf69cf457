"""Chooses which of the input's other streams go into the output, and whether they are copied or converted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.platform.media.containers import OUTPUT
from app.platform.media.whitelists import is_decodable

TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "text"})

AUDIO_BITS_PER_SECOND_AND_CHANNEL = 96_000
MAX_AUDIO_CHANNELS = 8

SOUND_LEFT_OUT = f"A sound track was left out: {OUTPUT.name} cannot hold it, and it cannot be converted."
SUBTITLES_LEFT_OUT = (
    "Subtitles stored as pictures, or in an unknown form, were left out: "
    f"{OUTPUT.name} holds subtitles of text only."
)
VIDEO_LEFT_OUT = "The file has more than one video track; the others were left out."
COVER_LEFT_OUT = "The cover picture was left out."
ATTACHMENTS_LEFT_OUT = "Files attached to the video, such as fonts, were left out."
SOUND_CONVERTED = (
    f"Sound was converted to {OUTPUT.audio_codec}, because {OUTPUT.name} players do not take the input's."
)


@dataclass(frozen=True, kw_only=True)
class KeptTrack:
    """A stream of the input that goes into the output. `channels` are those of converted sound."""

    index: int
    kind: Literal["audio", "subtitle"]
    is_copied: bool
    channels: int = 0

    def options(self, number: int) -> dict[str, Any]:
        """ffmpeg's options for the track as the output's `number`-th stream of its kind."""
        if self.kind == "subtitle":
            return {f"c:s:{number}": "copy" if self.is_copied else OUTPUT.subtitle_encoder}
        if self.is_copied:
            return {f"c:a:{number}": "copy"}
        channels = min(max(self.channels, 1), MAX_AUDIO_CHANNELS)
        return {
            f"c:a:{number}": OUTPUT.audio_encoder,
            f"b:a:{number}": channels * AUDIO_BITS_PER_SECOND_AND_CHANNEL,
            f"ac:a:{number}": channels,
            # Gaps in the timestamps become silence: an encoder would close them, and later sound would be too early.
            f"filter:a:{number}": "aresample=async=1",
        }


@dataclass(frozen=True, kw_only=True)
class TrackChoice:
    tracks: tuple[KeptTrack, ...]
    warnings: tuple[str, ...]


def choose_tracks(streams: Sequence[dict[str, Any]], *, video_index: int) -> TrackChoice:
    """Choose from ffprobe's streams (`index`, `codec_type`, `codec_name`, `channels`, `disposition`)."""
    tracks: list[KeptTrack] = []
    warnings: dict[str, None] = {}
    for stream in streams:
        index, kind, codec = int(stream["index"]), stream.get("codec_type"), stream.get("codec_name")
        if index == video_index:
            continue
        if kind == "audio":
            if codec in OUTPUT.copied_audio:
                tracks.append(
                    KeptTrack(index=index, kind="audio", is_copied=True, channels=_channels(stream))
                )
            elif is_decodable(codec):
                tracks.append(
                    KeptTrack(index=index, kind="audio", is_copied=False, channels=_channels(stream))
                )
                warnings[SOUND_CONVERTED] = None
            else:
                warnings[SOUND_LEFT_OUT] = None
        elif kind == "subtitle":
            if codec in OUTPUT.copied_subtitles or (codec in TEXT_SUBTITLES and is_decodable(codec)):
                is_copied = codec in OUTPUT.copied_subtitles
                tracks.append(KeptTrack(index=index, kind="subtitle", is_copied=is_copied))
            else:
                warnings[SUBTITLES_LEFT_OUT] = None
        elif kind == "video":
            is_cover = stream.get("disposition", {}).get("attached_pic") == 1
            warnings[COVER_LEFT_OUT if is_cover else VIDEO_LEFT_OUT] = None
        elif kind == "attachment":
            warnings[ATTACHMENTS_LEFT_OUT] = None
    return TrackChoice(tracks=tuple(tracks), warnings=tuple(warnings))


def _channels(stream: dict[str, Any]) -> int:
    channels = stream.get("channels", 2)
    return channels if isinstance(channels, int) else 2
