"""Recognizes files that ffprobe did not accept as a video, only for the error message."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

NOT_READABLE = "The file is not a video in a format this server reads."
PICTURE = "This file is a picture, not a video."
ANIMATED_WEBP = (
    "This file is an animated WebP, which this server does not decode. Convert it to GIF, APNG or MP4 first."
)
SOUND = "This file has sound but no video."
PLAYLIST = "This file is a playlist that refers to other files. Send the video itself."
ENCRYPTED = "This file is encrypted (DRM). Send a copy without encryption."
NO_INDEX = "The file ends before its index: it was cut off or is still being written."

HEAD_BYTES = 64
# Within which MP4 describes its tracks, when the index is at the start; as far as it is looked for.
INDEX_BYTES = 1 << 20
_PROTECTION_SCHEMES = re.compile(rb"schm.{4}(?:cenc|cens|cbc1|cbcs|piff)", re.DOTALL)

# First bytes of formats that hold video and are not read, with a name for people.
OTHER_VIDEO_SIGNATURES = {
    b"DKIF": "IVF",
    b"\0\0\1\xb3": "a raw MPEG-2 stream",
    b"\x12\0\x0a": "a raw AV1 stream",
    b".RMF": "RealMedia",
    b"NSVf": "Nullsoft video",
    b"BIK": "Bink",
    b"SMK": "Smacker",
}
OTHER_VIDEO = (
    "This file is {kind}, which this server does not read. Convert it first: `ffmpeg -i input -c:v ffv1 -c:a copy "
    "output.mkv` loses nothing."
)
# Where one JPEG picture ends and another begins: phones append one or two to a photograph.
NEXT_JPEG, LEAST_PICTURES = b"\xff\xd9\xff\xd8\xff", 4
MOTION_JPEG = "a raw Motion JPEG stream"

# First bytes of common formats (each format's own specification).
PICTURE_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"8BPS",
)
SOUND_SIGNATURES = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9", b"FORM")
# The first byte after the header of the chunk VP8X, and the bit of an animation in it (RFC 9649, section 2.7.1.1).
_EXTENDED_WEBP = re.compile(rb"RIFF.{4}WEBPVP8X.{4}(.)", re.DOTALL)
WEBP_ANIMATION = 0x02
MP4_BOXES = (b"ftyp", b"mdat", b"free", b"skip", b"wide", b"moov", b"moof", b"styp", b"pnot", b"uuid")
PLAYLIST_SIGNATURES = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<MPD", b"<smil", b"v=0\n", b"v=0\r")

# Sample entries of encrypted video and sound in MP4 (common encryption, FairPlay), and ffprobe's names for the stream
# types of H.264, AAC, AC-3 and E-AC-3 in transport streams with HLS Sample Encryption.
ENCRYPTED_TAGS = (
    "encv",
    "enca",
    "drmi",
    "drms",
    *(f"[{number}][0][0][0]" for number in (219, 207, 193, 194)),
)
# The tag that ffmpeg's Matroska demuxer gives to an encrypted track, and its message and that of the ASF demuxer.
ENCRYPTION_TAG = "enc_key_id"
_ENCRYPTION_SIGNS = re.compile(r"DRM protected stream detected|Unsupported encoding type")

# Brands of HEIF and AVIF, which are pictures in an MP4 container (ISO/IEC 23008-12, AV1 Image File Format).
PICTURE_BRANDS = frozenset({"mif1", "mif2", "msf1", "miaf", "heic", "heix", "heim", "heis", "avif"})

# From libavutil's check of frame sizes: "[h264 @ 0x5604d37d0d40] [IMGUTILS @ 0x7ffd] [error] Picture size 8x8 is ..."
_REFUSED_SIZE = re.compile(
    r"^\[([\w-]+) @ [^\]]*\].*Picture size ([0-9]{1,10})x([0-9]{1,10}) (?:is|exceeds)", re.M
)


def refused_frame_sizes(said: str, decoders: Collection[str] | None = None) -> list[tuple[int, int]]:
    """Frame sizes (width, height) that ffmpeg refused to allocate, in one of `decoders` or in any."""
    return [
        (int(width), int(height))
        for decoder, width, height in _REFUSED_SIZE.findall(said)
        if decoders is None or decoder in decoders
    ]


def is_encrypted(stream: dict[str, Any], said: str = "") -> bool:
    """Whether ffprobe shows a stream as encrypted, or its messages (`said`) the file."""
    return (
        stream.get("codec_tag_string") in ENCRYPTED_TAGS
        or ENCRYPTION_TAG in stream.get("tags", {})
        or _ENCRYPTION_SIGNS.search(said) is not None
    )


def has_protection_scheme(path: Path) -> bool:
    """Whether an MP4 names a scheme of common encryption in its first megabyte, as fragments do whose packets ffprobe
    cannot read."""
    return _PROTECTION_SCHEMES.search(_start(path)) is not None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(INDEX_BYTES)


def reason_unreadable(path: Path, said: str) -> str:
    """A sentence on why the file at `path` is not a video; `said` is the stderr of the ffprobe run that failed."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(PLAYLIST_SIGNATURES):
        return PLAYLIST
    if (webp := _EXTENDED_WEBP.match(head)) and webp[1][0] & WEBP_ANIMATION:
        return ANIMATED_WEBP
    for signature, kind in OTHER_VIDEO_SIGNATURES.items():
        if head.startswith(signature):
            return OTHER_VIDEO.format(kind=kind)
    if head.startswith(b"\xff\xd8\xff") and _start(path).count(NEXT_JPEG) >= LEAST_PICTURES - 1:
        return OTHER_VIDEO.format(kind=MOTION_JPEG)
    if head.startswith(PICTURE_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return PICTURE
    if head[4:8] == b"ftyp" and head[8:12].decode("latin-1") in PICTURE_BRANDS:
        return PICTURE
    if head.startswith(SOUND_SIGNATURES) or (head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"):
        return SOUND
    if head[4:8] in MP4_BOXES and "moov atom not found" in said:
        return NO_INDEX
    return NOT_READABLE
