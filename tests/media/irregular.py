"""Clips of the corpus that one pass of an encoder does not make: cut, turned, shifted, interlaced, with extras."""

from collections.abc import Iterator, Sequence, Set
from functools import lru_cache
from pathlib import Path
from struct import pack
from subprocess import run as run_process
from typing import Any

import numpy as np

from tests.media.drawing import draw, draw_fields
from tests.media.encoding import CAREFUL, CLICK_SECONDS, COUNT, RATE, Sound, encode, run

SUBTITLES = """1
00:00:00,100 --> 00:00:00,350
A rabbit.

2
00:00:00,350 --> 00:00:00,600
Moving.
"""
TITLE, ARTIST = "A clip & its title", "Nobody in particular"
CHAPTERS = ("First half", "Second half")
METADATA = f""";FFMETADATA1
title={TITLE}
artist={ARTIST}
[CHAPTER]
TIMEBASE=1/1000
START=0
END=320
title={CHAPTERS[0]}
[CHAPTER]
TIMEBASE=1/1000
START=320
END=640
title={CHAPTERS[1]}
"""
# The frame that a cut into the middle of a group of pictures starts with; a keyframe is every tenth.
CUT_AT_FRAME = 13

# MPEG-4 Part 2: what a picture and a group of pictures begin with, a kind of picture, and one without content.
MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-g", "10")
PICTURE, GROUP, B_PICTURE = b"\0\0\1\xb6", b"\0\0\1\xb3", 2
NOTHING_CODED = PICTURE + b"\x50\x4f"
# What DivX 5 writes into such files.
PACKED_MARK = b"\0\0\1\xb2DivX503b1393p"


@lru_cache(maxsize=1)
def _has_display_rotation() -> bool:
    help_text = run_process(["ffmpeg", "-h", "full"], capture_output=True, check=True).stdout
    return b"-display_rotation" in help_text


