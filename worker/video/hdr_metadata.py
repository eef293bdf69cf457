"""Interlacing, HDR metadata and other side data of the source, and what the output keeps of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.platform.errors import PermanentError
from app.platform.media.codecs import CODECS
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.first_frames import (
    ContentLight,
    FirstFrames,
    MasteringDisplay,
    Spatial,
    carried_kinds,
    probe_first_frames,
)
from app.platform.media.info import MediaInfo
from app.platform.media.picture_options import Deinterlace
from worker.video.deinterlace import INTERLACED_ORDERS, Deinterlacing, plan_deinterlacing
from worker.video.mp4_boxes import read_video_description_kinds
from worker.video.side_data import CLOSED_CAPTIONS, KINDS_OF_BOXES, lost_side_data

MASTERING_WARNING = "HDR mastering metadata was left out: only HEVC and AV1 output can hold it."
DOLBY_VISION_ONLY = (
    "The video's colours are stored in Dolby Vision's own way, which this server cannot read. "
    "Export the video as HDR10, HLG or SDR and try again."
)


@dataclass(frozen=True, kw_only=True)
class SourceMetadata:
    """What the plan takes from the source's metadata; see the fields of the same names in RenderPlan.

    `is_interlaced`: one of the first frames, the container or the user says so; else `deinterlacing` is in case others
    are.
    `first_pts`, `has_alpha_layer`: see FirstFrames.
    """

    deinterlacing: Deinterlacing | None
    is_interlaced: bool
    mastering_display: MasteringDisplay | None
    content_light: ContentLight | None
    spatial: Spatial | None
    warnings: Sequence[str]
    has_captions: bool = False
    first_pts: int = 0
    has_alpha_layer: bool = False


def read_source_metadata(
    runner: FfmpegRunner,
    path: Path,
    info: MediaInfo,
    *,
    codec: VideoCodec,
    deinterlace: Deinterlace = Deinterlace.AUTO,
) -> SourceMetadata:
    """Probe the first frames and decide what the output keeps.

    Raises PermanentError for colours that cannot be decoded without Dolby Vision, ConfigurationError if ffmpeg lacks a
    filter that is needed, and what `probe_first_frames` raises.
    """
    first = probe_first_frames(runner, path, stream_index=info.video.index)
    if first.is_dolby_vision_only:
        raise PermanentError(DOLBY_VISION_ONLY)
    deinterlacing, warnings = plan_deinterlacing(
        runner, info, has_interlaced=first.has_interlaced, asked=deinterlace
    )
    can_carry = CODECS[codec].holds_hdr10
    return SourceMetadata(
        deinterlacing=deinterlacing,
        is_interlaced=deinterlace not in (Deinterlace.AUTO, Deinterlace.OFF)
        or first.has_interlaced
        or info.video.field_order in INTERLACED_ORDERS,
        mastering_display=first.mastering_display if can_carry else None,
        content_light=first.content_light if can_carry else None,
        spatial=first.spatial,
        warnings=(*warnings, *_left_out(path, first, can_carry=can_carry)),
        first_pts=first.first_pts,
        has_alpha_layer=first.has_alpha_layer,
        has_captions=any(CLOSED_CAPTIONS in kind.lower() for kind in first.side_data),
    )


def _left_out(path: Path, first: FirstFrames, *, can_carry: bool) -> list[str]:
    loses_mastering = not can_carry and (first.mastering_display or first.content_light) is not None
    described = {
        KINDS_OF_BOXES[kind] for kind in read_video_description_kinds(path) if kind in KINDS_OF_BOXES
    }
    lost = first.side_data | described - carried_kinds(first.spatial)
    return [*([MASTERING_WARNING] if loses_mastering else []), *lost_side_data(lost)]
