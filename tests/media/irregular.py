"""Clips of the corpus that one pass of an encoder does not make: cut, turned, shifted, interlaced, with extras."""

from collections.abc import Sequence, Set
from functools import lru_cache
from pathlib import Path
from struct import pack
from subprocess import run as run_process

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
    body = whole.read_bytes()
    whole.unlink()
    start = body.index(b"movi")
    end = start + int.from_bytes(body[start - 4 : start], "little")
    chunks, index, at, frame = b"movi", b"", start + 4, 0
    while at + 8 <= end:
        kind, length = body[at : at + 4], int.from_bytes(body[at + 4 : at + 8], "little")
        content = body[at + 8 : at + 8 + length]
        if kind.endswith(b"dc"):
            content = b"" if frame in numbers else content
            frame += 1
        index += kind + pack("<3I", 0x10 if content else 0, len(chunks), len(content))
        chunks += kind + pack("<I", len(content)) + content + bytes(len(content) % 2)
        at += 8 + length + length % 2
    listed = b"LIST" + pack("<I", len(chunks)) + chunks + b"idx1" + pack("<I", len(index)) + index
    head = body[: start - 8]
    path.write_bytes(head[:4] + pack("<I", len(head) + len(listed) - 8) + head[8:] + listed)
    return path
