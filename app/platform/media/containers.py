"""Container formats: those of uploads, and those of renders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, get_args

UNKNOWN_CONTENT_TYPE = "application/octet-stream"

VideoCodec: TypeAlias = Literal["h264", "hevc", "av1", "prores", "ffv1", "vp9"]
ContainerName: TypeAlias = Literal["mp4", "mkv", "webm", "mov"]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container format. `suffixes` are those of file names, with their dot; `demuxer` is ffmpeg's."""

    content_type: str
    suffixes: tuple[str, ...]
    demuxer: str

    @property
    def suffix(self) -> str:
        """The suffix for written files."""
        return self.suffixes[0]


@dataclass(frozen=True, kw_only=True)
class OutputContainer(Container):
    """A container format that is written.

    `name`: as warnings call it. `muxer_options`: ffmpeg's, for every file; `finished_options`: further ones
    for a file that users receive. `video_codecs`: the permitted ones, each with its tag where that is not
    ffmpeg's own; `usual_codec`: without another request, None for H.264 or HEVC. `copied_audio`,
    `copied_subtitles`: codecs that are copied unchanged and that players accept. `copied_data`: tags of data tracks
    that are copied unchanged. `audio_encoder`, `subtitle_encoder`: ffmpeg's, for converted tracks; `audio_codec`: as
    warnings call it; `audio_rate`: the only sampling rate of converted sound, 0 for the input's. `time_base_den`: ticks
    per second of all times, None for a time scale of the file's own. `is_iso`: it consists of ISO's boxes.
    """

    name: str
    muxer_options: Mapping[str, Any]
    finished_options: Mapping[str, Any]
    video_codecs: Mapping[VideoCodec, str | None]
    usual_codec: VideoCodec | None = None
    copied_audio: frozenset[str]
    audio_encoder: str
    audio_codec: str
    audio_rate: int = 0
    copied_subtitles: frozenset[str]
    copied_data: frozenset[str] = frozenset()
    subtitle_encoder: str
    time_base_den: int | None = None

    @property
    def is_iso(self) -> bool:
        return self.time_base_den is None

    def video_options(self, *, codec: VideoCodec, timescale: int, movie_timescale: int) -> dict[str, Any]:
        """ffmpeg's options for a file with video of that codec. Time scales are in ticks per second."""
        tag = self.video_codecs[codec]
        scales = {"video_track_timescale": timescale, "movie_timescale": movie_timescale}
        return {
            **self.muxer_options,
            **(scales if self.is_iso else {}),
            **({} if tag is None else {"tag:v": tag}),
        }


