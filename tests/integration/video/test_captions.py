"""Closed captions inside the pictures stay there, all of them, and become a subtitle track with their texts."""

import re
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.platform.errors import FfmpegCancelled
from app.platform.media.codecs import OutputFormat
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.first_frames import probe_first_frames
from tests.media import captions as cea608
from tests.media.captions import (
    ACUTE_E,
    ERASE,
    H264,
    HEVC,
    LOAD,
    NEW_LINE,
    ROLL_UP_TWO,
    ROW,
    SHOW,
    Triple,
    at_frames,
    fields,
    letters,
    with_parity,
)
from worker.video import captions
from worker.video.caption_messages import CLOCK
from worker.video.captions import (
    CHANNELS_WARNING,
    KIND_WARNING,
    UNREADABLE_WARNING,
)
from worker.video.captions import (
    read_captions as read_captions_of,
)
from worker.video.continuous_copy import RESTARTS_WARNING
from worker.video.side_data import CLOSED_CAPTIONS

FRAMES, RATE = 30, 25
# Two texts, the second with indented lines, each loaded while the one before is shown.
_POP_ON = {
    0: [*LOAD, *ROW, *letters("CAFE"), *ACUTE_E, *SHOW],
    8: [*LOAD, *with_parity((0x14, 0x52)), *letters("one"), *with_parity((0x14, 0x74))],
    14: [*letters("two"), *SHOW],
    24: ERASE,
}
POP_ON = fields(at_frames(_POP_ON), {})
POP_ON_TEXTS = [(5, 16, "CAFÉ"), (16, 24, "one\n    two")]
_ROLL_UP = {
    0: [*ROLL_UP_TWO, *NEW_LINE, *ROW, *letters("first")],
    10: [*NEW_LINE, *ROW, *letters("second")],
    20: [*NEW_LINE],
}
ROLL_UP = fields(at_frames(_ROLL_UP), {})
ROLL_UP_TEXTS = [(1, 10, "first"), (10, 20, "first\nsecond")]


def all_kinds(frame: int) -> list[Triple]:
    """Captions of CC1, of CC3 and of CEA-708, whose bytes look like starts of units, and one that is not valid."""
    first, second, unused = fields(at_frames(_POP_ON), at_frames({3: with_parity((0x15, 0x25))}))(frame)
    return [first, second, (0xFF, 0, 0), (0xFE, 0, 1), (0xFE, 0, frame), unused]


def as_shown(triples: list[Triple]) -> bytes:
    return b"".join(map(bytes, triples))


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-a53cc", "1")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=0:keyint=1")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "4", "-g", "12", "-bf", "2", "-a53cc", "1")


