"""Properties that only decoded frames show, from the first few: interlacing, HDR metadata, further layers."""

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import structlog

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout

from .ffmpeg import FfmpegRunner
from .ffprobe_output import integer, section_list

log = structlog.get_logger(__name__)

# Some encoders mark only keyframes, and some decoders deliver their first frame late.
EXAMINED_PACKETS = 12
# Dolby Vision profiles whose base layer may have other colours; it has if its compatibility id is 0.
DOLBY_VISION_PROFILES = (5, 10, 20)
STREAM_ENTRIES = "stream=index:stream_side_data:stream_tags=alpha_mode,stereo_mode"
SPHERICAL, STEREO = "Spherical Mapping", "Stereo 3D"
FRAME_ENTRIES = "frame=best_effort_timestamp,interlaced_frame:frame_side_data:frame_tags=stereo_mode"
# Maximum values of the metadata's fields (ITU-T H.265, D.3.28 and D.3.35): 16 bits in units of 0.00002, 32 bits of
# 0.0001 candelas per square metre, 16 bits of 1 candela per square metre.
MOST_COLOUR = Fraction(65_535, 50_000)
MOST_LUMINANCE = Fraction(2**32 - 1, 10_000)
MOST_LIGHT = 65_535


@dataclass(frozen=True, kw_only=True)
class MasteringDisplay:
    """The display on which the video was graded (SMPTE ST 2086): CIE 1931 x and y, and candelas per square metre."""

    red: tuple[Fraction, Fraction]
    green: tuple[Fraction, Fraction]
    blue: tuple[Fraction, Fraction]
    white: tuple[Fraction, Fraction]
    min_luminance: Fraction
    max_luminance: Fraction


@dataclass(frozen=True, kw_only=True)
class ContentLight:
    """The brightest pixel and the highest frame average (CTA-861.3), in candelas per square metre."""

    max_content: int
    max_frame_average: int


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """How pictures cover a sphere, and how they hold two views; None for neither. Angles in degrees.

    `padding`: of a cube's faces, in pixels.
    """

    stereo: Literal["mono", "top and bottom", "side by side"] | None = None
    projection: Literal["equirectangular", "cubemap"] | None = None
    yaw: int = 0
    pitch: int = 0
    roll: int = 0
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class FirstFrames:
    """Properties of the first frames.

    `has_interlaced`: a frame is marked as interlaced.
    `is_dolby_vision_only`: without Dolby Vision's metadata the picture has wrong colours.
    `side_data`: ffprobe's names of the kinds of side data, of the stream and of its frames, but those in `spatial`.
    `has_alpha_layer`: transparency in a separate layer, which the pixel format does not show.
    `first_pts`: the decoder's timestamp of the first, in ticks; 0 if it is unknown.
    """

    has_interlaced: bool = False
    mastering_display: MasteringDisplay | None = None
    content_light: ContentLight | None = None
    is_dolby_vision_only: bool = False
    has_alpha_layer: bool = False
    side_data: frozenset[str] = frozenset()
    spatial: Spatial | None = None
    first_pts: int = 0


def probe_first_frames(runner: FfmpegRunner, path: Path, *, stream_index: int) -> FirstFrames:
    """Decode the first frames of a video stream, and read their metadata and the container's.

    If no frame can be decoded, the container's metadata remains. Raises FfmpegMissing, FfmpegKilled and FfmpegTimeout,
    and FfmpegError when the file cannot be read at all.
    """
    chosen = ("-select_streams", str(stream_index), "-show_entries")
    try:
        few = ("-read_intervals", f"%+#{EXAMINED_PACKETS}")
        answer = runner.probe(path, *few, *chosen, f"{FRAME_ENTRIES}:{STREAM_ENTRIES}")
    except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
        raise
    except FfmpegError as error:
        log.warning("first_frames_unreadable", detail=error.detail)
        answer = runner.probe(path, *chosen, STREAM_ENTRIES)
    stream = next(iter(section_list(answer, "streams")), {})
    frames = section_list(answer, "frames")
    # The frames' metadata takes precedence over the stream's.
    side_data = [entry for section in (*frames, stream) for entry in section_list(section, "side_data_list")]
    record = _first(side_data, "DOVI configuration record") or {}
    is_dolby_vision_only = (
        integer(record, "dv_profile") in DOLBY_VISION_PROFILES
        and integer(record, "dv_bl_signal_compatibility_id") == 0
    )
    # Newer versions repeat the stream's kinds for each frame, without their values.
    spheres = (entry for entry in side_data if _kind(entry) == SPHERICAL and "projection" in entry)
    spatial = _spatial(next(spheres, {}), _stereo(frames, side_data))
    # Matroska's own name of the tag, and the one of a file that states it as a tag too.
    tags = {name.lower(): value for name, value in stream.get("tags", {}).items()}
    kinds = {_kind(entry) for entry in side_data} | ({STEREO} if "stereo_mode" in tags else set())
    return FirstFrames(
        has_interlaced=any(integer(frame, "interlaced_frame") for frame in frames),
        mastering_display=_mastering_display(_first(side_data, "Mastering display metadata")),
        content_light=_content_light(_first(side_data, "Content light level metadata")),
        is_dolby_vision_only=is_dolby_vision_only,
        has_alpha_layer=integer(tags, "alpha_mode") > 0,
        side_data=frozenset(kinds - carried_kinds(spatial)),
        spatial=spatial,
        first_pts=integer(next(iter(frames), {}), "best_effort_timestamp"),
    )


