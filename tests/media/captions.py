"""Closed captions for test clips: the codes of CEA-608, and pictures with them in SEI messages (ATSC A/53)."""

from collections.abc import Callable, Iterable, Mapping, Sequence

START = b"\0\0\1"
# By the codec: what the slice of an intra picture begins with, and an SEI message.
H264, HEVC = (START + b"\x65", START + b"\x06"), (START + b"\x28", START + b"\x4e\x01")
EMPTY = (0x80, 0x80)

Pair = tuple[int, int]
Triple = tuple[int, int, int]


def with_parity(*pairs: Pair) -> list[Pair]:
    return [(first | _parity(first), second | _parity(second)) for first, second in pairs]


def _parity(code: int) -> int:
    return 0 if code.bit_count() % 2 else 0x80


# The first channel's commands, and the start of the lowest row.
LOAD, SHOW, ERASE, NEW_LINE = (with_parity((0x14, code)) for code in (0x20, 0x2F, 0x2C, 0x2D))
ROLL_UP_TWO, ROW = with_parity((0x14, 0x25)), with_parity((0x14, 0x70))
ACUTE_E = with_parity((0x12, 0x21))


def letters(text: str) -> list[Pair]:
    codes = [*text.encode("ascii"), *([0] if len(text) % 2 else [])]
    return with_parity(*zip(codes[::2], codes[1::2], strict=True))


def at_frames(pieces: Mapping[int, Sequence[Pair]]) -> dict[int, Pair]:
    """A pair for each frame, from the first frame of each piece on."""
    return {start + number: pair for start, piece in pieces.items() for number, pair in enumerate(piece)}


def message(triples: Iterable[Triple]) -> bytes:
    """User data of MPEG-2; registered by ITU-T T.35, where something else begins it."""
    data = [bytes(one) for one in triples]
    return b"GA94\3" + bytes([0x40 | len(data), 0xFF]) + b"".join(data) + b"\xff"


def sei(triples: Iterable[Triple]) -> bytes:
    """An SEI message of H.264 and HEVC, without the header of its unit."""
    data = b"\xb5\0\x31" + message(triples)
    return bytes([4, len(data)]) + data + b"\x80"


def fields(first: Mapping[int, Pair], second: Mapping[int, Pair]) -> Callable[[int], list[Triple]]:
    """The captions of each frame, and a triple that is not valid, as broadcasters fill up with."""
    return lambda frame: [(0xFC, *first.get(frame, EMPTY)), (0xFD, *second.get(frame, EMPTY)), (0xFA, 0, 0)]


def captioned(
    pictures: bytes, captions: Callable[[int], list[Triple]], *, codec: tuple[bytes, bytes] = H264
) -> bytes:
    """A stream of intra pictures of one slice each, with captions for each of them."""
    slice_start, unit = codec
    head, *slices = pictures.split(slice_start)
    units = (unit + sei(captions(number)) + slice_start + one for number, one in enumerate(slices))
    return head + b"".join(units)
