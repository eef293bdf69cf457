"""Interlaced video: each frame is two pictures, taken one after the other, in every other line.

A frame becomes the picture of its first field, at its own time: as many frames as before. The filters look at the frame
before and the one after, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from app.platform.errors import ConfigurationError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import MediaInfo

DeinterlacingFilter: TypeAlias = Literal["bwdif", "yadif"]
Parity: TypeAlias = Literal["auto", "tff", "bff"]

# The better first.
FILTERS: tuple[DeinterlacingFilter, ...] = ("bwdif", "yadif")
FILTER_LIST_LIMIT_BYTES = 1024 * 1024
# The filters refuse planes of fewer than three or four lines, by version; well above that for those of chroma.
MIN_SIDE = 16
# Frames before the wanted one from which decoding starts: the filters treat the very first they get differently.
FRAMES_BEFORE = 2

INTERLACED_ORDERS = ("tt", "bb", "tb", "bt")
# By the field shown first. ffmpeg's header has the mixed ones the other way round; QuickTime's and Matroska's
# definitions, and ffmpeg's own muxers, have them so.
TOP_FIRST_ORDERS = ("tt", "tb")
# Nothing in these streams themselves says that they are interlaced: the container says it of all frames.
TOLD_BY_CONTAINER = ("rawvideo", "v210", "huffyuv", "ffvhuff", "png", "qtrle")
# These mark each frame for itself, whatever the container says of all.
MARKING_CODECS = ("h264", "mpeg2video", "vc1", "dvvideo")
# Broadcasts and discs change from one kind to the other within a stream.
CHANGING_CODECS = ("mpeg2video", "vc1")
CHANGING_FORMATS = ("mpegts", "mpeg")
# Interlaced HEVC is a sequence of fields, which ffmpeg delivers one by one, as frames of half the height.
SINGLE_FIELDS_CODEC = "hevc"

DEINTERLACED_WARNING = "The video is interlaced; it was deinterlaced, one frame for each of its own."
FIELDS_KEPT_WARNING = (
    "The video is interlaced in a way that cannot be undone here; its pictures were upscaled as they are."
)


@dataclass(frozen=True, kw_only=True)
class Deinterlacing:
    """`parity`: the field shown first; `auto` as each frame says. `marked_only`: frames not marked as interlaced pass
    untouched. `rotation`: degrees clockwise to turn by afterwards; ffmpeg itself would turn fields into columns first.
    """

    filter: DeinterlacingFilter
    parity: Parity
    marked_only: bool
    rotation: int

    def filters(self, time_base: Fraction) -> list[str]:
        """From the decoder's frames to whole ones, timestamps unchanged."""
        turns = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}
        which = "interlaced" if self.marked_only else "all"
        return [
            f"{self.filter}=mode=send_frame:parity={self.parity}:deint={which}",
            # The filters count in half ticks.
            f"settb={time_base.numerator}/{time_base.denominator}",
            *turns.get(self.rotation, []),
        ]


def plan_deinterlacing(
    runner: FfmpegRunner, info: MediaInfo, *, has_interlaced: bool
) -> tuple[Deinterlacing | None, Sequence[str]]:
    """How to deinterlace the video, None where that is not called for; and warnings.

    `has_interlaced`: whether the first frames are marked so. Raises ConfigurationError when this ffmpeg has no filter
    for it.
    """
    video = info.video
    is_ordered = video.field_order in INTERLACED_ORDERS
    is_interlaced = has_interlaced or is_ordered
    if video.codec == SINGLE_FIELDS_CODEC or min(video.width, video.height) < MIN_SIDE:
        return None, [FIELDS_KEPT_WARNING] if is_interlaced else []
    if not is_interlaced and not _may_change(info):
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
        marked_only=not by_container,
        rotation=video.rotation,
    )
    return deinterlacing, [DEINTERLACED_WARNING] if is_interlaced else []


def _may_change(info: MediaInfo) -> bool:
    """Whether interlaced frames may follow, although the first ones are not."""
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
