"""What is known of a media file once it has been examined."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from app.platform.media.properties import VideoProperties

StreamKind = Literal["audio", "subtitle", "data", "attachment", "video"]


@dataclass(frozen=True, kw_only=True)
class ColourTags:
    """Colour as the file tags it, in ffmpeg's names (`bt709`, `smpte2084`, ...); None where it is untagged.

    `range` is `tv` (limited) or `pc` (full).
    """

    primaries: str | None
    transfer: str | None
    matrix: str | None
    range: str | None
    chroma_location: str | None


@dataclass(frozen=True, kw_only=True)
class VideoStream(VideoProperties):
    """The video stream of a file.

    `width`, `height`: what ffmpeg delivers unless told otherwise.
    `coded_width`, `coded_height`: pixels as coded, before rotation, padding of the codec included.
    `rotation`: degrees clockwise that a player turns the coded picture by: 0, 90, 180 or 270.
    `sample_aspect_ratio`: width to height of a pixel as displayed; 1 where the file does not say.
    `time_base`: seconds per tick. `start_pts`: ticks, of the first frame shown.
    `frame_rate`: the declared rate where the timestamps agree with it.
    `frames`: packets that will be shown. `declared_frames`: frames that the container promises, where it does; more
    than `frames` when the file was cut off.
    `field_order`: `progressive`, `tt`, `bb`, `tb`, `bt`, or None when unknown.
    """

    index: int
    codec: str
    coded_width: int
    coded_height: int
    rotation: int
    pix_fmt: str
    sample_aspect_ratio: Fraction
    time_base: Fraction
    start_pts: int
    declared_frames: int | None
    colour: ColourTags
    field_order: str | None


@dataclass(frozen=True, kw_only=True)
class OtherStream:
    """A stream beside the video: sound, subtitles, a cover picture, a second video, ...

    `codec`: ffprobe's name, None when ffmpeg does not know it. `is_decodable`: whether ffmpeg may decode it;
    copying works either way. `is_attached_picture`: a picture (cover art, thumbnail) kept as a video stream.
    """

    index: int
    kind: StreamKind
    codec: str | None
    is_default: bool
    is_attached_picture: bool
    is_decodable: bool


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """A file with a video in it. `format_name` is ffmpeg's; `start_seconds` the earliest timestamp of all streams."""

    format_name: str
    start_seconds: Fraction
    video: VideoStream
    others: tuple[OtherStream, ...]
    stream_count: int
