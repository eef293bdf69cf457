"""Every kind of stream and of side data that ffmpeg knows is kept, or a warning names it."""

import ctypes
import ctypes.util
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.platform.media.containers import MP4
from app.platform.media.first_frames import Spatial
from app.platform.media.whitelists import TEXT_SUBTITLES
from worker.video.metadata import lost_tags
from worker.video.mp4_boxes import read_video_description_kinds
from worker.video.side_data import KINDS_OF_BOXES, LEFT_OUT, NOT_LOST, OTHER_WARNING, lost_side_data
from worker.video.spherical_video import write_spatial
from worker.video.tracks import choose_tracks

# Kinds that newer versions have beside those of the ffmpeg at hand.
NEWER_KINDS = (
    *("Ambient viewing environment", "LCEVC NAL data", "Frame Cropping", "View ID", "EXIF metadata"),
    *(
        "3D Reference Displays Info",
        "Video hint",
        "RTCP Sender Report",
        "HDR Dynamic Metadata CUVA 005.1 2021 (Vivid)",
        "HDR Dynamic Metadata SMPTE2094-50",
        "HEVC enhancement-layer decoder configuration",
        "RAW camera color parameters",
    ),
)


def _kinds() -> Iterator[str]:
    yield from NEWER_KINDS
    for library, function in (("avutil", "av_frame_side_data_name"), ("avcodec", "av_packet_side_data_name")):
        name = ctypes.util.find_library(library)
        if name is not None:
            ask = getattr(ctypes.CDLL(name), function)
            ask.restype = ctypes.c_char_p
            yield from (ask(number).decode() for number in range(64) if ask(number))


def test_every_kind_of_side_data_is_kept_or_named() -> None:
    kinds = set(_kinds())
    assert len(kinds) >= len(NEWER_KINDS)
    unnamed = [kind for kind in kinds if lost_side_data([kind]) == [OTHER_WARNING.format(kind=kind)]]
    assert unnamed == []
    # No kind is both.
    both = [
        kind for kind in kinds if lost_side_data([kind]) and any(part in kind.lower() for part in NOT_LOST)
    ]
    assert both == []
    assert {warning for kind in kinds for warning in lost_side_data([kind])} <= set(LEFT_OUT.values())


def test_a_kind_that_is_not_known_is_named() -> None:
    assert lost_side_data(["Smell-O-Vision"]) == ["Data beside the pictures was left out: Smell-O-Vision."]


def _codecs() -> Iterator[tuple[str, str]]:
    """Type and name of every codec that ffmpeg has a name for."""
    types = {"V": "video", "A": "audio", "S": "subtitle", "D": "data", "T": "attachment"}
    listed = subprocess.run(["ffmpeg", "-v", "error", "-codecs"], capture_output=True, check=True, text=True)
    for line in listed.stdout.splitlines():
        words = line.split()
        if len(words) > 1 and len(words[0]) == 6 and words[0][2] in types and words[1] != "=":
            yield types[words[0][2]], words[1]


def test_every_kind_of_stream_is_kept_or_named() -> None:
    codecs = [*_codecs(), ("data", "none"), ("unknown", "none")]
    assert {kind for kind, _codec in codecs} >= {"video", "audio", "subtitle", "data"}
    for kind, codec in codecs:
        stream = {
            "index": 1,
            "codec_type": kind,
            "codec_name": codec,
            "codec_tag_string": "abcd",
            "channels": 2,
        }
        choice = choose_tracks([stream], video_index=0, formats={})
        assert choice.tracks or choice.warnings, (kind, codec)
        if kind == "subtitle" and choice.tracks:
            assert codec in TEXT_SUBTITLES | MP4.copied_subtitles


@pytest.mark.parametrize(
    ("tag", "kept", "warning"),
    [
        ("gpmd", True, None),
        ("mebx", False, "A track of data was left out (mebx)."),
        ("camm", False, "A track of data was left out (camm)."),
        ("[0][0][0][0]", False, "A track of data was left out (scte_35)."),
        # The muxer tells of timecode; chapters are kept as such.
        ("tmcd", False, None),
        ("text", False, None),
    ],
)
def test_tracks_of_data(tag: str, kept: bool, warning: str | None) -> None:
    stream = {"index": 1, "codec_type": "data", "codec_name": "scte_35", "codec_tag_string": tag}
    choice = choose_tracks([stream], video_index=0, formats={})
    assert ([track.tag for track in choice.tracks], list(choice.warnings)) == (
        [tag] if kept else [],
        [warning] if warning else [],
    )


def test_tags_that_are_lost_are_named_shortly() -> None:
    before = {"title": "a", "ENCODER": "b", "DIRECTOR": "c", "x\n" * 50: "d", "toolkit_version_num": "5.1"}
    (warning,) = lost_tags(before, {"Title": "a"})
    assert "DIRECTOR, " + "x" * 40 in warning
    assert (
        "\n" not in warning
        and "ENCODER" not in warning
        and "toolkit" not in warning
        and "itle" not in warning
    )
    (many,) = lost_tags({f"tag-{number}": "" for number in range(10)}, {})
    assert many.endswith("tag-7 and 2 more.")
    assert lost_tags(before, before) == []


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("handler", [b"vide", b"soun"])
def test_boxes_that_ffmpeg_may_not_read_are_found(tmp_path: Path, handler: bytes) -> None:
    """Spatial video of a headset (`vexu`), a sphere on a mesh, a viewing environment."""
    boxes = b"".join(_box(kind, b"content") for kind in (b"hvcC", b"vexu", b"sv3d", b"amve"))
    entries = _box(b"stsd", bytes(8) + _box(b"hvc1", bytes(78) + boxes))
    media = _box(b"hdlr", bytes(8) + handler) + _box(b"minf", _box(b"stbl", entries))
    source = tmp_path / "a.mov"
    source.write_bytes(_box(b"ftyp", b"qt  ") + _box(b"moov", _box(b"trak", _box(b"mdia", media))))
    found = read_video_description_kinds(source)
    assert found == ({b"hvcC", b"vexu", b"sv3d", b"amve"} if handler == b"vide" else set())
    for kept in (8, 60, source.stat().st_size - 3):
        source.write_bytes(source.read_bytes()[:kept])
        assert read_video_description_kinds(source) <= found


def test_every_box_that_is_found_is_named() -> None:
    assert {kind: len(lost_side_data([name])) for kind, name in KINDS_OF_BOXES.items()} == dict.fromkeys(
        KINDS_OF_BOXES, 1
    )


@pytest.mark.parametrize(("table", "offset"), [(b"stco", 2**32 - 1), (b"free", 0)])
def test_a_file_that_cannot_hold_spatial_tags_stays_as_it_is(
    tmp_path: Path, table: bytes, offset: int
) -> None:
    chunks = _box(table, struct.pack(">3I", 0, 1, offset))
    path = tmp_path / "a.mp4"
    path.write_bytes(_box(b"ftyp", b"isom") + _box(b"moov", _box(b"trak", chunks)) + _box(b"mdat", b"abc"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"bits|no video"):
        write_spatial(path, Spatial(stereo="side by side"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
