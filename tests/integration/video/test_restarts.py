"""Files whose timestamps start again: every frame evenly spaced, every sound beside its picture."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.film import SOUND_RATE, Film
from tests.media.drawing import read_number
from tests.media.encoding import AAC, CLICK_SECONDS, COUNT, RATE, X264, Sound, encode, run
from worker.video.continuous_copy import RESTARTS_WARNING
from worker.video.deinterlace import DEINTERLACED_WARNING
from worker.video.sequence_ends import layer_shape
from worker.video.tracks import SOUND_CHANGES, SOUND_CONVERTED, SOUND_JOINED

MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "8", "-bf", "2")
AC3 = ("-c:a", "ac3")
SECONDS = COUNT / RATE


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport stream of H.264 and AAC."""
    return encode(tmp_path_factory.mktemp("part") / "part.ts")


def joined(path: Path, parts: list[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def shifted(part: Path, seconds: float) -> Path:
    """The part with later timestamps."""
    path = part.with_name(f"{part.stem}-{seconds}{part.suffix}")
    run("-i", part, "-map", "0", "-c", "copy", "-output_ts_offset", str(seconds), path)
    return path


def check(result: Any, *, parts: int) -> None:
    film = Film(result.output)
    assert [read_number(picture) for picture in film.rgb()] == [*range(COUNT)] * parts
    assert film.times == [number / RATE for number in range(parts * COUNT)]
    assert result.finished.properties.duration_seconds == parts * SECONDS
    assert result.info.video.frames == parts * COUNT
    assert abs(result.info.video.duration_seconds - parts * SECONDS) < Fraction(1, 1000)
    assert not [warning for warning in result.finished.warnings if "damaged" in warning]
    sound = np.abs(film.sound(0, start=film.start, seconds=parts * SECONDS))
    for part in range(parts):
        heard = sound[round(part * SECONDS * SOUND_RATE) : round((part + 1) * SECONDS * SOUND_RATE)]
        late = np.flatnonzero(heard > heard.max() / 2).mean() / SOUND_RATE - float(CLICK_SECONDS) - 0.005
        assert abs(late) < 0.011, (part, late)


def test_joined_transport_streams(part: Path, tmp_path: Path, rendered: Callable[..., Any]) -> None:
    result = rendered(joined(tmp_path / "joined.ts", [part] * 3), segment_seconds=Fraction(1))
    check(result, parts=3)
    assert len(result.segments) > 1


@pytest.mark.parametrize(
    "formats",
    [
        ((48_000, 2), (44_100, 2), (48_000, 2)),
        ((44_100, 6), (48_000, 2), (44_100, 1)),
        ((8_000, 1), (48_000, 2), (8_000, 1)),
    ],
    ids=["rate", "channels", "rate that is much higher"],
)
def test_sound_that_changes_where_parts_meet_is_not_late(
    formats: tuple[tuple[int, int], ...], tmp_path: Path, rendered: Callable[..., Any]
) -> None:
    """Each part's sound begins with what its encoder put in front, which lies over the end of the part before."""
    parts = [
        encode(
            tmp_path / f"{number}.ts",
            sounds=[Sound(channels=channels, codec=(*AAC, "-ar:a", str(rate)), language="fra")],
        )
        for number, (rate, channels) in enumerate(formats)
    ]
    result = rendered(joined(tmp_path / "joined.ts", parts))
    check(result, parts=len(parts))
    assert SOUND_CHANGES in result.finished.warnings
    (track,) = (stream for stream in result.all_streams if stream["codec_type"] == "audio")
    assert (track["codec_name"], track["channels"]) == ("aac", max(channels for _, channels in formats))
    assert track["tags"]["language"] == "fra"
    assert track["disposition"]["default"] == 1


@pytest.mark.parametrize(
    ("suffix", "codecs", "starts"),
    [
        # From the second part on an hour later, and a minute earlier.
        (".ts", X264, (60, 3600, 0)),
        # ffmpeg takes the second part for one after a wrap, and would close up the third to it.
        (".ts", X264, (7200, 0, 7300)),
        # The clock has 33 bits and 90,000 ticks a second: it wraps in the midst of the first part.
        (".ts", MPEG2, (95441.9, 70)),
        (".vob", MPEG2, (0, 0)),
    ],
)
def test_other_clocks(
    suffix: str,
    codecs: tuple[str, ...],
    starts: tuple[float, ...],
    tmp_path: Path,
    rendered: Callable[..., Any],
) -> None:
    part = encode(tmp_path / f"part{suffix}", encoder=codecs, sounds=[Sound(codec=AC3)])
    parts = [shifted(part, start) if start else part for start in starts]
    check(rendered(joined(tmp_path / f"joined{suffix}", parts)), parts=len(parts))


def test_sound_that_a_transport_stream_cannot_hold(tmp_path: Path, rendered: Callable[..., Any]) -> None:
    """Titles of a DVD with PCM."""
    sound = Sound(codec=("-c:a", "pcm_dvd"), channels=2)
    part = encode(tmp_path / "part.vob", encoder=MPEG2, sounds=[sound])
    result = rendered(joined(tmp_path / "joined.vob", [part] * 3))
    check(result, parts=3)
    assert result.finished.warnings == (RESTARTS_WARNING, SOUND_CONVERTED, SOUND_JOINED)


def test_converted_sound_follows_small_overlaps(tmp_path: Path, rendered: Callable[..., Any]) -> None:
    """Parts on one clock, of which each ends within a frame of sound."""
    parts = [encode(tmp_path / f"{number}.ts", sounds=[Sound(codec=("-c:a", "mp2"))]) for number in range(4)]
    on_one_clock = [shifted(part, float(10 + number * SECONDS)) for number, part in enumerate(parts)]
    result = rendered(joined(tmp_path / "joined.ts", on_one_clock))
    check(result, parts=4)
    assert result.finished.warnings == (SOUND_CONVERTED,)


def test_a_short_step_forward_is_a_gap_in_the_recording(
    part: Path, tmp_path: Path, rendered: Callable[..., Any]
) -> None:
    result = rendered(joined(tmp_path / "joined.ts", [part, shifted(part, 5)]))
    times = Film(result.output).times
    assert 4 < times[COUNT] < 5
    even = [number / RATE for number in range(COUNT)]
    assert even == times[:COUNT] == [at - times[COUNT] for at in times[COUNT:]]
    assert result.finished.warnings == ()


SIZES = ((96, 64), (64, 64), (48, 32))
FIELDS = ("-flags", "+ildct+ilme")


@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [
        (".ts", X264),
        (".ts", (*X264, *FIELDS)),
        (".vob", (*MPEG2, *FIELDS)),
    ],
)
def test_no_frame_is_lost_where_the_size_changes(
    suffix: str, encoder: tuple[str, ...], tmp_path: Path, rendered: Callable[..., Any]
) -> None:
    """Broadcasts change their size between programmes. What is progressive is not deinterlaced."""
    is_interlaced = FIELDS[0] in encoder
    parts = [
        encode(
            tmp_path / f"{number}{suffix}",
            size=size,
            encoder=encoder,
            sounds=[Sound(codec=AC3)],
            after="setfield=tff" if is_interlaced else "",
        )
        for number, size in enumerate(SIZES)
    ]
    result = rendered(joined(tmp_path / f"joined{suffix}", parts))
    check(result, parts=len(parts))
    assert (DEINTERLACED_WARNING in result.finished.warnings) == is_interlaced


@pytest.mark.parametrize(("b_frames", "segment_seconds"), [(0, Fraction(4)), (2, Fraction(3, 10))])
def test_no_frame_of_mpeg4_is_lost_where_the_size_changes(
    b_frames: int, segment_seconds: Fraction, tmp_path: Path, rendered: Callable[..., Any]
) -> None:
    encoder = ("-c:v", "mpeg4", "-q:v", "2", "-g", "8", "-bf", str(b_frames))
    parts = [
        encode(tmp_path / f"{number}.ts", size=size, encoder=encoder) for number, size in enumerate(SIZES)
    ]
    result = rendered(joined(tmp_path / "joined.ts", parts), segment_seconds=segment_seconds)
    check(result, parts=len(parts))
    assert len(result.segments) > 1 or b_frames == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Version and priority, an aspect ratio of its own, and whether there is delay.
        ("1 0010 001", "0010 0"),
        ("0", "1111 00001011 00001010 1 01 0 0"),
        ("0", "0001 1 01 0 1" + "1" * 79),
    ],
)
@pytest.mark.parametrize("fixed", ["0", "1 " + "0" * 5])
def test_the_size_of_a_video_object_layer(before: str, after: str, fixed: str) -> None:
    bits = f"0 00010001 {before} {after} 00 1 {25:016b} 1 {fixed} 1 {720:013b} 1 {576:013b} 1".replace(
        " ", ""
    )
    header = int(bits.ljust(8 * 24, "0")[: 8 * 24], 2).to_bytes(24, "big")
    match = re.fullmatch(b"(.*)", header, re.DOTALL)
    assert match is not None
    assert layer_shape(match) == f"1{720:013b}1{576:013b}".encode()


def test_no_frame_is_lost_where_the_shape_changes_and_time_goes_on(
    tmp_path: Path, rendered: Callable[..., Any]
) -> None:
    """From 4:3 to 16:9 and to another size, as in broadcasts: the sound is copied."""
    changes = [("", 10), ("setsar=2", 10.64), ("scale=64:32", 11.28)]
    parts = [
        shifted(
            encode(tmp_path / f"{number}.ts", encoder=MPEG2, sounds=[Sound(codec=AC3)], after=after), start
        )
        for number, (after, start) in enumerate(changes)
    ]
    result = rendered(joined(tmp_path / "joined.ts", parts))
    assert Film(result.output).times == [number / RATE for number in range(3 * COUNT)]
    assert result.finished.warnings == ()
    assert result.all_streams[1]["codec_name"] == "ac3"