@pytest.fixture
def captioned(clip: Callable[..., Path], ffmpeg: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """Make a clip with captions: `coding` is ffmpeg's for the output, a copy by default."""

    def make(
        name: str, captions: Callable[[int], list[Triple]], *coding: str, codec: tuple[bytes, bytes] = H264
    ) -> Path:
        kind, *options = ("h264", *X264[:4]) if codec == H264 else ("hevc", *X265)
        plain = clip(f"plain.{kind}", *options, "-g", "1", "-pix_fmt", "yuv420p", frames=FRAMES, size="64x36")
        marked, path = tmp_path / f"marked.{kind}", tmp_path / name
        marked.write_bytes(cea608.captioned(plain.read_bytes(), captions, codec=codec))
        ffmpeg("-r", str(RATE), "-i", marked, *(coding or ("-c", "copy")), path)
        return path

    return make


@pytest.fixture
def texts_of(ffmpeg: Callable[..., bytes]) -> Callable[[Path], list[tuple[Fraction, Fraction, str]]]:
    """Start, end and text of a file's only subtitle track, in seconds after its first frame."""

    def read(path: Path) -> list[tuple[Fraction, Fraction, str]]:
        written = (
            ffmpeg("-i", path, "-map", "0:s", "-c:s", "text", "-f", "srt", "pipe:1")
            .decode()
            .replace("\r", "")
        )
        found = []
        for block in written.strip().split("\n\n"):
            _number, times, text = block.split("\n", 2)
            start, end = (
                Fraction(
                    sum(int(n) * unit for n, unit in zip(re.findall(r"\d+", at), UNITS, strict=True)), 1000
                )
                for at in times.split(" --> ")
            )
            found.append((start, end, text))
        return found

    return read


@pytest.fixture
def read_captions(runner: FfmpegRunner, tmp_path: Path) -> Callable[..., Any]:
    """What becomes of a file's captions, without a render, if the output's pictures cannot hold them."""

    def read(
        path: Path,
        cancelled: Callable[[], bool] = lambda: False,
        codec: str = "vp9",
        skipped_frames: int = 0,
    ) -> Any:
        first = probe_first_frames(runner, path, stream_index=0)
        assert any(CLOSED_CAPTIONS in kind.lower() for kind in first.side_data)
        start = Fraction(runner.probe(path, "-show_entries", "format=start_time")["format"]["start_time"])
        render: Any = SimpleNamespace(
            has_captions=True,
            input_start_seconds=start + Fraction(skipped_frames, RATE),
            skipped_seconds=Fraction(skipped_frames, RATE),
            stream_index=0,
            offset_ticks=0,
            # Another rate may end the output before the input's last frame, whose captions stay.
            total_ticks=FRAMES - skipped_frames - 1,
            timescale=RATE,
            source_frame_count=FRAMES,
            codec=codec,
            part=None,
        )
        return read_captions_of(runner, path, [{"index": 0}], tmp_path, render=render, cancelled=cancelled)

    return read


@pytest.fixture
def triples_of(
    ffmpeg: Callable[..., bytes], tmp_path: Path
) -> Callable[[Path], list[tuple[Fraction, bytes]]]:
    """The captions that ffmpeg finds in a file's pictures, in the order in which they are shown: seconds, triples."""

    def read(path: Path) -> list[tuple[Fraction, bytes]]:
        data, listing = tmp_path / "found.bin", tmp_path / "found.crc"
        copies = (
            word for form, file in (("data", data), ("framecrc", listing)) for word in (*COPIED, form, file)
        )
        ffmpeg("-f", "lavfi", "-i", f"movie={path}[out0+subcc]", *copies)
        lines = listing.read_text().splitlines()
        time_base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb 0"))
        rest, found = data.read_bytes(), []
        for line in lines:
            if not line.startswith("#"):
                _stream, _dts, pts, _duration, size, _checksum = line.split(",")
                found.append((int(pts) * time_base, rest[: int(size)]))
                rest = rest[int(size) :]
        assert rest == b""
        return found

    return read


COPIED = ("-map", "0:s", "-c", "copy", "-f")
UNITS = (3_600_000, 60_000, 1000, 1)


def check_texts(found: list[tuple[Fraction, Fraction, str]], expected: list[tuple[int, int, str]]) -> None:
    assert [text for *_times, text in found] == [text for *_frames, text in expected]
    for (start, end, _), (first, last, _) in zip(found, expected, strict=True):
        assert abs(start - Fraction(first, RATE)) < Fraction(1, 2 * RATE)
        assert abs(end - Fraction(last, RATE)) < Fraction(1, 2 * RATE)


def test_captions_stay_and_become_subtitles(
    captioned: Callable[..., Path],
    rendered: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
    triples_of: Callable[[Path], list[tuple[Fraction, bytes]]],
) -> None:
    """H.264 with B-frames: captions are stored in another order than they are shown in, in the output too."""
    source = captioned("a.mp4", all_kinds, *X264)
    result = rendered(source, quality="high", segment_seconds=Fraction(2, 5))
    assert (len(result.segments), result.stream["has_b_frames"]) == (3, 2)
    assert result.finished.warnings == ()
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "mov_text"]
    track = result.all_streams[1]
    assert (track["disposition"]["default"], track["disposition"]["hearing_impaired"]) == (0, 1)
    assert track["tags"]["handler_name"] == "Closed captions"
    check_texts(texts_of(result.output), POP_ON_TEXTS)
    found = triples_of(result.output)
    assert found == [(Fraction(frame, RATE), as_shown(all_kinds(frame))) for frame in range(FRAMES)]
    assert found == triples_of(source)
    assert result.finished.properties.duration_seconds == Fraction(FRAMES, RATE)


@pytest.mark.parametrize(
    ("form", "rate", "segment_seconds"),
    [
        # One segment: ffmpeg 8's filter `movie`, by which the test reads, ends early at later key frames of HEVC.
        (OutputFormat(codec="hevc", container="mkv"), Fraction(24), Fraction(10)),
        (OutputFormat(codec="h264", container="mov"), Fraction(60), Fraction(2, 5)),
    ],
    ids=["HEVC in Matroska", "QuickTime"],
)
def test_captions_at_another_rate(
    form: OutputFormat,
    rate: Fraction,
    segment_seconds: Fraction,
    captioned: Callable[..., Path],
    rendered: Callable[..., Any],
    triples_of: Callable[[Path], list[tuple[Fraction, bytes]]],
) -> None:
    """None is lost or doubled, and each is in the picture nearest to its time."""
    options = {"form": form, "target_fps": rate, "quality": "high"}
    result = rendered(captioned("a.mp4", all_kinds), segment_seconds=segment_seconds, **options)
    assert (result.finished.warnings, len(result.all_streams)) == ((), 2)
    expected: dict[int, bytes] = {}
    for frame in range(FRAMES):
        place = min(ceil(frame * rate / RATE - Fraction(1, 2)), result.plan.frame_count - 1)
        expected[place] = expected.get(place, b"") + as_shown(all_kinds(frame))
    found = triples_of(result.output)
    assert [(round((time - found[0][0]) * rate), triples) for time, triples in found] == list(
        expected.items()
    )


def test_captions_of_a_part(captioned: Callable[..., Path], read_captions: Callable[..., Any]) -> None:
    found = read_captions(captioned("a.mp4", all_kinds), codec="h264", skipped_frames=7)
    assert [(time * RATE, triples) for time, triples in found.triples.read()] == [
        ((frame - 7) * CLOCK, as_shown(all_kinds(frame))) for frame in range(7, FRAMES)
    ]


