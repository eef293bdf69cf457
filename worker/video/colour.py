"""Decides on colours: what the source's samples mean, and how the output is tagged. No pixel is converted here.

Names of primaries, transfers, matrices and ranges are ffmpeg's, for the codes of ITU-T H.273. A missing tag is guessed
as players do; the output is always tagged, because at four times the size a player would guess differently.
"""

import re
from dataclasses import dataclass, replace

from app.platform.errors import PermanentError
from app.platform.media.probe import ColourTags, VideoStream
from worker.inference.frames import BIT_DEPTHS, CHROMA_OFFSETS, ChromaLocation, FrameFormat, Layout, Matrix

# From this size on, players assume BT.709 for untagged video.
HD_WIDTH = 1280
SD_MAX_HEIGHT = 576
# Heights of 625-line systems, whose primaries are bt470bg; other standard-definition pictures are 525-line.
PAL_HEIGHTS = (288, 576)

MATRICES: dict[str, Matrix] = {
    "bt709": "bt709",
    "bt470bg": "bt601",
    "smpte170m": "bt601",
    "bt2020nc": "bt2020nc",
    "smpte240m": "smpte240m",
    "fcc": "fcc",
    # Not linear combinations of R'G'B', and rarely used. Both conversions use the nearest matrix and the tag stays, so
    # that the picture keeps its colours; only the network's input is slightly shifted.
    "bt2020c": "bt2020nc",
    "ictcp": "bt2020nc",
}
RGB_MATRIX = "gbr"
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
# Codecs whose chroma is sited in the centre of four luma samples unless tagged otherwise.
CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video")
UNTAGGED = (None, "", "unknown", "unspecified", "reserved")

