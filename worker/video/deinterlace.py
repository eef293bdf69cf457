"""Deinterlacing: each frame of an interlaced video is two fields, taken one after the other, in alternate lines.

Each frame becomes the picture of its first field, at the frame's time, or the pictures of both, of which the second is
shown halfway to the next frame. The filters also read the frames before and after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from app.platform.errors import ConfigurationError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import MediaInfo
from app.platform.media.picture_options import Deinterlace

DeinterlacingFilter: TypeAlias = Literal["bwdif", "yadif"]
Parity: TypeAlias = Literal["auto", "tff", "bff"]

# The better first.
FILTERS: tuple[DeinterlacingFilter, ...] = ("bwdif", "yadif")
FILTER_LIST_LIMIT_BYTES = 1024 * 1024
# The filters refuse planes of fewer than three or four lines, depending on version; chroma planes are smaller.
MIN_SIDE = 16
# Frames decoded before the wanted one: the filters treat the first frame that they get differently.
FRAMES_BEFORE = 2

INTERLACED_ORDERS = ("tt", "bb", "tb", "bt")
# Orders that show the top field first. ffmpeg's header documents the mixed ones the other way round; QuickTime,
# Matroska and ffmpeg's own muxers define them so.
TOP_FIRST_ORDERS = ("tt", "tb")
# Codecs whose streams do not signal interlacing: the container does, for all frames.
TOLD_BY_CONTAINER = ("rawvideo", "v210", "huffyuv", "ffvhuff", "png", "qtrle")
# Codecs that signal it for each frame, whatever the container says.
MARKING_CODECS = ("h264", "mpeg2video", "vc1", "dvvideo")
# Codecs and formats of broadcasts and discs, in which interlacing may change within a stream.
CHANGING_CODECS = ("mpeg2video", "vc1")
CHANGING_FORMATS = ("mpegts", "mpeg")
# Interlaced HEVC is a sequence of fields, which ffmpeg delivers as frames of half the height.
SINGLE_FIELDS_CODEC = "hevc"

DEINTERLACED_WARNING = "The video is interlaced; it was deinterlaced, one output frame for each input frame."
FIELDS_KEPT_WARNING = (
    "The video is interlaced in a way that this server cannot undo; its pictures were upscaled as they are."
)


@dataclass(frozen=True, kw_only=True)
class Deinterlacing:
    """How a video is deinterlaced.

    `parity`: the field shown first; `auto`: as each frame signals. `marked_only`: frames not marked as interlaced are
    left unchanged. `by_field`: each frame becomes two. `rotation`, `is_mirrored`: how the pictures are turned
    afterwards (see VideoStream); ffmpeg would turn them before it deinterlaces.
    """

    filter: DeinterlacingFilter
    parity: Parity
    marked_only: bool
    rotation: int
    is_mirrored: bool = False
    by_field: bool = False

    @property
    def pictures_per_frame(self) -> int:
        return 2 if self.by_field else 1

    @property
    def turns(self) -> list[str]:
        """The filters that turn the pictures."""
        rotations = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}
        return [*(["hflip"] if self.is_mirrored else []), *rotations.get(self.rotation, [])]

    def filters(self, time_base: Fraction) -> list[str]:
        """The filters from decoded frames to progressive ones, in the same time base, which holds the times of both."""
        which = "interlaced" if self.marked_only else "all"
        mode = "send_field" if self.by_field else "send_frame"
        return [
            f"{self.filter}=mode={mode}:parity={self.parity}:deint={which}",
            # The filters count in half ticks.
            f"settb={time_base.numerator}/{time_base.denominator}",
            *self.turns,
        ]


def as_fields(info: MediaInfo) -> MediaInfo:
    """The file with each field of its video as a frame, in ticks of half the length."""
    video = info.video.as_fields()
    return replace(info, video=replace(video, time_base=video.time_base / 2, start_pts=2 * video.start_pts))


def plan_deinterlacing(
    runner: FfmpegRunner, info: MediaInfo, *, has_interlaced: bool, asked: Deinterlace = Deinterlace.AUTO
) -> tuple[Deinterlacing | None, Sequence[str]]:
    """How to deinterlace the video, None if it need not be or should not; and warnings.

    `has_interlaced`: whether one of the first frames is marked as interlaced. Raises ConfigurationError if this ffmpeg
    has no deinterlacing filter.
    """
    if asked is Deinterlace.OFF:
        return None, []
    video = info.video
    is_ordered = video.field_order in INTERLACED_ORDERS
    is_interlaced = has_interlaced or is_ordered
    is_forced = asked is not Deinterlace.AUTO
    if video.codec == SINGLE_FIELDS_CODEC or min(video.width, video.height) < MIN_SIDE:
        return None, [FIELDS_KEPT_WARNING] if is_interlaced or is_forced else []
    if not is_forced and not is_interlaced and not _may_change(info):
        return None, []
    by_container = (
        is_ordered
        and video.codec not in MARKING_CODECS
        and (video.codec in TOLD_BY_CONTAINER or not has_interlaced)
    )
    first: Parity = "tff" if video.field_order in TOP_FIRST_ORDERS else "bff"
    deinterlacing = Deinterlacing(
        filter=_find_filter(runner),
        parity=first if by_container else "auto",
        marked_only=not by_container and not is_forced,
        rotation=video.rotation,
        is_mirrored=video.is_mirrored,
        by_field=asked is Deinterlace.FIELD,
    )
    return deinterlacing, [DEINTERLACED_WARNING] if is_interlaced and not is_forced else []


def _may_change(info: MediaInfo) -> bool:
    """Whether interlaced frames may follow although the first ones are progressive."""
    changes = any(name in CHANGING_FORMATS for name in info.format_name.split(","))
    return info.video.codec in CHANGING_CODECS or (changes and info.video.codec == "h264")


def _find_filter(runner: FfmpegRunner) -> DeinterlacingFilter:
    listed = runner.run(
        ["-filters"], purpose="looking for filters", stdout_limit_bytes=FILTER_LIST_LIMIT_BYTES
    )
    names = {words[1] for line in listed.stdout.decode().splitlines() if len(words := line.split()) > 1}
    for name in FILTERS:
        if name in names:
            return name
    raise ConfigurationError(
        "This ffmpeg has no filter that deinterlaces (bwdif or yadif), which this video needs. "
        "Install an ffmpeg that has one (Debian's and Ubuntu's do), or set REGEN_FFMPEG to one."
    )
