"""Deinterlacing: each frame of an interlaced video is two fields, taken one after the other, in alternate lines.

Each frame becomes the picture of its first field, at the frame's time, or the pictures of both, of which the second is
shown halfway to the next frame. The filters also read the frames before and after it.

The fields of a telecined film are put together again: each frame becomes the film's frame of which it has the first
field or, where its fields fit none beside them, the picture of that field. `film.py` chooses among these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from app.platform.errors import ConfigurationError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import MediaInfo, VideoStream
from app.platform.media.picture_options import Deinterlace
from app.platform.media.pixel_formats import read_pix_fmt
from app.platform.media.rates import film_rate

DeinterlacingFilter: TypeAlias = Literal["bwdif", "yadif"]
Parity: TypeAlias = Literal["auto", "tff", "bff"]

# The better first.
FILTERS: tuple[DeinterlacingFilter, ...] = ("bwdif", "yadif")
# The filters refuse planes of fewer than three or four lines, depending on version; chroma planes are smaller.
MIN_SIDE = 16
# Frames decoded before the wanted one: the filters treat the first frame that they get differently. Two filters that
# follow each other make a film's frames.
FRAMES_BEFORE = 2
FRAMES_BEFORE_FILM = 4
# Puts a film's fields together. ffmpeg converts pictures of other kinds than 8 bits of luma and chroma before it.
MATCHING_FILTER = "fieldmatch"
# By luma: of planes with an odd number of rows, as chroma may be, the filter reads one row more than there is.
MATCHING_OPTIONS = "combmatch=full:mchroma=0"
MATCHED_BITS = 8
UNMATCHED_LAYOUTS = ("gray", "gbr")
# For single frames among whole ones: bwdif treats the first that it changes differently, however far from the start.
COMBED_FILTER: DeinterlacingFilter = "yadif"

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
REDUCED_BITS_WARNING = "The film's frames were put together from samples that were reduced to 8 bits."
FIELDS_KEPT_WARNING = (
    "The video is interlaced in a way that this server cannot undo; its pictures were upscaled as they are."
)


@dataclass(frozen=True, kw_only=True)
class Deinterlacing:
    """How a video is deinterlaced.

    `parity`: the field shown first; `auto`: as each frame signals. `marked_only`: frames not marked as interlaced are
    left unchanged. `by_field`: each frame becomes two. `film_rate`: frames a second of the film whose fields are put
    together; None: they are not. `rotation`, `is_mirrored`: how the pictures are turned afterwards (see VideoStream);
    ffmpeg would turn them before it deinterlaces.
    """

    filter: DeinterlacingFilter
    parity: Parity
    marked_only: bool
    rotation: int
    is_mirrored: bool = False
    by_field: bool = False
    film_rate: Fraction | None = None

    @property
    def pictures_per_frame(self) -> int:
        return 2 if self.by_field else 1

    @property
    def pictures_before(self) -> int:
        """How many pictures must be decoded before the wanted one."""
        frames = FRAMES_BEFORE if self.film_rate is None else FRAMES_BEFORE_FILM
        return frames * self.pictures_per_frame

    @property
    def turns(self) -> list[str]:
        """The filters that turn the pictures."""
        rotations = {90: ["transpose=clock"], 180: ["hflip", "vflip"], 270: ["transpose=cclock"]}
        return [*(["hflip"] if self.is_mirrored else []), *rotations.get(self.rotation, [])]

    def filters(self, time_base: Fraction) -> list[str]:
        """The filters from decoded frames to progressive ones, in the same time base, which holds the times of both."""
        # Matching marks those frames as interlaced whose fields fit none beside them.
        is_matched = self.film_rate is not None
        matching = [f"{MATCHING_FILTER}=order={self.parity}:{MATCHING_OPTIONS}"] if is_matched else []
        which = "interlaced" if self.marked_only or is_matched else "all"
        mode = "send_field" if self.by_field else "send_frame"
        return [
            *matching,
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
    for_film = asked is Deinterlace.DETELECINE
    layout, bit_depth, has_alpha, _ = read_pix_fmt(video.pix_fmt)
    if (
        min(video.width, video.height) < MIN_SIDE
        # A film's fields may be in whole frames that hold combs.
        or (video.codec == SINGLE_FIELDS_CODEC and (is_interlaced or not for_film))
        or (for_film and (has_alpha or layout in UNMATCHED_LAYOUTS or _stored_rows(video) % 2))
    ):
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
        filter=_find_filter(runner, for_film=for_film),
        parity=first if by_container else "auto",
        marked_only=not by_container and not is_forced,
        rotation=video.rotation,
        is_mirrored=video.is_mirrored,
        by_field=asked is Deinterlace.FIELD,
        film_rate=film_rate(video.frame_rate) if for_film else None,
    )
    if for_film:
        return deinterlacing, [REDUCED_BITS_WARNING] if bit_depth > MATCHED_BITS else []
    return deinterlacing, [DEINTERLACED_WARNING] if is_interlaced and not is_forced else []


def _stored_rows(video: VideoStream) -> int:
    """Before ffmpeg turns the pictures."""
    return video.width if video.rotation in (90, 270) else video.height


def _may_change(info: MediaInfo) -> bool:
    """Whether interlaced frames may follow although the first ones are progressive."""
    changes = any(name in CHANGING_FORMATS for name in info.format_name.split(","))
    return info.video.codec in CHANGING_CODECS or (changes and info.video.codec == "h264")


def _find_filter(runner: FfmpegRunner, *, for_film: bool) -> DeinterlacingFilter:
    names = runner.components("filters")
    if for_film and not names.issuperset((MATCHING_FILTER, COMBED_FILTER)):
        raise ConfigurationError(
            "This ffmpeg lacks filters that put the frames of a telecined film together "
            f"({MATCHING_FILTER} and {COMBED_FILTER}). "
            "Install an ffmpeg that has them (Debian's and Ubuntu's do), or set REGEN_FFMPEG to one."
        )
    for name in (COMBED_FILTER,) if for_film else FILTERS:
        if name in names:
            return name
    raise ConfigurationError(
        "This ffmpeg has no filter that deinterlaces (bwdif or yadif), which this video needs. "
        "Install an ffmpeg that has one (Debian's and Ubuntu's do), or set REGEN_FFMPEG to one."
    )
