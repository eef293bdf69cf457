"""Telecined film: each of its frames exactly once, whole, evenly spaced, and the same however the video is cut."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange
from app.platform.settings import Settings
from worker.steady_window import read_steady_window
from worker.video.frame_grab import IndexedVideo, index_video, read_frame

Luma = NDArray[np.float64]

FILM_RATE = Fraction(24000, 1001)
SIZE = "96x64"
FIELDS = ("-flags", "+ildct+ilme")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-qp", "10", "-g", "24", "-pix_fmt", "yuv420p")
TOP, BOTTOM = (
    f",telecine=pattern=23:first_field={first},setfield={mark}"
    for first, mark in (("top", "tff"), ("bottom", "bff"))
)
# name of the file, how the film is telecined, the frames left out at the start, and how it is encoded.
HARD: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "mpeg2-top-first": ("a.ts", TOP, 0, (*MPEG2, *FIELDS, "-top", "1")),
    "mpeg2-bottom-first": ("a.ts", BOTTOM, 4, (*MPEG2, *FIELDS, "-top", "0")),
    "h264-marked": ("a.mkv", BOTTOM, 1, (*X264, *FIELDS, "-x264-params", "bff=1")),
    "h264-unmarked": ("a.mp4", f"{BOTTOM},setfield=prog", 0, X264),
}


@pytest.fixture
def film(clip: Callable[..., Path]) -> Callable[..., Path]:
    """Numbered frames of a film, and what became of them."""

    def make(name: str, *arguments: str, after: str = "", frames: int = 60) -> Path:
        return clip(name, *arguments, frames=frames, rate=str(FILM_RATE), size=SIZE, after=after)

    return make


@pytest.mark.parametrize(
    "kind",
    [
        "mpeg2-top-first",
        "h264-unmarked",
        pytest.param("mpeg2-bottom-first", marks=pytest.mark.slow),
        pytest.param("h264-marked", marks=pytest.mark.slow),
    ],
)
def test_hard_telecine(
    kind: str,
    film: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    name, telecine, skipped, arguments = HARD[kind]
    cut = f",trim=start_frame={skipped},setpts=PTS-STARTPTS" if skipped else ""
    source = film(name, *arguments, after=telecine + cut)
    result, after = _render(source, rendered, decoded)
    # The frames left out hold a film's frame each, and one its repeat.
    first = {0: 0, 1: 1, 4: 3}[skipped]
    assert after.numbers == list(range(first, 60))
    assert result.plan.source_frame_count == 75 - skipped
    original = decoded(film("film.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p"))
    assert _error(after, original) < 20
    assert _error(decoded(source), original) > 1000

    single_pass = decoded(source, filters="fieldmatch=combmatch=full:mchroma=0,yadif=deint=interlaced")
    matched = dict(zip(single_pass.numbers[::-1], _luma(single_pass)[::-1], strict=True))
    shown = dict(zip(after.numbers, _luma(after, step=4), strict=True))
    repeated = [number for number in shown if single_pass.numbers.count(number) > 1]
    assert len(repeated) < 20
    for number in shown.keys() - set(repeated):
        np.testing.assert_array_equal(shown[number], matched[number])


@pytest.mark.parametrize(
    "name", ["a.vob", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a.ts", "a.mkv"))]
)
def test_soft_telecine(
    name: str,
    film: Callable[..., Path],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    stored = film("stored.m2v", *MPEG2)
    source = tmp_path / name
    _mux(ffmpeg, source, repeating_fields(stored.read_bytes()))
    before = decoded(source)
    assert {round(1000 * (at - earlier)) for earlier, at in pairwise(before.seconds)} >= {33, 50}
    result, after = _render(source, rendered, decoded)
    assert after.numbers == list(range(60))
    assert result.plan.source_frame_count == 60
    np.testing.assert_array_equal(_luma(after, step=4), _luma(before))


def test_a_mixture_stays_in_step_with_the_sound(
    film: Callable[..., Path],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    probed: Callable[..., dict[str, Any]],
) -> None:
    """Hard telecine that is cut off in mid rhythm, soft telecine, hard again, then video of 30 moments a second."""
    hard = (*MPEG2, *FIELDS, "-top", "1")
    broken = film("1.m2v", *hard, after=f"{TOP},trim=end_frame=33", frames=40).read_bytes()
    soft = repeating_fields(film("2.m2v", *MPEG2, frames=24).read_bytes())
    whole = film("3.m2v", *hard, after=TOP, frames=40).read_bytes()
    fields = film(
        "4.m2v", *hard, after=",setpts=N/TB*1001/60000,fps=60000/1001,tinterlace=interleave_top,setfield=tff"
    )
    source = tmp_path / "a.ts"
    _mux(ffmpeg, source, broken + soft + whole + fields.read_bytes(), "-f", "lavfi", "-i", "sine=d=5.6")
    result, after = _render(source, rendered, decoded)
    # 33 frames of 30 a second show 26 or 27 of a film.
    shown = after.numbers[: after.numbers.index(23, 27) + 1]
    assert shown == [*range(26), *range(24)] or shown == [*range(27), *range(24)]
    rest = after.numbers[len(shown) :]
    assert rest[:40] == list(range(40))
    # Every other moment, of which one in five is lost.
    assert all(earlier < later for earlier, later in pairwise(rest[40:]))
    assert len(rest) - 40 == pytest.approx(24, abs=1)
    before, made = (
        [
            float(stream["start_time"]) + float(stream["duration"])
            for stream in probed(path, "-show_entries", "stream=start_time,duration")["streams"]
        ]
        for path in (source, result.output)
    )
    assert made[0] - made[1] == pytest.approx(before[0] - before[1], abs=1 / 24 + 0.005)


@pytest.mark.parametrize("retime", [Retime.BLEND, pytest.param(Retime.NEAREST, marks=pytest.mark.slow)])
def test_with_other_options(
    retime: Retime, film: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    """A part, at another rate, of which every second frame is between two of the film's."""
    source = film("a.ts", *MPEG2, *FIELDS, "-top", "1", after=TOP)
    part = TimeRange(Fraction(1), Fraction(2))
    _, after = _render(
        source, rendered, decoded, rate=2 * FILM_RATE, part=part, target_fps=2 * FILM_RATE, retime=retime
    )
    first = after.numbers[0]
    assert first == pytest.approx(24, abs=1)
    own = after.numbers[::2]
    assert own == list(range(first, first + len(own)))
    assert len(after.numbers) == pytest.approx(48, abs=1)
    luma = _luma(after, step=4)
    if retime is Retime.NEAREST:
        assert after.numbers[1:-1:2] == own[: len(after.numbers[1:-1:2])]
    else:
        middle = (luma[0:-2:2] + luma[2::2]) / 2
        assert np.mean(np.abs(luma[1:-1:2] - middle)) < 1.5