def test_captions_of_a_dvd(
    clip: Callable[..., Path],
    ffmpeg: Callable[..., bytes],
    read_captions: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
    tmp_path: Path,
) -> None:
    """Those of a whole group of pictures are sent with its first one, more than ffmpeg can count."""
    group = 18
    plain = clip("plain.m2v", *MPEG2[:4], "-g", str(group), frames=2 * group, size="64x36")
    start, *groups = plain.read_bytes().split(cea608.START + b"\xb8")
    at = at_frames({0: [*LOAD, *ROW, *letters("CAFE"), *SHOW], group: ERASE})
    marked, source = tmp_path / "marked.m2v", tmp_path / "a.vob"
    expected = []
    for number, pictures in enumerate(groups):
        pairs = [at.get(number * group + frame, cea608.EMPTY) for frame in range(group)]
        blocks = b"".join(bytes([0xFF, *pair, 0xFE, *cea608.EMPTY]) for pair in pairs)
        data = cea608.START + b"\xb2CC\1\xf8" + bytes([0x80 | group << 1]) + blocks
        start += cea608.START + b"\xb8" + pictures[:4] + data + pictures[4:]
        expected.append(b"".join(bytes([0xFC, *pair, 0xFD, *cea608.EMPTY]) for pair in pairs))
    marked.write_bytes(start)
    ffmpeg("-fflags", "+genpts", "-r", str(RATE), "-i", marked, "-c", "copy", source)
    found = read_captions(source, codec="h264")
    assert [triples for _time, triples in found.triples.read()] == expected
    assert [text for *_times, text in texts_of(found.texts.path)] == ["CAFE"]


def test_captions_of_a_joined_recording(
    captioned: Callable[..., Path],
    rendered: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
    triples_of: Callable[[Path], list[tuple[Fraction, bytes]]],
    tmp_path: Path,
) -> None:
    """The timestamps start again; each text is at its place."""
    part = captioned("part.vob", POP_ON, *MPEG2)
    source = tmp_path / "joined.vob"
    source.write_bytes(part.read_bytes() * 2)
    result = rendered(source)
    assert result.finished.warnings == (RESTARTS_WARNING,)
    again = [(first + FRAMES, last + FRAMES, text) for first, last, text in POP_ON_TEXTS]
    check_texts(texts_of(result.output), [*POP_ON_TEXTS, *again])
    assert [(round(time * RATE), triples) for time, triples in triples_of(result.output)] == [
        (frame, as_shown(POP_ON(frame % FRAMES))) for frame in range(2 * FRAMES)
    ]


# Commands of CC2, of CC3, and a rating as broadcasters send it beside (XDS), which is no caption.
CC2 = fields(at_frames({0: with_parity((0x1C, 0x25), (0x1C, 0x2D), (0x1C, 0x70))}), {})
CC3 = fields({}, at_frames({0: with_parity((0x15, 0x25), (0x15, 0x2D), (0x15, 0x70))}))
RATING = fields({}, at_frames({0: with_parity((0x01, 0x05), (0x48, 0x40), (0x0F, 0x63))}))


def cea_708(_frame: int) -> list[Triple]:
    return [(0xFC, *cea608.EMPTY), (0xFF, 0x02, 0x21), (0xFE, 0x41, 0x00)]


@pytest.mark.parametrize(
    ("name", "captions_of", "codec", "texts", "warnings"),
    [
        ("a.ts", ROLL_UP, H264, ROLL_UP_TEXTS, ()),
        ("a.mp4", POP_ON, HEVC, POP_ON_TEXTS, ()),
        ("a.mkv", fields({}, {}), H264, [], ()),
        ("a.mkv", RATING, H264, [], ()),
        ("a.mkv", CC2, H264, [], (CHANNELS_WARNING,)),
        ("a.mkv", CC3, H264, [], (CHANNELS_WARNING,)),
        ("a.mkv", cea_708, H264, [], (KIND_WARNING,)),
    ],
    ids=["roll-up", "HEVC", "none", "rating", "CC2", "CC3", "CEA-708"],
)
def test_what_is_kept_and_what_is_named(
    name: str,
    captions_of: Callable[[int], list[Triple]],
    codec: tuple[bytes, bytes],
    texts: list[tuple[int, int, str]],
    warnings: tuple[str, ...],
    captioned: Callable[..., Path],
    read_captions: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
) -> None:
    found = read_captions(captioned(name, captions_of, codec=codec))
    assert (found.warnings, found.triples) == (warnings, None)
    assert (found.texts is not None) == bool(texts)
    if found.texts is not None:
        check_texts(texts_of(found.texts.path), texts)


def test_captions_that_cannot_be_read_are_named(
    captioned: Callable[..., Path], read_captions: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = captioned("a.mkv", POP_ON)
    with pytest.raises(FfmpegCancelled):
        read_captions(source, cancelled=lambda: True)
    monkeypatch.setattr(captions, "CAPTIONS_OF_STDIN", "testsrc2")
    found = read_captions(source)
    assert (found.texts, found.warnings) == (None, (UNREADABLE_WARNING,))
