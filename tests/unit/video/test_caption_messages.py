"""Captions in coded pictures: messages that no byte of theirs breaks, each triple once, in order, at its time."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.errors import FfmpegError
from app.platform.media.containers import VideoCodec
from worker.video.caption_messages import CLOCK, MOST_BYTES, VALID, place, split, with_captions

# Bytes that make starts of units, and others.
BYTES = st.sampled_from([0, 1, 2, 3, 0xFA, 0xFF])
TRIPLES = st.lists(st.tuples(BYTES, BYTES, BYTES).map(bytes), min_size=1, max_size=31).map(b"".join)
# Units before the first slice (delimiter, parameter sets, messages), and slices.
UNITS: dict[VideoCodec, tuple[list[bytes], list[bytes]]] = {
    "h264": ([b"\x09\xf0", b"\x67\x64", b"\x06\x05\x01\x00\x80"], [b"\x65\x88", b"\x41\x9a", b"\x01\x9e"]),
    "hevc": (
        [b"\x46\x01\x50", b"\x40\x01", b"\x4e\x01\x05\x80"],
        [b"\x28\x01\xaf", b"\x02\x01\xd0", b"\x00\x02"],
    ),
}


def _stored(units: Sequence[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(4) + unit for unit in units)


def _units(picture: bytes) -> list[bytes]:
    found = []
    while picture:
        size = int.from_bytes(picture[:4])
        found.append(picture[4 : 4 + size])
        picture = picture[4 + size :]
    return found


def _content(unit: bytes) -> bytes:
    """Without the bytes that keep starts of units out (ITU-T H.264, 7.3.1); none may be missing."""
    content, zeros = bytearray(), 0
    for byte in unit:
        if zeros == 2:
            assert byte >= 3
            if byte == 3:
                zeros = 0
                continue
        content.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    assert zeros == 0
    return bytes(content)


@given(st.sampled_from(["h264", "hevc"]), TRIPLES, st.data())
def test_a_message_holds_every_byte(codec: VideoCodec, triples: bytes, data: st.DataObject) -> None:
    before, slices = (data.draw(st.lists(st.sampled_from(some), max_size=3)) for some in UNITS[codec])
    slices = slices or UNITS[codec][1][:1]
    picture = with_captions(_stored([*before, *slices]), triples, codec=codec)
    units = _units(picture)
    message = units.pop(len(before))
    assert units == [*before, *slices]
    header = b"\x06" if codec == "h264" else bytes([39 << 1, slices[0][1]])
    content = b"\xb5\x00\x31GA94\x03" + bytes([0xC0 | len(triples) // 3, 0xFF]) + triples + b"\xff"
    assert _content(message) == header + bytes([4, len(content)]) + content + b"\x80"


def test_pictures_without_captions_stay_as_they_are() -> None:
    assert with_captions(b"anything", b"", codec="h264") == b"anything"
    with pytest.raises(FfmpegError):
        with_captions(_stored(UNITS["h264"][0]), b"\xfc\x80\x80", codec="h264")


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3 * CLOCK), TRIPLES), max_size=20).map(sorted),
    st.lists(st.integers(0, 3000), min_size=1, max_size=30, unique=True).map(sorted),
)
def test_no_caption_is_lost_or_doubled(captions: list[tuple[int, bytes]], ticks: list[int]) -> None:
    placed = list(place(captions, ticks, timescale=1000))
    assert len(placed) == len(ticks)
    given_triples = b"".join(triples for _time, triples in captions)
    found = b"".join(placed)
    if any(len(triples) > MOST_BYTES for triples in placed[:-1]) or len(found) < len(given_triples):
        # Frames were too few: nothing but what is not valid is left out.
        given_triples, found = (
            b"".join(one for one in split(data) if one[0] & VALID) for data in (given_triples, found)
        )
    assert found == given_triples


@pytest.mark.parametrize(("source", "target"), [(12.5, 60), (60, 24), (30, 24), (25, 50), (25, 25)])
def test_captions_are_at_their_times(source: float, target: int) -> None:
    """Each has the usual number of triples for its rate, 600 a second."""
    count, seconds = round(600 / source), 4
    captions = [
        (round(number * CLOCK / source), bytes([0xFE, number, 0] * count))
        for number in range(round(seconds * source))
    ]
    placed = list(place(captions, range(seconds * target), timescale=target))
    times: dict[int, float] = {}
    for number, triples in enumerate(placed):
        assert len(triples) <= MOST_BYTES
        for _kind, source_frame, _ in split(triples):
            times.setdefault(source_frame, number / target)
    last = seconds - 1 / target
    late = [time - min(frame / source, last) for frame, time in times.items()]
    # Where a frame is full, the next one.
    assert len(late) == len(captions)
    assert -0.5 / target <= min(late) + 0.001
    assert max(late) <= (1.5 if source == 30 else 0.5) / target + 0.001


def test_too_few_frames_for_all_triples() -> None:
    """Those that are not valid give way; if that is not enough, a picture has a second message."""
    unused, caption = b"\xfa\0\0", b"\xfe\1\2"
    captions = [(number * CLOCK // 60, unused * 8 + caption * 2) for number in range(60)]
    placed = list(place(captions, range(5), timescale=5))
    assert b"".join(placed).replace(unused, b"") == caption * 120
    assert max(map(len, placed[:-1])) <= MOST_BYTES
    full = list(place([(0, caption * 31)] * 4, range(2), timescale=5))
    assert list(map(len, full)) == [4 * MOST_BYTES, 0]
    picture = with_captions(_stored([b"\x65\x88"]), full[0], codec="h264")
    assert len(_units(picture)) == 4 + 1