def indexed_film(
    film: Callable[..., Path], runner: FfmpegRunner, decoded: Callable[..., Any]
) -> tuple[Any, IndexedVideo]:
    """The film's frames in one pass of ffmpeg, and the telecined film, indexed for previews."""
    source = film("a.ts", *MPEG2, *FIELDS, "-top", "1", after=TOP)
    single_pass = decoded(source, filters="fieldmatch=combmatch=full:mchroma=0,yadif=deint=interlaced")
    video = index_video(
        runner,
        source,
        scale=4,
        limits=MediaLimits.from_settings(Settings()),
        deinterlace=Deinterlace.DETELECINE,
        cancelled=lambda: False,
    )
    return single_pass, video


def test_a_preview_shows_the_films_frame(
    film: Callable[..., Path], runner: FfmpegRunner, decoded: Callable[..., Any]
) -> None:
    single_pass, video = indexed_film(film, runner, decoded)
    for number in (2, 43):
        at = single_pass.seconds[number] - single_pass.seconds[0]
        frame = read_frame(runner, video, at, cancelled=lambda: False, stall_seconds=30)
        luma = video.colour.source.split(frame)[0]
        np.testing.assert_array_equal(luma, single_pass.planes[number][0])


@pytest.mark.slow
def test_a_steady_preview_averages_the_films_frames(
    film: Callable[..., Path], runner: FfmpegRunner, decoded: Callable[..., Any]
) -> None:
    """Not those of the stream, of which one in five repeats another."""
    single_pass, video = indexed_film(film, runner, decoded)
    for place in (0, *range(40, 45)):
        at = single_pass.seconds[place] - single_pass.seconds[0]
        window = read_steady_window(runner, video, at, strength=1, cancelled=lambda: False, stall_seconds=30)
        assert window is not None
        wanted = single_pass.numbers[place]
        lumas = [video.colour.source.split(one.frame)[0] for one in window.frames]
        assert [one.repeats for one in window.frames] == [int(n == window.place) for n in range(len(lumas))]
        for number, luma in enumerate(lumas, wanted - window.place):
            same = [
                planes[0]
                for planes, other in zip(single_pass.planes, single_pass.numbers, strict=True)
                if other == number
            ]
            assert any(np.array_equal(luma, one) for one in same)
        assert len(lumas) == (5 if place else 3)


