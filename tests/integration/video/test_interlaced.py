"""Interlaced video: each output frame is the picture of one moment, and the same however the video is cut."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from app.platform.media.picture_options import Deinterlace
from app.platform.media.time_range import TimeRange

Luma = NDArray[np.float64]

FILM = Path(__file__).parents[2] / "media" / "bunny-480x270-25fps.mp4"
SIZE = (64, 96)
FIELDS = ("-flags", "+ildct+ilme")
MPEG2 = ("-c:v", "mpeg2video", *FIELDS, "-q:v", "2", "-g", "8", "-bf", "2")
X264 = ("-c:v", "libx264", "-preset", "veryfast", *FIELDS, "-qp", "6", "-g", "8")

# name of the file, which field comes first, and how it is encoded.
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mpeg2-ts-tff": ("a.ts", "tff", MPEG2),
    "h264-mp4-bff": ("a.mp4", "bff", (*X264, "-x264-params", "bff=1")),
    "told-by-container": ("a.mov", "tff", ("-c:v", "v210")),
}


@pytest.fixture(scope="session")
def moments(ffmpeg: Callable[..., bytes]) -> Luma:
    """40 moments of real movement, as taken 50 times a second."""
    raw = ffmpeg("-t", "1.6", "-i", FILM, "-vf", _film(""), "-f", "rawvideo", "pipe:1")
    luma = np.frombuffer(raw, np.uint8).reshape(40, -1)[:, : SIZE[0] * SIZE[1]]
    return luma.reshape(40, *SIZE).astype(np.float64)


def _film(after: str) -> str:
    """Panned over, and softened as cameras do it, which keep detail out that one field cannot show."""
    pan = f"scale=240:136:flags=area,gblur=sigma=1.5,crop={SIZE[1]}:{SIZE[0]}:x=3*n:y=40"
    return f"{pan},settb=1/50,setpts=N,fps=50,format=yuv420p{after}"


@pytest.fixture
def interlaced(tmp_path: Path, ffmpeg: Callable[..., bytes]) -> Callable[..., Path]:
    """20 frames, each of two moments: the first field has the earlier one."""

    def make(name: str, parity: str, *arguments: str) -> Path:
        path = tmp_path / name
        lines = "top" if parity == "tff" else "bottom"
        filters = _film(f",tinterlace=interleave_{lines},fieldorder={parity}")
        chroma = () if "v210" in arguments else ("-pix_fmt", "yuv420p")
        ffmpeg("-t", "1.6", "-i", FILM, "-an", "-vf", filters, *arguments, *chroma, path)
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_is_one_moment(
    kind: str,
    interlaced: Callable[..., Path],
    moments: Luma,
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    name, parity, arguments = KINDS[kind]
    source = interlaced(name, parity, *arguments)
    with capture_logs() as logs:
        result = rendered(source, segment_seconds=Fraction(3, 5))
    assert len(result.segments) >= 2
    assert "segment_decoded_differently" not in {line["event"] for line in logs}

    before, after = decoded(source), decoded(result.output)
    woven, shown = _luma(before), _luma(after, step=4)
    filters = f"bwdif=mode=send_frame:parity={parity}:deint=all"
    single_pass = _luma(decoded(source, filters=filters))
    if kind != "told-by-container":  # of more than 8 bits
        np.testing.assert_array_equal(shown, single_pass)
    # The earlier of each two moments.
    truth = moments[::2]
    assert shown.shape == truth.shape
    assert _psnr(shown, truth) > _psnr(woven, truth) + 10
    assert _combing(woven) > 2 * _combing(truth)
    assert _combing(shown) < 1.2 * _combing(truth)

    assert [at - after.seconds[0] for at in after.seconds] == [
        at - before.seconds[0] for at in before.seconds
    ]
    assert result.stream.get("field_order", "progressive") == "progressive"
    assert [warning for warning in result.finished.warnings if "deinterlaced" in warning]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mpeg2-ts-tff", {}),
        ("h264-mp4-bff", {"part": TimeRange(Fraction("0.1"), Fraction("0.7"))}),
        ("told-by-container", {"target_fps": Fraction(25)}),
    ],
)
def test_each_field_is_one_moment(
    kind: str,
    options: dict[str, Any],
    interlaced: Callable[..., Path],
    moments: Luma,
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    name, parity, arguments = KINDS[kind]
    source = interlaced(name, parity, *arguments)
    with capture_logs() as logs:
        result = rendered(source, segment_seconds=Fraction(3, 10), deinterlace=Deinterlace.FIELD, **options)
    assert len(result.segments) >= 2
    assert "segment_decoded_differently" not in {line["event"] for line in logs}

    after = decoded(result.output)
    shown = _luma(after, step=4)
    single_pass = _luma(decoded(source, filters=f"bwdif=mode=send_field:parity={parity}:deint=all"))
    assert single_pass.shape == moments.shape
    wanted, rate = slice(None), 50
    if "part" in options:
        wanted = slice(5, 35)
    if "target_fps" in options:
        wanted, rate = slice(None, None, 2), 25
    if kind != "told-by-container":  # of more than 8 bits
        np.testing.assert_array_equal(shown, single_pass[wanted])
    assert shown.shape == moments[wanted].shape
    assert _psnr(shown, moments[wanted]) > 30
    assert [at - after.seconds[0] for at in after.seconds] == [Fraction(n, rate) for n in range(len(shown))]
    assert (result.plan.frame_rate, result.plan.source_frame_count) == (rate, 15 if "part" in options else 20)
    assert not result.finished.warnings


def test_fields_of_a_variable_rate(
    interlaced: Callable[..., Path],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    """The second field of a frame is shown halfway to the next one."""
    source = tmp_path / "vfr.mkv"
    times = "setpts='(N*40+mod(N\\,3)*7)/1000/TB'"
    ffmpeg("-i", interlaced("a.ts", "tff", *MPEG2), "-vf", times, "-fps_mode", "passthrough", *X264, source)
    before = decoded(source)
    result = rendered(source, segment_seconds=Fraction(3, 10), deinterlace=Deinterlace.FIELD)
    after = decoded(result.output)

    np.testing.assert_array_equal(
        _luma(after, step=4), _luma(decoded(source, filters="bwdif=mode=send_field:deint=all"))
    )
    firsts = [at - before.seconds[0] for at in before.seconds]
    assert [at - after.seconds[0] for at in after.seconds][::2] == firsts
    between = [(one + other) / 2 for one, other in pairwise(firsts)]
    assert [at - after.seconds[0] for at in after.seconds][1:-1:2] == between


def test_interlaced_frames_may_stay_as_they_are(
    interlaced: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    source = interlaced("a.ts", "tff", *MPEG2)
    result = rendered(source, deinterlace=Deinterlace.OFF)
    np.testing.assert_array_equal(_luma(decoded(result.output), step=4), _luma(decoded(source)))
    assert not result.finished.warnings


def test_frames_that_are_not_marked_are_deinterlaced_on_request(
    interlaced: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    source = interlaced("a.mp4", "tff", "-c:v", "libx264", "-preset", "ultrafast", "-qp", "6")
    woven = _luma(decoded(source))
    for asked, filters in (
        (Deinterlace.AUTO, "null"),
        (Deinterlace.FRAME, "bwdif=mode=send_frame:deint=all"),
        (Deinterlace.FIELD, "bwdif=mode=send_field:deint=all"),
    ):
        result = rendered(source, deinterlace=asked, name=asked)
        expected = woven if asked is Deinterlace.AUTO else _luma(decoded(source, filters=filters))
        np.testing.assert_array_equal(_luma(decoded(result.output), step=4), expected)


def test_frames_that_are_whole_pass_untouched(
    interlaced: Callable[..., Path],
    tmp_path: Path,
    ffmpeg: Callable[..., bytes],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    """A broadcast that changes from one kind to the other."""
    mixed = tmp_path / "mixed.ts"
    whole = tmp_path / "whole.ts"
    ffmpeg(
        "-t",
        "0.4",
        "-i",
        FILM,
        "-an",
        "-vf",
        _film(",setpts=2*N"),
        "-r",
        "25",
        *MPEG2[:2],
        "-q:v",
        "2",
        whole,
    )
    halves = interlaced("halves.ts", "tff", *MPEG2)
    mixed.write_bytes(whole.read_bytes() + halves.read_bytes())
    before = _luma(decoded(mixed))
    shown = _luma(decoded(rendered(mixed).output), step=4)
    np.testing.assert_array_equal(shown[:9], before[:9])
    assert _combing(shown[-15:]) < _combing(before[-15:]) / 2


def _luma(frames: Any, *, step: int = 1) -> Luma:
    planes = [frame[0][::step, ::step] for frame in frames.planes]
    return np.stack(planes).astype(np.float64)


def _psnr(frames: Luma, reference: Luma) -> float:
    """In dB."""
    return float(10 * np.log10(255**2 / np.mean((frames - reference) ** 2)))


def _combing(frames: Luma) -> float:
    """How much lines differ from both neighbours alike."""
    middle = frames[:, 1:-1] - (frames[:, :-2] + frames[:, 2:]) / 2
    return float(np.mean(np.abs(middle)))