def turned(path: Path, *, clockwise: int, sar: str = "1") -> Path:
    """Frames that stand upright once a player has turned them by `clockwise` degrees."""
    upright = draw(COUNT, 96, 64)
    pictures = np.ascontiguousarray(np.rot90(upright, k=clockwise // 90, axes=(1, 2)))
    whole = encode(path.with_name(f"{path.stem}-unturned.mp4"), pictures=pictures, after=f"setsar={sar}")
    if _has_display_rotation():
        run("-display_rotation", str(-clockwise), "-i", whole, "-c", "copy", path)
    else:
        # Version 5 turns this tag into a display matrix. Both count against the clock.
        run("-i", whole, "-c", "copy", "-metadata:s:v:0", f"rotate={360 - clockwise}", path)
    whole.unlink()
    return path


def interlaced(path: Path, *, top_first: bool, encoder: Sequence[str]) -> Path:
    """Twice as many moments as frames, each pair woven into one frame: field by field as a camera does."""
    mode, field = ("interleave_top", "tff") if top_first else ("interleave_bottom", "bff")
    return encode(
        path,
        pictures=draw_fields(COUNT, 96, 64),
        moments=2,
        pix_fmt="yuv444p",
        after=f"tinterlace=mode={mode},setfield={field},scale=interl=1:flags={CAREFUL},format=yuv420p,setfield={field}",
        encoder=(*encoder, "-flags", "+ildct+ilme"),
    )


def cut_into_group(path: Path) -> Path:
    """A longer clip cut without encoding it again: an edit list hides the frames before the cut."""
    seconds = CUT_AT_FRAME / RATE
    whole = encode(
        path.with_name(f"{path.stem}-uncut.mp4"),
        count=CUT_AT_FRAME + COUNT,
        sounds=[Sound(seconds=seconds + COUNT / RATE, click_at=seconds + CLICK_SECONDS)],
    )
    run("-ss", str(float(seconds)), "-i", whole, "-c", "copy", path)
    whole.unlink()
    return path


def cut_off(path: Path) -> Path:
    """The first part of a longer file, as a download leaves that broke off."""
    whole = encode(
        path.with_name(f"{path.stem}-whole.mp4"),
        count=3 * COUNT,
        sounds=[Sound(seconds=3 * COUNT / RATE)],
        options=("-movflags", "+faststart"),
    )
    body = whole.read_bytes()
    path.write_bytes(body[: len(body) * 7 // 10])
    whole.unlink()
    return path


def with_extras(path: Path) -> Path:
    """Subtitles, chapters, a title, and the sound's language."""
    subtitles = path.with_name(f"{path.stem}.srt")
    metadata = path.with_name(f"{path.stem}.txt")
    subtitles.write_text(SUBTITLES)
    metadata.write_text(METADATA)
    encode(
        path,
        extra_inputs=("-i", subtitles, "-f", "ffmetadata", "-i", metadata),
        options=(
            *("-map", "2:s", "-c:s", "srt", "-metadata:s:s:0", "language=fra"),
            *("-map_metadata", "3", "-map_chapters", "3"),
        ),
    )
    subtitles.unlink()
    metadata.unlink()
    return path


def see_through(path: Path, *, encoder: Sequence[str], pix_fmt: str, sounds: Sequence[Sound] = ()) -> Path:
    """Half transparent from left to right."""
    return encode(
        path,
        count=8,
        encoder=encoder,
        pix_fmt=pix_fmt,
        before="format=rgba64le,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='65535*X/W'",
        sounds=sounds,
    )


def shifted(path: Path, *, seconds: str) -> Path:
    """A transport stream whose timestamps start that late."""
    whole = encode(path.with_name(f"{path.stem}-whole.mkv"))
    run("-i", whole, "-c", "copy", "-output_ts_offset", seconds, path)
    whole.unlink()
    return path


def with_null_frames(path: Path, numbers: Set[int]) -> Path:
    """An AVI of whole pictures in which these frames are chunks of no bytes: the frame before them goes on."""
    whole = encode(
        path.with_name(f"{path.stem}-whole.avi"),
        encoder=("-c:v", "mjpeg", "-q:v", "2"),
        pix_fmt="yuvj420p",
        sounds=[Sound(codec=("-c:a", "pcm_s16le"))],
    )
    numbered = enumerate(read_pictures(whole))
    write_pictures(whole, path, [b"" if number in numbers else content for number, content in numbered])
    whole.unlink()
    return path


def with_packed_pictures(path: Path, **options: Any) -> Path:
    """An AVI of MPEG-4 Part 2 in which each B-frame is in the chunk of the frame before it, as DivX stores them, and a
    chunk follows in which nothing is coded."""
    whole = encode(path.with_name(f"{path.stem}-whole.avi"), encoder=(*MPEG4, "-bf", "1"), **options)
    stored = read_pictures(whole)
    packed: list[bytes] = []
    for content in stored:
        if content[content.index(PICTURE) + 4] >> 6 == B_PICTURE:
            packed[-1] += content
            content = NOTHING_CODED
        packed.append(content)
    at = min(packed[0].index(code) for code in (GROUP, PICTURE) if code in packed[0])
    packed[0] = packed[0][:at] + PACKED_MARK + packed[0][at:]
    write_pictures(whole, path, packed)
    whole.unlink()
    return path


def _chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks of an AVI's list of them."""
    at = body.index(b"movi") + 4
    end = at - 4 + int.from_bytes(body[at - 8 : at - 4], "little")
    while at + 8 <= end:
        kind, length = body[at : at + 4], int.from_bytes(body[at + 4 : at + 8], "little")
        yield kind, body[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def read_pictures(path: Path) -> list[bytes]:
    """The pictures of an AVI as they are stored, without those of no bytes."""
    return [content for kind, content in _chunks(path.read_bytes()) if kind.endswith(b"dc") and content]


def write_pictures(source: Path, path: Path, pictures: Sequence[bytes]) -> None:
    """An AVI with others in their places."""
    body, following = source.read_bytes(), iter(pictures)
    chunks, index, listed_at = b"movi", b"", body.index(b"idx1") + 8
    for number, (kind, content) in enumerate(_chunks(body)):
        if kind.endswith(b"dc") and content:
            content = next(following)
        flags = body[listed_at + 16 * number + 4 :][:4] if content else bytes(4)
        index += kind + flags + pack("<2I", len(chunks), len(content))
        chunks += kind + pack("<I", len(content)) + content + bytes(len(content) % 2)
    listed = b"LIST" + pack("<I", len(chunks)) + chunks + b"idx1" + pack("<I", len(index)) + index
    head = body[: body.index(b"movi") - 8]
    path.write_bytes(head[:4] + pack("<I", len(head) + len(listed) - 8) + head[8:] + listed)
