"""What ffmpeg's pixel formats hold, by their names: which of them this server reads, and as what."""

import re
from typing import Literal

from app.platform.errors import PermanentError

# Those of a raw frame in memory, as in `worker.inference.frames`, which imports nothing of `app`.
Layout = Literal["gray", "yuv420", "yuv422", "yuv444", "gbr"]

# The depths for which ffmpeg has a name in every layout.
_BIT_DEPTHS = (8, 9, 10, 12, 14, 16)
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
    **dict.fromkeys(("yuvj411p", "yuvj440p", "vuyx", "vyu444"), ("yuv444", 8, False)),
    **dict.fromkeys(("vuya", "ayuv", "uyva"), ("yuv444", 8, True)),
    **{f"p0{depth}{order}": ("yuv420", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"p2{depth}{order}": ("yuv422", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"p4{depth}{order}": ("yuv444", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **{f"yuv440p{depth}{order}": ("yuv444", depth, False) for depth in (10, 12) for order in ("le", "be")},
    **dict.fromkeys(("nv20le", "nv20be"), ("yuv422", 10, False)),
    **{f"y2{depth}{order}": ("yuv422", depth, False) for depth in (10, 12, 16) for order in ("le", "be")},
    **dict.fromkeys(("xv30le", "xv30be", "v30xle", "v30xbe"), ("yuv444", 10, False)),
    **dict.fromkeys(("xv36le", "xv36be"), ("yuv444", 12, False)),
    **dict.fromkeys(("xv48le", "xv48be"), ("yuv444", 16, False)),
    **dict.fromkeys(("ayuv64le", "ayuv64be"), ("yuv444", 16, True)),
    **dict.fromkeys(("rgb24", "bgr24", "rgb0", "bgr0", "0rgb", "0bgr"), ("gbr", 8, False)),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr"), ("gbr", 8, True)),
    "pal8": ("gbr", 8, True),
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


def read_pix_fmt(pix_fmt: str) -> tuple[Layout, int, bool, bool]:
    """The planar layout and bit depth that `pix_fmt` is decoded to; whether it has alpha; whether it is a full-range
    ("yuvj") format. Raises PermanentError for unsupported formats.
    """
    # First: "y210" is no gray of 210 bits.
    if pix_fmt in _OTHER_LAYOUTS:
        layout, depth, alpha = _OTHER_LAYOUTS[pix_fmt]
        return layout, depth, alpha, pix_fmt.startswith("yuvj")
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
    raise _unreadable(pix_fmt)


def _depth(pix_fmt: str, digits: str | None) -> int:
    depth = int(digits or 8)
    if depth not in _BIT_DEPTHS:
        raise _unreadable(pix_fmt)
    return depth


def _unreadable(pix_fmt: str) -> PermanentError:
    return PermanentError(
        f"The video stores its pixels in a way ({pix_fmt}) that this server cannot read. Convert it first: "
        "`ffmpeg -i input -c:v ffv1 -pix_fmt gbrp16le -c:a copy output.mkv`."
    )
