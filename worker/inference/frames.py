"""The layout of one raw frame in memory: ffmpeg's planar `rawvideo`. Standard library and numpy only.

Planes follow each other without padding: Y, Cb, Cr; or G, B, R for `gbr`; or Y alone; then alpha, if there is one,
at full size and of full range. A sample of 8 bits takes one
byte, a deeper one two bytes, little-endian, in the low bits. The sizes of subsampled chroma planes are rounded up.
Source: ffmpeg, libavutil/pixdesc.c and libavutil/imgutils.c.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

# One raw frame: 1-D, `FrameFormat.frame_bytes` bytes.
Frame = NDArray[np.uint8]

Layout = Literal["gray", "yuv420", "yuv422", "yuv444", "gbr"]
Matrix = Literal["bt709", "bt601", "bt2020nc", "smpte240m", "fcc", "smpte2085", "ycgco"]
ChromaLocation = Literal[
    "left", "center", "topleft", "top", "bottomleft", "bottom", "right", "topright", "bottomright"
]

# The location of a chroma sample relative to the first of its luma samples, in luma samples: (right, down). The first
# six are those of ITU-T H.273, figure 1; the others occur in rotated pictures.
CHROMA_OFFSETS: dict[ChromaLocation, tuple[float, float]] = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
    "right": (1.0, 0.5),
    "topright": (1.0, 0.0),
    "bottomright": (1.0, 1.0),
}

# The depths for which ffmpeg has a name in every layout.
BIT_DEPTHS = (8, 9, 10, 12, 14, 16)

_FFMPEG_LAYOUTS = {
    "gray": "gray",
    "yuv420": "yuv420p",
    "yuv422": "yuv422p",
    "yuv444": "yuv444p",
    "gbr": "gbrp",
}


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """The layout and the meaning of a raw frame's bytes.

    `width` and `height` are in luma samples. `matrix` converts Y'CbCr to R'G'B' (for `gray` it is used from RGB alone,
    for `gbr` not at all). `full_range` means codes from 0 to 2**bit_depth - 1 instead of the limited ("tv") range.
    `chroma_location` locates a chroma sample among its luma samples, by ffmpeg's names; `yuv422` uses its horizontal
    part alone, and layouts without subsampling ignore it. `has_alpha`: a plane of opacity follows; the colours are
    straight, not multiplied by it.

    Raises `ValueError` for sizes below 1, a bit depth outside `BIT_DEPTHS`, unknown names, and gray with alpha, which
    has no planar format.
    """

    width: int
    height: int
    layout: Layout = "yuv420"
    bit_depth: int = 8
    matrix: Matrix = "bt709"
    full_range: bool = False
    chroma_location: ChromaLocation = "left"
    has_alpha: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"A frame of {self.width}x{self.height} has no pixels.")
        if self.bit_depth not in BIT_DEPTHS:
            raise ValueError(f"Bit depth {self.bit_depth} is none of {BIT_DEPTHS}.")
        for value, names in (
            (self.layout, get_args(Layout)),
            (self.matrix, get_args(Matrix)),
            (self.chroma_location, get_args(ChromaLocation)),
        ):
            if value not in names:
                raise ValueError(f"{value!r} is none of {names}.")
        if self.has_alpha and self.layout == "gray":
            raise ValueError("There is no planar format of gray with alpha.")

    @property
    def pix_fmt(self) -> str:
        """ffmpeg's name, such as yuv420p, yuv422p10le, gray12le, gbrp16le, yuva444p10le."""
        name = _FFMPEG_LAYOUTS[self.layout]
        if self.has_alpha:
            name = name.replace("yuv", "yuva").replace("gbr", "gbra")
        return name + ("" if self.bit_depth == 8 else f"{self.bit_depth}le")

    @property
    def dtype(self) -> "np.dtype[np.uint8] | np.dtype[np.uint16]":
        """The dtype of one sample."""
        return np.dtype(np.uint8) if self.bit_depth == 8 else np.dtype("<u2")

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each plane, in file order."""
        luma = (self.height, self.width)
        if self.layout == "gray":
            return (luma,)
        rows = (self.height + 1) // 2 if self.layout == "yuv420" else self.height
        columns = (self.width + 1) // 2 if self.layout in ("yuv420", "yuv422") else self.width
        return (luma, (rows, columns), (rows, columns), *([luma] if self.has_alpha else []))

    @property
    def plane_bytes(self) -> tuple[int, ...]:
        """Bytes of each plane."""
        return tuple(rows * columns * self.dtype.itemsize for rows, columns in self.plane_shapes)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return sum(self.plane_bytes)

    @property
    def max_code(self) -> int:
        """The largest value a sample can have."""
        return int(2**self.bit_depth - 1)

    def enlarged(self, factor: int) -> "FrameFormat":
        """Returns the same format, `factor` times as wide and high."""
        return replace(self, width=self.width * factor, height=self.height * factor)

    def split(self, frame: Frame) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
        """Returns views of the planes of one frame (1-D uint8 of `frame_bytes`; otherwise raises `ValueError`)."""
        if frame.dtype != np.uint8 or frame.shape != (self.frame_bytes,):
            raise ValueError(
                f"A frame is {self.frame_bytes} bytes, not {frame.dtype} of shape {frame.shape}."
            )
        planes: list[NDArray[np.uint8] | NDArray[np.uint16]] = []
        offset = 0
        for shape, size in zip(self.plane_shapes, self.plane_bytes, strict=True):
            planes.append(frame[offset : offset + size].view(self.dtype).reshape(shape))
            offset += size
        return planes

    def join(self, planes: Sequence[NDArray[np.generic]]) -> Frame:
        """Returns one frame, 1-D uint8, from its planes of codes. Raises `ValueError` for other shapes."""
        if tuple(plane.shape for plane in planes) != self.plane_shapes:
            raise ValueError(f"The planes of {self.pix_fmt} have shapes {self.plane_shapes}.")
        return np.concatenate([plane.astype(self.dtype).reshape(-1).view(np.uint8) for plane in planes])
