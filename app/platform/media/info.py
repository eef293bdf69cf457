"""The properties of a probed media file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from app.platform.media.h273 import ColourPrimaries, MatrixCoefficients, TransferCharacteristics
from app.platform.media.output_size import OutputSize
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import film_rate, frames_at_rate


# Not keyword-only: a composite column builds it from its columns, in this order.
@dataclass(frozen=True)
class VideoProperties:
    """A video's size, rate and length.

    `width`, `height`: pixels as displayed, after rotation.
    `frame_rate`: average, frames a second, above 0.
    `duration_seconds`: from the first frame shown to the end of the last; other streams play no part.
    `frames`: frames that are shown.
    """

    width: int
    height: int
    frame_rate: Fraction
    duration_seconds: Fraction
    frames: int

    @property
    def total_pixels(self) -> int:
        """Pixels of all frames together."""
        return self.width * self.height * self.frames

    def as_fields(self) -> Self:
        """The video of which each field is a frame."""
        return replace(self, frame_rate=2 * self.frame_rate, frames=2 * self.frames)

    def deinterlaced(self, way: Deinterlace) -> Self:
        """The video of the pictures that are made of its frames; of a telecined one about as many as the film has."""
        if way is Deinterlace.FIELD:
            return self.as_fields()
        if way is Deinterlace.DETELECINE:
            rate = film_rate(self.frame_rate)
            return replace(self, frame_rate=rate, frames=frames_at_rate(self.duration_seconds, rate))
        return self

    def upscaled(
        self, *, scale: int, target_fps: Fraction | None, size: OutputSize | None = None
    ) -> "VideoProperties":
        """The expected output: `scale` times the width and height or, if given, of another `size`; at `target_fps` or
        with the same frames."""
        width, height = self.width * scale, self.height * scale
        if size is not None:
            width, height = size.of(self.width, self.height)
        return VideoProperties(
            width=width,
            height=height,
            frame_rate=target_fps or self.frame_rate,
            duration_seconds=self.duration_seconds,
            frames=self.frames if target_fps is None else frames_at_rate(self.duration_seconds, target_fps),
        )


if TYPE_CHECKING:
    from app.platform.media.file_listing import FileListing

# For each stream, the ticks to add to its timestamps from the packet of that number on.
PacketShifts: TypeAlias = Mapping[int, tuple[tuple[int, int], ...]]
# For each stream of sound whose sampling rate changes, the ticks from one packet to the next, from that number on.
PacketSpacings: TypeAlias = Mapping[int, tuple[tuple[int, Fraction], ...]]
MICROSECOND = Fraction(1, 1_000_000)
StreamKind = Literal["audio", "subtitle", "data", "attachment", "video"]


@dataclass(frozen=True, kw_only=True)
class ColourTags:
    """The file's colour tags; None for a property that is untagged, or tagged by a reserved value.

    `range` is `tv` (limited) or `pc` (full). `has_unknown`: a tag has a value that this server does not know.
    """

    primaries: ColourPrimaries | None
    transfer: TransferCharacteristics | None
    matrix: MatrixCoefficients | None
    range: str | None
    chroma_location: str | None
    has_unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class VideoStream(VideoProperties):
    """The video stream of a file.

    `width`, `height`: the size that ffmpeg delivers by default, after rotation and crop.
    `coded_width`, `coded_height`: the coded size in pixels, before rotation, including the codec's padding.
    `rotation`: degrees clockwise by which a player rotates the coded picture: 0, 90, 180 or 270.
    `is_mirrored`: a player swaps left and right before it rotates.
    `sample_aspect_ratio`: width to height of a displayed pixel; 1 where the file has none.
    `time_base`: seconds per tick. `start_pts`: the timestamp of the first shown frame, in ticks.
    `frame_rate`: the declared rate where the timestamps agree with it.
    `frames`: packets that will be shown. `declared_frames`: the container's own count, None without one; larger than
    `frames` in a truncated file.
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
    is_mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class OtherStream:
    """Any other stream: sound, subtitles, a cover picture, a second video, ...

    `codec`: ffprobe's name, None when ffmpeg does not know it. `is_decodable`: whether ffmpeg may decode it;
    copying works either way. `is_attached_picture`: a picture (cover art, thumbnail) stored as a video stream.
    """

    index: int
    kind: StreamKind
    codec: str | None
    is_default: bool
    is_attached_picture: bool
    is_decodable: bool


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """A file with a video. `format_name` is ffmpeg's; `start_seconds` is the earliest timestamp of all streams.

    `shifts`: if the file's timestamps start again, what makes them go on; empty otherwise. In `video` they do.
    `spacings`: how packets follow each other that have no timestamps of their own, where ffmpeg has them wrong.
    `listing`: of a small file, from which the rest can be told without reading it again.
    """

    format_name: str
    start_seconds: Fraction
    video: VideoStream
    others: tuple[OtherStream, ...]
    stream_count: int
    shifts: PacketShifts = field(default_factory=dict)
    spacings: PacketSpacings = field(default_factory=dict)
    listing: "FileListing | None" = field(default=None, compare=False, repr=False)

    @property
    def video_begins_at(self) -> Fraction:
        """When the first frame is shown, in seconds after the input's start (see `input_start`)."""
        video_start = self.video.start_pts * self.video.time_base
        return video_start - input_start(self.format_name, self.start_seconds, video_start)


def input_start(format_name: str, file_start: Fraction, video_start: Fraction) -> Fraction:
    """The timestamp of the input, in seconds, that becomes 0 in the output.

    `file_start`: the earliest timestamp of all streams, to the microsecond; `video_start`: the video's first, exactly.
    """
    if file_start < 0 and "matroska" in format_name.split(","):
        # Matroska's own timestamps are not negative. What ffmpeg puts before 0 is the preroll of an audio decoder,
        # which is not played.
        file_start = Fraction(0)
    return video_start if video_start - file_start < MICROSECOND else file_start
