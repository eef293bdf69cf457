"""Container formats: those of uploads, and the one for renders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

UNKNOWN_CONTENT_TYPE = "application/octet-stream"


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
    ffmpeg's own. `copied_audio`, `copied_subtitles`: codecs that are copied unchanged and that players
    accept. `copied_data`: tags of data tracks that are copied unchanged. `audio_encoder`, `subtitle_encoder`:
    ffmpeg's, for converted tracks; `audio_codec`: as warnings call it.
    """

    name: str
    muxer_options: Mapping[str, Any]
    finished_options: Mapping[str, Any]
    video_codecs: Mapping[str, str | None]
    copied_audio: frozenset[str]
    audio_encoder: str
    audio_codec: str
    copied_subtitles: frozenset[str]
    copied_data: frozenset[str]
    subtitle_encoder: str

    def video_options(self, *, codec: str, timescale: int, movie_timescale: int) -> dict[str, Any]:
        """ffmpeg's options for a file with video of that codec. Time scales are in ticks per second."""
        tag = self.video_codecs[codec]
        return {
            **self.muxer_options,
            "video_track_timescale": timescale,
            "movie_timescale": movie_timescale,
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
    video_codecs={"h264": None, "hevc": "hvc1"},
    # MP4 could also hold DTS, MP2 and the like, which its players do not accept.
    copied_audio=frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    audio_encoder="aac",
    audio_codec="AAC",
    copied_subtitles=frozenset({"mov_text"}),
    # GoPro's telemetry; ffmpeg has no names for others.
    copied_data=frozenset({"gpmd"}),
    subtitle_encoder="mov_text",
)
# The first of those with one demuxer applies if the name does not decide.
CONTAINERS = (
    MP4,
    Container(content_type="video/quicktime", suffixes=(".mov",), demuxer="mov"),
    Container(content_type="video/x-matroska", suffixes=(".mkv",), demuxer="matroska"),
    Container(content_type="video/webm", suffixes=(".webm",), demuxer="matroska"),
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
# The formats of renders and of their segments: only MP4 keeps every timestamp exactly.
OUTPUT, SEGMENT = MP4, MP4


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