def _stereo(frames: list[dict[str, Any]], side_data: list[dict[str, Any]]) -> dict[str, Any]:
    """The type of stereo, which ffprobe tells of a stream; of a frame, a tag tells it."""
    told = [entry for entry in side_data if _kind(entry) == STEREO and "type" in entry]
    tags = [frame["tags"]["stereo_mode"] for frame in frames if "stereo_mode" in frame.get("tags", {})]
    return next(iter([*told, *({"type": mode} for mode in tags)]), {})


def _spatial(spherical: dict[str, Any], stereo: dict[str, Any]) -> Spatial | None:
    """What MP4 has tags for; None if there is nothing of it."""
    views: dict[str, Literal["mono", "top and bottom", "side by side"]] = {
        "2D": "mono",
        "top and bottom": "top and bottom",
        "top_bottom": "top and bottom",
        "side by side": "side by side",
        "left_right": "side by side",
    }
    shapes: dict[str, Literal["equirectangular", "cubemap"]] = {
        "equirectangular": "equirectangular",
        "cubemap": "cubemap",
    }
    view = None if integer(stereo, "inverted") else views.get(str(stereo.get("type")))
    shape = shapes.get(str(spherical.get("projection")))
    if view is None and shape is None:
        return None
    yaw, pitch, roll = (integer(spherical, name) for name in ("yaw", "pitch", "roll"))
    padding = integer(spherical, "padding")
    return Spatial(stereo=view, projection=shape, yaw=yaw, pitch=pitch, roll=roll, padding=padding)


def carried_kinds(spatial: Spatial | None) -> set[str]:
    """The kinds of side data that `spatial` holds."""
    if spatial is None:
        return set()
    kinds = {SPHERICAL: spatial.projection, STEREO: spatial.stereo}
    return {kind for kind, held in kinds.items() if held is not None}


def _kind(entry: dict[str, Any]) -> str:
    return str(entry.get("side_data_type", ""))


def _first(side_data: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((entry for entry in side_data if _kind(entry) == kind), None)


def _mastering_display(entry: dict[str, Any] | None) -> MasteringDisplay | None:
    """None for metadata that is missing, incomplete (as in some files) or out of range."""
    if entry is None:
        return None
    names = ("red_x", "red_y", "green_x", "green_y", "blue_x", "blue_y", "white_point_x", "white_point_y")
    values = [_ratio(entry.get(name)) for name in (*names, "min_luminance", "max_luminance")]
    known = [value for value in values if value is not None]
    if len(known) != len(values) or not 0 < known[-1] <= MOST_LUMINANCE or max(known[:8]) > MOST_COLOUR:
        return None
    red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y, least, most = known
    return MasteringDisplay(
        red=(red_x, red_y),
        green=(green_x, green_y),
        blue=(blue_x, blue_y),
        white=(white_x, white_y),
        min_luminance=least,
        max_luminance=most,
    )


def _content_light(entry: dict[str, Any] | None) -> ContentLight | None:
    if entry is None:
        return None
    most, average = integer(entry, "max_content"), integer(entry, "max_average")
    # Zeros mean unknown.
    known = (most or average) and max(most, average) <= MOST_LIGHT
    return ContentLight(max_content=most, max_frame_average=average) if known else None


def _ratio(text: object) -> Fraction | None:
    """`34000/50000`, `0/10000`; None for anything but a ratio of at least 0."""
    match = re.fullmatch(r"([0-9]{1,10})/([0-9]{1,10})", str(text))
    return Fraction(int(match[1]), int(match[2])) if match and int(match[2]) else None
