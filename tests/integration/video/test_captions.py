"""Closed captions inside the pictures become a subtitle track, with their texts at their times."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.errors import FfmpegCancelled
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
from worker.video.captions import (
    CHANNELS_WARNING,
    KIND_WARNING,
    UNREADABLE_WARNING,
    CaptionKinds,
    write_captions,
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
    """What becomes of a file's captions, without a render."""

    def read(path: Path, cancelled: Callable[[], bool] = lambda: False) -> Any:
        first = probe_first_frames(runner, path, stream_index=0)
        assert any(CLOSED_CAPTIONS in kind.lower() for kind in first.side_data)
        start = Fraction(runner.probe(path, "-show_entries", "format=start_time")["format"]["start_time"])
        render: Any = SimpleNamespace(
            has_captions=True,
            input_start_seconds=start,
            skipped_seconds=Fraction(0),
            stream_index=0,
            offset_ticks=0,
            total_ticks=FRAMES,
            timescale=RATE,
        )
        return write_captions(runner, path, [{"index": 0}], tmp_path, render=render, cancelled=cancelled)

    return read


UNITS = (3_600_000, 60_000, 1000, 1)


def check_texts(found: list[tuple[Fraction, Fraction, str]], expected: list[tuple[int, int, str]]) -> None:
    assert [text for *_times, text in found] == [text for *_frames, text in expected]
    for (start, end, _), (first, last, _) in zip(found, expected, strict=True):
        assert abs(start - Fraction(first, RATE)) < Fraction(1, 2 * RATE)
        assert abs(end - Fraction(last, RATE)) < Fraction(1, 2 * RATE)


def test_captions_become_subtitles(
    captioned: Callable[..., Path],
    rendered: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
) -> None:
    """H.264 with B-frames: captions are stored in another order than they are shown in."""
    result = rendered(captioned("a.mp4", POP_ON, *X264))
    assert result.finished.warnings == ()
    assert [stream["codec_name"] for stream in result.all_streams] == ["h264", "mov_text"]
    track = result.all_streams[1]
    assert (track["disposition"]["default"], track["disposition"]["hearing_impaired"]) == (0, 1)
    assert track["tags"]["handler_name"] == "Closed captions"
    check_texts(texts_of(result.output), POP_ON_TEXTS)
    assert result.finished.properties.duration_seconds == Fraction(FRAMES, RATE)


def test_captions_of_a_joined_recording(
    captioned: Callable[..., Path],
    rendered: Callable[..., Any],
    texts_of: Callable[[Path], list[tuple[Fraction, Fraction, str]]],
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
    found, told = read_captions(captioned(name, captions_of, codec=codec))
    assert told == warnings
    assert (found is not None) == bool(texts)
    if found is not None:
        check_texts(texts_of(found.path), texts)


def test_captions_that_cannot_be_read_are_named(
    captioned: Callable[..., Path], read_captions: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = captioned("a.mkv", POP_ON)
    with pytest.raises(FfmpegCancelled):
        read_captions(source, cancelled=lambda: True)
    monkeypatch.setattr(captions, "CAPTIONS_OF_STDIN", "testsrc2")
    assert read_captions(source) == (None, (UNREADABLE_WARNING,))


@given(st.lists(st.integers(1, 40), max_size=40), st.binary(max_size=200))
def test_kinds_are_found_wherever_pieces_end(sizes: list[int], noise: bytes) -> None:
    for captions_of, expected in (
        (cea_708, (True, False)),
        (CC2, (False, True)),
        (CC3, (False, True)),
        (POP_ON, (False, False)),
    ):
        data = noise.replace(b"GA94", b"") + cea608.message(captions_of(0)) + noise[::-1]
        kinds, rest = CaptionKinds(), data
        for size in [*sizes, len(data)]:
            kinds.feed(rest[:size])
            rest = rest[size:]
        assert (kinds.has_cea_708, kinds.has_other_channels) == expected
