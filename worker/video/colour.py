"""Decides on colours: what the source's samples mean, and how the output is tagged. No pixel is converted here.

Primaries, transfers and matrices are code points of ITU-T H.273. A missing tag is guessed as players do; the output is
always tagged, because at four times the size a player would guess differently.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import PlainSerializer

from app.platform.media.codecs import CODECS
from app.platform.media.containers import VideoCodec
from app.platform.media.h273 import (
    ColourPrimaries,
    MatrixCoefficients,
    TransferCharacteristics,
)
from app.platform.media.output_size import OutputSize
from app.platform.media.pixel_formats import read_pix_fmt
from app.platform.media.probe import ColourTags, VideoStream
from worker.inference.frames import CHROMA_OFFSETS, ChromaLocation, FrameFormat, Layout, Matrix

# From this size on, players assume BT.709 for untagged video.
HD_WIDTH = 1280
SD_MAX_HEIGHT = 576
# Heights of 625-line systems, whose primaries are bt470bg; other standard-definition pictures are 525-line.
PAL_HEIGHTS = (288, 576)

MATRICES: dict[MatrixCoefficients, Matrix] = {
    MatrixCoefficients.BT709: "bt709",
    MatrixCoefficients.FCC: "fcc",
    MatrixCoefficients.BT470BG: "bt601",
    MatrixCoefficients.SMPTE170M: "bt601",
    MatrixCoefficients.SMPTE240M: "smpte240m",
    MatrixCoefficients.YCGCO: "ycgco",
    MatrixCoefficients.BT2020NC: "bt2020nc",
    MatrixCoefficients.SMPTE2085: "smpte2085",
    # Not linear combinations of R'G'B', or of other weights, and rarely used. Both conversions use the nearest matrix
    # and the tag stays, so that the picture keeps its colours; only the network's input is slightly shifted.
    MatrixCoefficients.BT2020C: "bt2020nc",
    MatrixCoefficients.ICTCP: "bt2020nc",
    MatrixCoefficients.CHROMA_DERIVED_NC: "bt709",
    MatrixCoefficients.CHROMA_DERIVED_C: "bt709",
}
# Matrices of BT.2020's primaries, and those that are named like the primaries that go with them.
WIDE_MATRICES = (MatrixCoefficients.BT2020NC, MatrixCoefficients.BT2020C, MatrixCoefficients.ICTCP)
PAIRED_MATRICES = (
    MatrixCoefficients.BT709,
    MatrixCoefficients.FCC,
    MatrixCoefficients.BT470BG,
    MatrixCoefficients.SMPTE170M,
    MatrixCoefficients.SMPTE240M,
)
HDR_TRANSFERS = (TransferCharacteristics.SMPTE2084, TransferCharacteristics.ARIB_STD_B67)
UNKNOWN_COLOURS_WARNING = (
    "The video's colour tags have values that this server does not know; its colours were read as if it lacked these "
    "tags."
)
# Codecs whose standards define limited range for untagged video, gray included. In others untagged gray is of full
# range, like RGB, and as ffmpeg itself shows it.
LIMITED_GRAY_CODECS = ("h264", "hevc", "av1")
BLACK_AND_WHITE = ("monow", "monob")
# The brightest red, green and blue that ffmpeg makes of packed RGB of few bits, whose bits it shifts up.
_BRIGHTEST: dict[str, tuple[int, int, int]] = {
    **{f"{name}555{order}": (248, 248, 248) for name in ("rgb", "bgr") for order in ("le", "be")},
    **{f"{name}565{order}": (248, 252, 248) for name in ("rgb", "bgr") for order in ("le", "be")},
    **{f"{name}444{order}": (240, 240, 240) for name in ("rgb", "bgr") for order in ("le", "be")},
    **dict.fromkeys(("rgb8", "bgr8"), (252, 252, 255)),
}
# Codecs whose chroma is sited in the centre of four luma samples unless tagged otherwise.
CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video")

# Plans hold names, as those of earlier versions do.
_AS_NAME = PlainSerializer(lambda code: code.label, return_type=str)
# Gray with alpha becomes RGB with alpha unchanged. Of packed RGB of 8 bits ffmpeg's own conversion changes alpha.
_ONLY_PACKED_ALPHA = ("rgba", "bgra", "argb", "abgr", "pal8")
UNPACKED = "extractplanes=r+g+b+a[r][g][b][a];[g][b][r][a]mergeplanes=0x00102030:gbrap"
# By codec, of frames with alpha: chroma of half the size mixes visible colours with those beside them.
ALPHA_LAYOUTS: dict[VideoCodec, Layout] = {"prores": "yuv444", "ffv1": "yuv444", "vp9": "yuv420"}
FEWER_ALPHA_BITS = "VP9 holds transparency with 8 bits a sample alone; the output has no more."


@dataclass(frozen=True, kw_only=True)
class OutputTags:
    """The colour tags of the output, written to stream and container, none of them unspecified.

    `chroma_location` goes into the stream if its encoder supports that; it is None in plans of earlier versions, whose
    segments must be encoded alike.
    """

    primaries: Annotated[ColourPrimaries, _AS_NAME]
    transfer: Annotated[TransferCharacteristics, _AS_NAME]
    matrix: Annotated[MatrixCoefficients, _AS_NAME]
    range: str
    chroma_location: ChromaLocation | None = None

    @property
    def options(self) -> dict[str, str | int]:
        """ffmpeg's options for an encoded or copied stream with these tags."""
        return {
            "color_range": self.range,
            "color_primaries": int(self.primaries),
            "color_trc": int(self.transfer),
            "colorspace": int(self.matrix),
        }


