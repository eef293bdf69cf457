"""Code points of ITU-T H.273 for primaries, transfer and matrix.

The server keeps colours as these numbers and passes numbers to filters and encoders: ffprobe's names differ from those
that encoders take (`bt470m` and `gamma22` are one transfer).
"""

from enum import IntEnum
from typing import Self

UNSPECIFIED = 2


class CodePoint(IntEnum):
    """A code point whose member name is ffprobe's name, in upper case and with underscores."""

    @property
    def label(self) -> str:
        """ffprobe's name."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of_name(cls, name: str) -> Self | None:
        """The code point of ffprobe's name; None for any other name."""
        return cls.__members__.get(name.upper().replace("-", "_"))

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.of_name(value) if isinstance(value, str) else None


class ColourPrimaries(CodePoint):
    BT709 = 1
    BT470M = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    FILM = 8
    BT2020 = 9
    SMPTE428 = 10
    SMPTE431 = 11
    SMPTE432 = 12
    EBU3213 = 22


class TransferCharacteristics(CodePoint):
    BT709 = 1
    BT470M = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    LINEAR = 8
    LOG100 = 9
    LOG316 = 10
    IEC61966_2_4 = 11
    BT1361E = 12
    IEC61966_2_1 = 13
    BT2020_10 = 14
    BT2020_12 = 15
    SMPTE2084 = 16
    SMPTE428 = 17
    ARIB_STD_B67 = 18


class MatrixCoefficients(CodePoint):
    GBR = 0
    BT709 = 1
    FCC = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    YCGCO = 8
    BT2020NC = 9
    BT2020C = 10
    SMPTE2085 = 11
    CHROMA_DERIVED_NC = 12
    CHROMA_DERIVED_C = 13
    ICTCP = 14