MP4 = OutputContainer(
    content_type="video/mp4",
    suffixes=(".mp4", ".m4v"),
    demuxer="mov",
    name="MP4",
    muxer_options={"f": "mp4"},
    finished_options={
        "movflags": "+faststart",
        # FLAC in MP4 is standard by now, but ffmpeg 5 calls it experimental.
        "strict": "experimental",
        "write_tmcd": 0,
    },
    video_codecs={"h264": None, "hevc": "hvc1", "av1": None, "vp9": None},
    # MP4 could also hold DTS, MP2 and the like, which its players do not accept.
    copied_audio=frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    audio_encoder="aac",
    audio_codec="AAC",
    copied_subtitles=frozenset({"mov_text"}),
    # GoPro's telemetry; ffmpeg has no names for others.
    copied_data=frozenset({"gpmd"}),
    subtitle_encoder="mov_text",
)
_PCM = frozenset({"pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le"})
MOV = replace(
    MP4,
    content_type="video/quicktime",
    suffixes=(".mov",),
    name="QuickTime",
    muxer_options={"f": "mov"},
    finished_options={"movflags": "+faststart", "write_tmcd": 0},
    video_codecs={"h264": None, "hevc": "hvc1", "prores": None},
    copied_audio=frozenset({"aac", "mp3", "ac3", "eac3", "alac", *_PCM}),
)
# It has no place for the range of FFV1, which the finished file has.
_MOV_SEGMENT = replace(MOV, video_codecs={"prores": None, "ffv1": None})
MKV = OutputContainer(
    content_type="video/x-matroska",
    suffixes=(".mkv",),
    demuxer="matroska",
    name="Matroska",
    muxer_options={"f": "matroska"},
    # What precedes 0 is the start of compressed sound, which no player plays: nothing is moved for its sake.
    finished_options={"avoid_negative_ts": "disabled", "default_mode": "infer_no_subs"},
    video_codecs=dict.fromkeys(get_args(VideoCodec)),
    copied_audio=frozenset(
        {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "opus", "flac", "vorbis", "dts", "truehd", *_PCM}
    ),
    audio_encoder="flac",
    audio_codec="FLAC",
    copied_subtitles=frozenset({"subrip", "ass", "ssa", "hdmv_pgs_subtitle", "dvd_subtitle"}),
    subtitle_encoder="subrip",
    # Of ffmpeg's muxer.
    time_base_den=1000,
)
WEBM = replace(
    MKV,
    content_type="video/webm",
    suffixes=(".webm",),
    name="WebM",
    muxer_options={"f": "webm"},
    video_codecs={"av1": None, "vp9": None},
    usual_codec="vp9",
    copied_audio=frozenset({"opus", "vorbis"}),
    audio_encoder="libopus",
    audio_codec="Opus",
    audio_rate=48_000,
    copied_subtitles=frozenset({"webvtt"}),
    subtitle_encoder="webvtt",
)
OUTPUT_CONTAINERS: Mapping[ContainerName, OutputContainer] = {
    "mp4": MP4,
    "mkv": MKV,
    "webm": WEBM,
    "mov": MOV,
}
# Of files of which fragments for a playlist can be made.
ISO_SUFFIXES = frozenset(
    suffix for file in OUTPUT_CONTAINERS.values() if file.is_iso for suffix in file.suffixes
)
# The first of those with one demuxer applies if the name does not decide.
CONTAINERS = (
    MP4,
    MOV,
    MKV,
    WEBM,
    Container(content_type="video/x-msvideo", suffixes=(".avi",), demuxer="avi"),
    Container(content_type="video/mp2t", suffixes=(".ts",), demuxer="mpegts"),
    Container(content_type="video/mpeg", suffixes=(".mpeg", ".mpg"), demuxer="mpeg"),
    Container(content_type="video/x-flv", suffixes=(".flv",), demuxer="flv"),
    Container(content_type="video/x-ms-asf", suffixes=(".wmv",), demuxer="asf"),
    Container(content_type="video/ogg", suffixes=(".ogv",), demuxer="ogg"),
    Container(content_type="image/gif", suffixes=(".gif",), demuxer="gif"),
    Container(content_type="image/apng", suffixes=(".apng", ".png"), demuxer="apng"),
    Container(content_type="video/h264", suffixes=(".h264", ".264"), demuxer="h264"),
    Container(content_type="video/h265", suffixes=(".h265", ".265", ".hevc"), demuxer="hevc"),
)


def segment_container(codec: VideoCodec, *, has_alpha: bool = False) -> OutputContainer:
    """The format of segments: only MP4 and QuickTime keep every timestamp exactly.

    They have no place for VP9's alpha, which Matroska puts beside each frame: segments with it are Matroska, whose
    thousandths of a second stand for ticks, whatever these last.
    """
    if codec == "vp9" and has_alpha:
        return MKV
    return MP4 if codec in MP4.video_codecs else _MOV_SEGMENT


def content_type_of_name(name: str) -> str:
    """The media type by the name's suffix, for a file that has not been examined."""
    return _content_type(CONTAINERS, name) or UNKNOWN_CONTENT_TYPE


def content_type_of_format(format_name: str, *, name: str) -> str:
    """The media type by ffmpeg's name of the format; if that covers several, also by the name's suffix."""
    demuxers = format_name.split(",")
    fitting = tuple(one for one in CONTAINERS if one.demuxer in demuxers)
    return _content_type(fitting, name) or (fitting[0].content_type if fitting else UNKNOWN_CONTENT_TYPE)


def _content_type(containers: tuple[Container, ...], name: str) -> str | None:
    suffix = PurePath(name).suffix.lower()
    return next((one.content_type for one in containers if suffix in one.suffixes), None)
