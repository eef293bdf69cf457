"""Files that cost much in little: what `bench.neighbours` attacks with."""

import subprocess
from pathlib import Path

# EBML ids of Matroska.
SEGMENT, CHAPTERS, EDITION, CHAPTER = b"\x18\x53\x80\x67", b"\x10\x43\xa7\x70", b"\x45\xb9", b"\xb6"
UNKNOWN_SIZE = b"\x01" + 7 * b"\xff"


def make(path: Path, *arguments: str, source: str = "testsrc2=size=64x36:rate=25:duration=2") -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *arguments, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def many_chapters(directory: Path, count: int) -> Path:
    plain = make(directory / "plain.mkv").read_bytes()
    start = plain.index(SEGMENT) + len(SEGMENT)
    atoms = b"".join(
        _element(
            CHAPTER, b"\x73\xc4\x84" + number.to_bytes(4, "big") + b"\x91\x84" + number.to_bytes(4, "big")
        )
        for number in range(1, count + 1)
    )
    path = directory / "chapters.mkv"
    chapters = _element(CHAPTERS, _element(EDITION, atoms))
    path.write_bytes(plain[:start] + UNKNOWN_SIZE + chapters + plain[start + 8 :])
    return path


def long_title(directory: Path, size_bytes: int) -> Path:
    facts = directory / "title.txt"
    facts.write_text(f";FFMETADATA1\n[STREAM]\ntitle={'x' * size_bytes}\n")
    mapped = ("-map", "0", "-map_metadata:s:v:0", "1:s:0")
    return make(directory / "title.mkv", "-f", "ffmetadata", "-i", str(facts), *mapped)


def jumping_sound(directory: Path, jump_seconds: int) -> Path:
    sound = ("-f", "lavfi", "-i", f"sine=duration=2,asetpts='PTS+if(gt(N,20),{jump_seconds}/TB,0)'")
    return make(directory / "jump.mkv", *sound, "-c:a", "pcm_s16le", "-fps_mode", "passthrough")


def single_key_frame(directory: Path, minutes: int) -> Path:
    source = f"testsrc2=size=320x180:rate=25:duration={60 * minutes}"
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "1000000", "-keyint_min", "1000000")
    return make(directory / "one-key-frame.mp4", *options, "-sc_threshold", "0", source=source)


def _element(identity: bytes, content: bytes) -> bytes:
    return identity + (len(content) | 1 << 56).to_bytes(8, "big") + content
