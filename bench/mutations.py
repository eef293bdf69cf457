"""Damaged videos, made of good ones: what a broken disk, a careless program or an attacker makes of a file.

The same seed and the same clips make the same files.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

HEADER_BYTES = 4096
# Boxes of MP4 and chunks of RIFF: four characters, with their size before or behind them.
BOXES = re.compile(
    rb"ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|minf|dinf|dref|stbl|stsd|stts|ctts|stss|stsc|stsz|stco|co64"
    rb"|sgpd|sbgp|udta|meta|ilst|mdat|free|avcC|hvcC|av1C|vpcC|esds|colr|pasp|clap|fiel|avc1|hev1|hvc1|mp4a"
)
CHUNKS = re.compile(rb"RIFF|LIST|avih|strh|strf|idx1|movi|INFO|00dc|01wb")
# Elements of Matroska, whose size follows: EBML, Segment, SeekHead, Info, Tracks, Cluster, Cues, Chapters, Tags,
# Attachments, TrackEntry, Video, SimpleBlock.
ELEMENTS = re.compile(
    rb"\x1aE\xdf\xa3|\x18S\x80g|\x11M\x9bt|\x15I\xa9f|\x16T\xaek|\x1fC\xb6u|\x1cS\xbbk|\x10C\xa7p|\x12T\xc3g|\x19A\xa4i|\xae|\xe0|\xa3"
)
EXTREMES = (
    *(0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE),
    *(0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF),
)

# From a source of chance, the content of a file and that of another.
Mutation: TypeAlias = Callable[[Random, bytes, bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A damaged file. `name` says how it was made, and ends like the name of one of the two it was made of."""

    name: str
    mutation: str
    content: bytes


def mutants(clips: Sequence[Path], *, files: int, seed: int) -> Iterator[Mutant]:
    """So many damaged files, each kind of damage as often as the others."""
    contents = [(clip, clip.read_bytes()) for clip in sorted(clips)]
    for number in range(files):
        random = Random(f"{seed}-{number}")
        mutation = list(MUTATIONS)[number % len(MUTATIONS)]
        (clip, content), (other, others) = random.choice(contents), random.choice(contents)
        suffix = random.choice((clip, clip, other)).suffix
        yield Mutant(
            name=f"{number}-{clip.stem}-{mutation}{suffix}",
            mutation=mutation,
            content=MUTATIONS[mutation](random, content, others),
        )


def _flip_bits(random: Random, content: bytes, _other: bytes) -> bytes:
    changed = bytearray(content)
    for _flip in range(random.choice((1, 4, 16, 64))):
        changed[_place(random, content)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, content: bytes, _other: bytes) -> bytes:
    return content[: random.choice((_place(random, content), random.randrange(len(content))))]


def _splice(random: Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one, and the other from some place on."""
    return content[: random.randrange(len(content))] + other[random.randrange(len(other)) :]


def _repeat(random: Random, content: bytes, _other: bytes) -> bytes:
    """A part again, many times."""
    start = _place(random, content)
    end = start + random.choice((8, 64, 512))
    return content[:end] + content[start:end] * random.choice((1, 10, 1000)) + content[end:]


def _remove(random: Random, content: bytes, _other: bytes) -> bytes:
    start = _place(random, content)
    return content[:start] + content[start + random.choice((1, 4, 188, 1024)) :]


def _change_sizes(random: Random, content: bytes, _other: bytes) -> bytes:
    changed = bytearray(content)
    for start, width in random.sample(_sizes(content), k=min(len(_sizes(content)), random.choice((1, 2, 5)))):
        old = int.from_bytes(content[start : start + width], "big")
        new = random.choice((*EXTREMES, old + 1, old - 1, 2 * old, old // 2, len(content), old ^ (1 << 31)))
        changed[start : start + width] = (new % (1 << 8 * width)).to_bytes(width, "big")
    return bytes(changed)


def _write_extremes(random: Random, content: bytes, _other: bytes) -> bytes:
    changed = bytearray(content)
    for _integer in range(random.choice((1, 3, 10))):
        width = random.choice((1, 2, 4, 8))
        start = min(_place(random, content), len(content) - width)
        value = random.choice(EXTREMES) % (1 << 8 * width)
        changed[start : start + width] = value.to_bytes(width, random.choice(("big", "little")))
    return bytes(changed)


def _swap_endings(random: Random, content: bytes, other: bytes) -> bytes:
    """The last part is the other's: indexes there name what is not in this file."""
    length = random.choice((16, 256, 4096, len(other) // 2))
    return content[: max(1, len(content) - length)] + other[-length:]


MUTATIONS: dict[str, Mutation] = {
    "bit flips": _flip_bits,
    "truncation": _truncate,
    "splice": _splice,
    "repetition": _repeat,
    "removal": _remove,
    "sizes": _change_sizes,
    "extreme integers": _write_extremes,
    "swapped endings": _swap_endings,
}


def _sizes(content: bytes) -> list[tuple[int, int]]:
    """Where sizes of boxes, chunks and elements are, and their widths; the file's first bytes where it has none."""
    if content[4:8] == b"ftyp":
        found = [(match.start() - 4, 4) for match in BOXES.finditer(content) if match.start() >= 4]
    elif content.startswith(b"RIFF"):
        found = [(match.end(), 4) for match in CHUNKS.finditer(content)]
    elif content.startswith(b"\x1aE\xdf\xa3"):
        found = [(match.end(), width) for match in ELEMENTS.finditer(content) for width in (1, 8)]
    else:
        found = []
    return [(start, width) for start, width in found if start + width <= len(content)] or [(0, 4)]


def _place(random: Random, content: bytes) -> int:
    """Half of the time near a size, a quarter in the file's head: most bytes are of pictures."""
    chance = random.random()
    if chance < 0.5:
        near = random.choice(_sizes(content))[0] + random.randrange(64)
    else:
        near = random.randrange(HEADER_BYTES if chance < 0.75 else len(content))
    return near % len(content)