@dataclass(frozen=True, kw_only=True)
class ColourPlan:
    """Formats of decoded and of encoded frames, and the output's tags.

    `decoded_pix_fmts` are the pixel formats that the decoding filter chain may output, the best first; all have the
    memory layout of `source` unless `expansion` gives it to them: a filter that brings samples of few bits to all of
    the range, or takes packed ones apart; None if there is none.
    """

    source: FrameFormat
    target: FrameFormat
    decoded_pix_fmts: tuple[str, ...]
    expansion: str | None
    tags: OutputTags
    warnings: tuple[str, ...] = ()


def plan_colour(
    video: VideoStream,
    *,
    scale: int,
    size: OutputSize | None = None,
    codec: VideoCodec | None = None,
    keeps_alpha: bool = False,
) -> ColourPlan:
    """The colours of `video` upscaled by `scale`, or to another `size`, for `codec` if one was chosen.

    The output is 4:2:0 with the input's range and matrix: 8 bits for 8 bits, 10 for more. RGB becomes limited-range
    BT.709. ProRes has 10 bits of limited range. `keeps_alpha`: for a pixel format and a codec that have it.
    Raises PermanentError for unsupported pixel formats.
    """
    layout, bit_depth, _alpha, jpeg = read_pix_fmt(video.pix_fmt)
    if keeps_alpha and layout == "gray":
        layout = "gbr"
    is_rgb = layout == "gbr"
    is_untagged_gray = layout == "gray" and video.colour.range is None
    full_range_format = (
        jpeg
        or video.pix_fmt in BLACK_AND_WHITE
        or (is_untagged_gray and video.codec not in LIMITED_GRAY_CODECS)
    )
    tags = fill_tags(
        video.colour,
        width=video.width,
        height=video.height,
        is_rgb=is_rgb,
        full_range_format=full_range_format,
    )
    source = FrameFormat(
        width=video.width,
        height=video.height,
        layout=layout,
        bit_depth=bit_depth,
        matrix=_sample_matrix(tags),
        full_range=is_rgb or tags.range == "pc",
        chroma_location=_chroma_location(video),
        has_alpha=keeps_alpha,
    )
    warnings = [UNKNOWN_COLOURS_WARNING] if video.colour.has_unknown else []
    if codec == "prores":
        tags = replace(tags, range="tv")
    width, height = (
        size.of(video.width, video.height) if size else (scale * video.width, scale * video.height)
    )
    target_depth = 8 if bit_depth == 8 and codec != "prores" else 10
    target_layout: Layout = "yuv420"
    if keeps_alpha and codec is not None:
        target_layout = ALPHA_LAYOUTS[codec]
        if target_depth > CODECS[codec].alpha_bits:
            target_depth = 8
            warnings.append(FEWER_ALPHA_BITS)
    is_packed = keeps_alpha and video.pix_fmt in _ONLY_PACKED_ALPHA
    target = replace(
        source,
        width=width,
        height=height,
        layout=target_layout,
        bit_depth=target_depth,
        full_range=tags.range == "pc",
        chroma_location="left",
    )
    return ColourPlan(
        source=source,
        target=target,
        decoded_pix_fmts=("rgba",) if is_packed else _decoded_pix_fmts(source),
        expansion=UNPACKED if is_packed else _expansion(video.pix_fmt),
        tags=replace(tags, chroma_location=target.chroma_location),
        warnings=tuple(warnings),
    )


def _sample_matrix(tags: OutputTags) -> Matrix:
    derives = tags.matrix in (MatrixCoefficients.CHROMA_DERIVED_NC, MatrixCoefficients.CHROMA_DERIVED_C)
    if derives and tags.primaries == ColourPrimaries.BT2020:
        return "bt2020nc"
    return MATRICES[tags.matrix]