_PLANAR_YUV = re.compile(
    r"^yuv(?P<alpha>a)?(?P<jpeg>j)?(?P<layout>420|422|444)p(?P<depth>\d+)?(?P<order>le|be)?$"
)
_PLANAR_RGB = re.compile(r"^gbr(?P<alpha>a)?p(?P<depth>\d+)?(?P<order>le|be)?$")
_GRAY = re.compile(r"^(?:gray|y)(?P<depth>\d+)?(?P<order>le|be)?$")
# Semi-planar and packed formats whose samples move unchanged into a planar layout, or (yuv410p, yuv411p, yuv440p, whose
# layouts the inference side does not support) into one with more chroma samples.
_OTHER_LAYOUTS: dict[str, tuple[Layout, int, bool]] = {
    **dict.fromkeys(("nv12", "nv21"), ("yuv420", 8, False)),
    **dict.fromkeys(("nv16", "yuyv422", "uyvy422", "yvyu422"), ("yuv422", 8, False)),
    **dict.fromkeys(("nv24", "nv42", "yuv410p", "yuv411p", "yuv440p", "uyyvyy411"), ("yuv444", 8, False)),
    **dict.fromkeys(("yuvj411p", "yuvj440p", "vuyx"), ("yuv444", 8, False)),
    **dict.fromkeys(("vuya", "ayuv"), ("yuv444", 8, True)),
    **{f"p0{depth}{order}": ("yuv420", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"p2{depth}{order}": ("yuv422", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"p4{depth}{order}": ("yuv444", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"yuv440p{depth}{order}": ("yuv444", depth, False) for depth in (10, 12) for order in ("le", "be")},
    **dict.fromkeys(("nv20le", "nv20be", "y210le", "y210be"), ("yuv422", 10, False)),
    **dict.fromkeys(("xv30le", "xv30be"), ("yuv444", 10, False)),
    **dict.fromkeys(("xv36le", "xv36be"), ("yuv444", 12, False)),
    **dict.fromkeys(("ayuv64le", "ayuv64be"), ("yuv444", 16, True)),
    **dict.fromkeys(("rgb24", "bgr24", "rgb0", "bgr0", "0rgb", "0bgr"), ("gbr", 8, False)),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr"), ("gbr", 8, True)),
    # The rare transparent entries of palettes are ignored.
    "pal8": ("gbr", 8, False),
    **{
        f"{name}{order}": ("gbr", 8, False)
        for name in ("rgb565", "bgr565", "rgb555", "bgr555")
        for order in ("le", "be")
    },
    **{f"{name}{order}": ("gbr", 8, False) for name in ("rgb444", "bgr444") for order in ("le", "be")},
    **dict.fromkeys(("rgb8", "bgr8", "rgb4_byte", "bgr4_byte"), ("gbr", 8, False)),
    **dict.fromkeys(("x2rgb10le", "x2rgb10be", "x2bgr10le", "x2bgr10be"), ("gbr", 10, False)),
    **{f"{name}{order}": ("gbr", 16, False) for name in ("rgb48", "bgr48") for order in ("le", "be")},
    **{f"{name}{order}": ("gbr", 16, True) for name in ("rgba64", "bgra64") for order in ("le", "be")},
    "ya8": ("gray", 8, True),
    "ya16le": ("gray", 16, True),
    "ya16be": ("gray", 16, True),
    "monow": ("gray", 8, False),
    "monob": ("gray", 8, False),
}


@dataclass(frozen=True, kw_only=True)
class OutputTags:
    """The colour tags of the output, written to stream and container, none of them unspecified.

    `chroma_location` goes into the stream if its encoder supports that; it is None in plans of earlier versions, whose
    segments must be encoded alike.
    """

    primaries: str
    transfer: str
    matrix: str
    range: str
    chroma_location: ChromaLocation | None = None


@dataclass(frozen=True, kw_only=True)
class ColourPlan:
    """Formats of decoded and of encoded frames, and the output's tags.

    `decoded_pix_fmts` are the pixel formats that the decoding filter chain may output, the best first; all have the
    memory layout of `source`.
    """

    source: FrameFormat
    target: FrameFormat
    decoded_pix_fmts: tuple[str, ...]
    tags: OutputTags
    drops_alpha: bool


def plan_colour(video: VideoStream, *, scale: int) -> ColourPlan:
    """The colours of `video` upscaled by `scale`.

    The output is 4:2:0 with the input's range and matrix: 8 bits for 8 bits, 10 for more. RGB becomes limited-range
    BT.709. Raises PermanentError for unsupported pixel formats and matrices.
    """
    layout, bit_depth, alpha, jpeg = read_pix_fmt(video.pix_fmt)
    is_rgb = layout == "gbr"
    tags = fill_tags(
        video.colour, width=video.width, height=video.height, is_rgb=is_rgb, full_range_format=jpeg
    )
    matrix = MATRICES.get(tags.matrix)
    if matrix is None:
        raise PermanentError(
            f"The video's colours are stored in a way ({tags.matrix}) that this server cannot read. "
            "Convert the video to BT.709 and try again.",
        )
    source = FrameFormat(
        width=video.width,
        height=video.height,
        layout=layout,
        bit_depth=bit_depth,
        matrix=matrix,
        full_range=is_rgb or tags.range == "pc",
        chroma_location=_chroma_location(video),
    )
    target = replace(
        source.enlarged(scale),
        layout="yuv420",
        bit_depth=8 if bit_depth == 8 else 10,
        full_range=tags.range == "pc",
        chroma_location="left",
    )
    return ColourPlan(
        source=source,
        target=target,
        decoded_pix_fmts=_decoded_pix_fmts(source),
        tags=replace(tags, chroma_location=target.chroma_location),
        drops_alpha=alpha,
    )


def read_pix_fmt(pix_fmt: str) -> tuple[Layout, int, bool, bool]:
    """The planar layout and bit depth that `pix_fmt` is decoded to; whether it has alpha; whether it is a full-range
    ("yuvj") format. Raises PermanentError for unsupported formats.
    """
    if match := _PLANAR_YUV.match(pix_fmt):
        layouts: dict[str, Layout] = {"420": "yuv420", "422": "yuv422", "444": "yuv444"}
        return (
            layouts[match["layout"]],
            _depth(pix_fmt, match["depth"]),
            match["alpha"] is not None,
            match["jpeg"] is not None,
        )
    if match := _PLANAR_RGB.match(pix_fmt):
        return "gbr", _depth(pix_fmt, match["depth"]), match["alpha"] is not None, False
    if match := _GRAY.match(pix_fmt):
        return "gray", _depth(pix_fmt, match["depth"]), False, False
    if pix_fmt in _OTHER_LAYOUTS:
        layout, depth, alpha = _OTHER_LAYOUTS[pix_fmt]
        return layout, depth, alpha, pix_fmt.startswith("yuvj")
    raise PermanentError(f"The video stores its pixels in a way ({pix_fmt}) that this server cannot read.")


def fill_tags(
    colour: ColourTags, *, width: int, height: int, is_rgb: bool, full_range_format: bool
) -> OutputTags:
    """The output's tags: the input's, with missing ones guessed.

    A given tag decides the others (BT.2020 primaries imply its matrix, PQ and HLG imply BT.2020); without any, sizes
    from 1280 wide or over 576 high are BT.709, smaller ones BT.601 (SMPTE 170M, with the primaries of 625-line systems
    at their heights). The range is limited unless tag or format is full. RGB becomes limited-range BT.709.
    """
    primaries, transfer, matrix = (
        None if tag in UNTAGGED else tag for tag in (colour.primaries, colour.transfer, colour.matrix)
    )
    if is_rgb:
        return OutputTags(
            primaries=primaries or "bt709", transfer=transfer or "bt709", matrix="bt709", range="tv"
        )
    if matrix is None or matrix == RGB_MATRIX:
        # Some recorders tag Y'CbCr as RGB.
        matrix = _guess_matrix(primaries, transfer, is_hd=width >= HD_WIDTH or height > SD_MAX_HEIGHT)
    if primaries is None:
        primaries = _guess_primaries(matrix, height)
    if transfer is None:
        transfer = _guess_transfer(matrix)
    full_range = full_range_format or colour.range == "pc"
    return OutputTags(
        primaries=primaries, transfer=transfer, matrix=matrix, range="pc" if full_range else "tv"
    )


def _guess_matrix(primaries: str | None, transfer: str | None, *, is_hd: bool) -> str:
    if primaries == "bt2020" or transfer in HDR_TRANSFERS:
        return "bt2020nc"
    if primaries in ("bt709", "smpte170m", "bt470bg", "smpte240m"):
        return primaries
    return "bt709" if is_hd else "smpte170m"


def _guess_primaries(matrix: str, height: int) -> str:
    if matrix in ("bt2020nc", "bt2020c", "ictcp"):
        return "bt2020"
    if matrix == "smpte170m":
        return "bt470bg" if height in PAL_HEIGHTS else "smpte170m"
    if matrix == "fcc":
        return "bt470m"
    return matrix


def _guess_transfer(matrix: str) -> str:
    if matrix == "ictcp":
        return "smpte2084"
    if matrix in ("bt2020nc", "bt2020c"):
        return "bt2020-10"
    if matrix in ("smpte170m", "bt470bg", "fcc"):
        return "smpte170m"
    return matrix


def _chroma_location(video: VideoStream) -> ChromaLocation:
    tagged = video.colour.chroma_location
    location: ChromaLocation = "center" if video.codec in CENTRED_CHROMA_CODECS else "left"
    for name in CHROMA_OFFSETS:
        if name == tagged:
            location = name
    return rotated(location, degrees=video.rotation)


def rotated(location: ChromaLocation, *, degrees: int) -> ChromaLocation:
    """The siting of chroma after a clockwise rotation. For sides of odd length it is off by a sample."""
    right, down = CHROMA_OFFSETS[location]
    for _quarter in range(degrees // 90):
        right, down = 1 - down, right
    return next(name for name, offset in CHROMA_OFFSETS.items() if offset == (right, down))


def _depth(pix_fmt: str, digits: str | None) -> int:
    depth = int(digits or 8)
    if depth not in BIT_DEPTHS:
        raise PermanentError(
            f"The video stores its pixels in a way ({pix_fmt}) that this server cannot read."
        )
    return depth


def _decoded_pix_fmts(source: FrameFormat) -> tuple[str, ...]:
    # A yuvj format is the full-range counterpart of a yuv one; requesting the other one makes ffmpeg convert the range.
    # Which of them a decoder outputs depends on codec and version, so both are allowed and none is converted.
    if source.full_range and source.bit_depth == 8 and source.layout.startswith("yuv"):
        return (source.pix_fmt.replace("yuv", "yuvj"), source.pix_fmt)
    return (source.pix_fmt,)