def _render(
    source: Path,
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    rate: Fraction = FILM_RATE,
    **options: Any,
) -> tuple[Any, Any]:
    """Rendered in several segments, none of which decodes other frames than were planned."""
    with capture_logs() as logs:
        result = rendered(
            source, segment_seconds=Fraction(3, 5), deinterlace=Deinterlace.DETELECINE, **options
        )
    assert "segment_decoded_differently" not in {line["event"] for line in logs}
    assert len(result.segments) >= 2
    after = decoded(result.output)
    assert [at - after.seconds[0] for at in after.seconds] == [
        number / rate for number in range(result.plan.frame_count)
    ]
    assert result.plan.frame_rate == rate
    return result, after


def _error(frames: Any, original: Any) -> float:
    """The mean square error of the worst frame to the original of its number, after the first frame."""
    step = frames.planes[0][0].shape[0] // original.planes[0][0].shape[0]
    truth = _luma(original)[[min(number, len(original.numbers) - 1) for number in frames.numbers]]
    return float(np.max(np.mean((_luma(frames, step=step) - truth)[1:] ** 2, axis=(1, 2))))


def _luma(frames: Any, *, step: int = 1) -> Luma:
    return np.stack([frame[0][::step, ::step] for frame in frames.planes]).astype(np.float64)


def _mux(ffmpeg: Callable[..., bytes], path: Path, stream: bytes, *sound: str) -> None:
    raw = path.with_suffix(".m2v.raw")
    raw.write_bytes(stream)
    coded = ("-c:v", "copy", *(("-c:a", "mp2") if sound else ()))
    ffmpeg("-fflags", "+genpts", "-f", "mpegvideo", "-i", raw, *sound, *coded, path)


def repeating_fields(stream: bytes) -> bytes:
    """An MPEG-2 stream (ISO/IEC 13818-2) of a film's frames, with the flags that show them for two and three fields of
    60000/1001 a second in turn.
    """
    edited = bytearray(stream)
    rhythm = [(1, 1), (0, 0), (0, 1), (1, 0)]  # top_field_first, repeat_first_field
    before_group = in_group = reference = 0
    at = edited.find(b"\0\0\1")
    while 0 <= at < len(edited) - 8:
        code, body = edited[at + 3], at + 4
        if code == 0xB3:  # sequence header: frame_rate_code
            edited[body + 3] = edited[body + 3] & 0xF0 | 4
        elif code == 0xB8:  # group of pictures
            before_group, in_group = before_group + in_group, 0
        elif code == 0x00:  # picture: temporal_reference
            reference, in_group = edited[body] << 2 | edited[body + 1] >> 6, in_group + 1
        elif code == 0xB5 and edited[body] >> 4 == 1:  # sequence extension: progressive_sequence
            edited[body + 1] &= ~8
        elif code == 0xB5 and edited[body] >> 4 == 8:  # picture coding extension
            top_first, repeats = rhythm[(before_group + reference) % 4]
            edited[body + 3] = edited[body + 3] & 0b0111_1101 | top_first << 7 | repeats << 1 | 1
            edited[body + 4] |= 0x80  # progressive_frame
        at = edited.find(b"\0\0\1", at + 3)
    return bytes(edited)