def fill_tags(
    colour: ColourTags, *, width: int, height: int, is_rgb: bool, full_range_format: bool
) -> OutputTags:
    """The output's tags: the input's, with missing ones guessed.

    A given tag decides the others (BT.2020 primaries imply its matrix, PQ and HLG imply BT.2020); without any, sizes
    from 1280 wide or over 576 high are BT.709, smaller ones BT.601 (SMPTE 170M, with the primaries of 625-line systems
    at their heights). The range is limited unless tag or format is full. RGB becomes limited-range BT.709.
    """
    primaries, transfer, matrix = colour.primaries, colour.transfer, colour.matrix
    if is_rgb:
        return OutputTags(
            primaries=primaries or ColourPrimaries.BT709,
            transfer=transfer or TransferCharacteristics.BT709,
            matrix=MatrixCoefficients.BT709,
            range="tv",
        )
    if matrix is None or matrix == MatrixCoefficients.GBR:
        # Some recorders tag Y'CbCr as RGB.
        matrix = _guess_matrix(primaries, transfer, is_hd=width >= HD_WIDTH or height > SD_MAX_HEIGHT)
    full_range = full_range_format or colour.range == "pc"
    return OutputTags(
        primaries=primaries or _guess_primaries(matrix, height),
        transfer=transfer or _guess_transfer(matrix),
        matrix=matrix,
        range="pc" if full_range else "tv",
    )


def _guess_matrix(
    primaries: ColourPrimaries | None, transfer: TransferCharacteristics | None, *, is_hd: bool
) -> MatrixCoefficients:
    if primaries == ColourPrimaries.BT2020 or transfer in HDR_TRANSFERS:
        return MatrixCoefficients.BT2020NC
    named_alike = [
        matrix for matrix in PAIRED_MATRICES if primaries is not None and matrix.label == primaries.label
    ]
    if named_alike:
        return named_alike[0]
    return MatrixCoefficients.BT709 if is_hd else MatrixCoefficients.SMPTE170M


def _guess_primaries(matrix: MatrixCoefficients, height: int) -> ColourPrimaries:
    if matrix in WIDE_MATRICES:
        return ColourPrimaries.BT2020
    if matrix == MatrixCoefficients.SMPTE170M and height in PAL_HEIGHTS:
        return ColourPrimaries.BT470BG
    return ColourPrimaries(matrix) if matrix in PAIRED_MATRICES else ColourPrimaries.BT709


def _guess_transfer(matrix: MatrixCoefficients) -> TransferCharacteristics:
    if matrix == MatrixCoefficients.ICTCP:
        return TransferCharacteristics.SMPTE2084
    if matrix in WIDE_MATRICES:
        return TransferCharacteristics.BT2020_10
    if matrix in (MatrixCoefficients.SMPTE170M, MatrixCoefficients.BT470BG, MatrixCoefficients.FCC):
        return TransferCharacteristics.SMPTE170M
    if matrix == MatrixCoefficients.SMPTE240M:
        return TransferCharacteristics.SMPTE240M
    return TransferCharacteristics.BT709


def _chroma_location(video: VideoStream) -> ChromaLocation:
    tagged = video.colour.chroma_location
    location: ChromaLocation = "center" if video.codec in CENTRED_CHROMA_CODECS else "left"
    for name in CHROMA_OFFSETS:
        if name == tagged:
            location = name
    return turned(location, degrees=video.rotation, is_mirrored=video.is_mirrored)


def turned(location: ChromaLocation, *, degrees: int, is_mirrored: bool) -> ChromaLocation:
    """The siting of chroma after left and right are swapped, if they are, and then a clockwise rotation. For sides of
    odd length it is off by a sample.
    """
    right, down = CHROMA_OFFSETS[location]
    if is_mirrored:
        right = 1 - right
    for _quarter in range(degrees // 90):
        right, down = 1 - down, right
    return next(name for name, offset in CHROMA_OFFSETS.items() if offset == (right, down))


def _expansion(pix_fmt: str) -> str | None:
    brightest = _BRIGHTEST.get(pix_fmt)
    if brightest is None:
        return None
    # The filter cuts fractions off.
    scaled = (f"{channel}=val*255/{most}+0.5" for channel, most in zip("rgb", brightest, strict=True))
    return "lutrgb=" + ":".join(scaled)


def _decoded_pix_fmts(source: FrameFormat) -> tuple[str, ...]:
    # A yuvj format is the full-range counterpart of a yuv one; requesting the other one makes ffmpeg convert the range.
    # Which of them a decoder outputs depends on codec and version, so both are allowed and none is converted.
    has_both_names = source.bit_depth == 8 and source.layout.startswith("yuv") and not source.has_alpha
    if source.full_range and has_both_names:
        return (source.pix_fmt.replace("yuv", "yuvj"), source.pix_fmt)
    return (source.pix_fmt,)
