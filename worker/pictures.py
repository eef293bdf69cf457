"""Makes pictures of raw frames: crops them, converts them to RGB, and writes PNG or JPEG."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from app.platform.errors import PermanentError
from app.platform.media.components import TONE_MAPPING_FILTERS
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.rectangles import Area
from worker.inference.colour import planes_to_rgb
from worker.inference.frames import FrameFormat
from worker.video.colour import HDR_TRANSFERS, OutputTags

Frame = NDArray[np.uint8]
Picture = NDArray[np.uint8] | NDArray[np.uint16]
PictureKind = Literal["png", "jpg"]

CONTENT_TYPES: dict[PictureKind, str] = {"png": "image/png", "jpg": "image/jpeg"}
JPEG_QUALITY = 2  # ffmpeg's qscale: the best
# Rows that are converted at a time: a whole frame in float32 can take gigabytes.
STRIP_ROWS = 256
# Pixels around a crop whose chroma samples its colours depend on.
CHROMA_MARGIN = 2
# HDR reference white in cd/m2 (ITU-R BT.2408), and the peak of highlights relative to it.
REFERENCE_WHITE = 203
HIGHLIGHTS = 5

TONE_MAPPED_WARNING = "The video is HDR; the images were tone-mapped to SDR."
NO_TONE_MAPPING = (
    "The video is HDR, and this server's ffmpeg lacks the filters for a picture of it: zscale, tonemap."
)


def expanded(area: Area, *, margin: int, frame: FrameFormat) -> Area:
    """The area with `margin` pixels on each side, clipped to the frame and aligned to chroma samples."""
    left, top = max(0, area.x - margin) // 2 * 2, max(0, area.y - margin) // 2 * 2
    right = min(frame.width, (area.x + area.width + margin + 1) // 2 * 2)
    bottom = min(frame.height, (area.y + area.height + margin + 1) // 2 * 2)
    return Area(x=left, y=top, width=right - left, height=bottom - top)


def cropped(frame: Frame, frame_format: FrameFormat, area: Area) -> tuple[Frame, FrameFormat]:
    """The area of a frame, which must start at even pixels, as a frame of its own."""
    part_format = replace(frame_format, width=area.width, height=area.height)
    planes = []
    for plane, (rows, columns), (part_rows, part_columns) in zip(
        frame_format.split(frame), frame_format.plane_shapes, part_format.plane_shapes, strict=True
    ):
        top = area.y if rows == frame_format.height else area.y // 2
        left = area.x if columns == frame_format.width else area.x // 2
        planes.append(plane[top : top + part_rows, left : left + part_columns])
    return part_format.join(planes), part_format


def to_rgb(frame: Frame, frame_format: FrameFormat, area: Area, *, bits: Literal[8, 16] = 8) -> Picture:
    """The area in full-range R'G'B', shape (rows, columns, 3), 8 or 16 bits."""
    top_code, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    picture = np.empty((area.height, area.width, 3), dtype)
    for start in range(0, area.height, STRIP_ROWS):
        rows = min(STRIP_ROWS, area.height - start)
        strip = replace(area, y=area.y + start, height=rows)
        around = expanded(strip, margin=CHROMA_MARGIN, frame=frame_format)
        part, part_format = cropped(frame, frame_format, around)
        inner = strip.within(around)
        with torch.inference_mode():
            rgb = planes_to_rgb(torch.from_numpy(part)[None], part_format)[0]
            rgb = rgb[:, inner.y : inner.y + rows, inner.x : inner.x + area.width]
            codes = (rgb * top_code).round_().to(torch.int32).permute(1, 2, 0)
        picture[start : start + rows] = codes.numpy()
    return picture


def is_hdr(tags: OutputTags) -> bool:
    return tags.transfer in HDR_TRANSFERS


def require_tone_mapping(runner: FfmpegRunner) -> None:
    """Raises PermanentError if this ffmpeg cannot tone-map HDR to SDR."""
    if not runner.components("filters").issuperset(TONE_MAPPING_FILTERS):
        raise PermanentError(NO_TONE_MAPPING)


def write_picture(
    runner: FfmpegRunner,
    picture: Picture,
    destination: Path,
    *,
    kind: PictureKind,
    tags: OutputTags,
    sample_aspect_ratio: Fraction,
) -> None:
    """Write an R'G'B' picture of a video with these tags. HDR, which needs 16 bits, is tone-mapped to SDR.

    SDR is written without conversion to a display's colours, as video players show it. Raises FfmpegError.
    """
    rows, columns, _channels = picture.shape
    filters = []
    if is_hdr(tags):
        filters += _tone_mapping(tags)
    filters.append(f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}:max=65535")
    options: dict[str, object] = {"vcodec": "png", "pix_fmt": "rgb24"}
    if kind == "jpg":
        # JPEG defines full-range BT.601.
        filters.append(
            "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=bt601:out_range=pc"
        )
        filters.append("format=yuvj444p")
        options = {"vcodec": "mjpeg", "color_range": "pc", "q:v": JPEG_QUALITY}
    else:
        filters.append("format=rgb24")
    pix_fmt = "rgb24" if picture.dtype == np.uint8 else "rgb48le"
    source = runner.raw_input(width=columns, height=rows, pix_fmt=pix_fmt, frame_rate=1)
    stream = runner.output(
        source["v:0"], destination, vf=",".join(filters), f="image2pipe", **options, **{"frames:v": 1}
    )
    with runner.start(
        stream, purpose="writing a picture", stdin=True, stdout=False, may_wait=False
    ) as process:
        process.write_all(np.ascontiguousarray(picture).data)
        process.close_stdin()
        process.wait()


def _tone_mapping(tags: OutputTags) -> list[str]:
    return [
        "format=gbrp16le",
        f"setparams=range=pc:color_primaries={tags.primaries:d}:color_trc={tags.transfer:d}:colorspace=gbr",
        f"zscale=t=linear:npl={REFERENCE_WHITE}",
        "format=gbrpf32le",
        "zscale=p=bt709",
        f"tonemap=mobius:desat=0:peak={HIGHLIGHTS}",
        "zscale=t=iec61966-2-1:m=gbr:r=pc",
        "format=gbrp",
    ]
