"""Renders at another rate whose frames lie between those of the input: times, cuts, and segments made apart."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from worker.video.retime import FramePair, Retimer, is_cut

MEDIA = Path(__file__).parents[2] / "media"
LOSSLESS = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p", "-g", "5", "-an")
WAYS = (Retime.BLEND, Retime.MOTION)


@pytest.fixture(scope="module")
def excerpt(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Callable[..., bytes]) -> Callable[..., Path]:
    """Some frames of one of the real clips, made small."""

    def cut(name: str, *, frames: int, select: str = "1", size: str = "96:64") -> Path:
        path = tmp_path_factory.mktemp("excerpt") / "clip.mp4"
        source = next(MEDIA.glob(f"{name}*.mp4"))
        chain = f"select='{select}',scale={size}:flags=area"
        passed = ("-fps_mode", "passthrough", "-frames:v", str(frames))
        ffmpeg("-i", source, "-vf", chain, *passed, *LOSSLESS, path)
        return path

    return cut


def lumas(frames: Any) -> list[NDArray[Any]]:
    return [planes[0] for planes in frames.planes]


def test_segments_made_apart_equal_a_single_pass(
    excerpt: Callable[..., Path],
    planned: Callable[..., Any],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    # Of five frames two are left out.
    source = excerpt("bunny-240", frames=8, select="gt(mod(n,5),1)", size="64:36")
    options: dict[str, Any] = {"target_fps": Fraction(60000, 1001)}
    whole = rendered(source, name="whole", retime=Retime.MOTION, segment_seconds=Fraction(100), **options)
    pieces = rendered(source, name="pieces", retime=Retime.MOTION, segment_seconds=Fraction(1, 9), **options)
    assert len(whole.segments) == 1
    assert len(pieces.segments) > 3
    # Segments begin between two source frames, too.
    assert any(segment.repeats[0] == 0 and segment.between[0] for segment in pieces.segments)
    assert whole.upscaled == pieces.upscaled == sum(segment.used_frames for segment in pieces.segments)
    frames, others = decoded(whole.output), decoded(pieces.output)
    for planes, same in zip(frames.planes, others.planes, strict=True):
        for plane, other in zip(planes, same, strict=True):
            np.testing.assert_array_equal(plane, other)
    # The times are those that every way has.
    _, plan, (nearest,) = planned(source, **options)
    times = [Fraction(tick, plan.timescale) for tick in nearest.output_ticks()]
    assert frames.seconds == others.seconds == times
    for result in (whole, pieces):
        assert result.finished.properties.duration_seconds == plan.duration_seconds


@pytest.mark.parametrize("way", WAYS)
def test_frames_at_the_inputs_own_times_stay_as_they_are(
    way: Retime, excerpt: Callable[..., Path], rendered: Callable[..., Any], decoded: Callable[..., Any]
) -> None:
    source = excerpt("bunny-480", frames=12)
    result = rendered(source, retime=way, target_fps=Fraction(50))
    small = decoded(result.output, filters="scale=iw/4:ih/4:flags=neighbor")
    original = lumas(decoded(source))
    shown = lumas(small)
    assert len(shown) == 24
    for before, frame in zip(original, shown[::2], strict=True):
        np.testing.assert_array_equal(frame, before)
    # In between they are something else, and after the last frame there is nothing to go to.
    for number in range(10):
        assert not np.array_equal(shown[2 * number + 1], original[number])
    np.testing.assert_array_equal(shown[23], original[11])


def test_an_error_while_retiming_stops_everything(
    excerpt: Callable[..., Path], rendered: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def pair(retimer: Retimer, before: Any, after: Any) -> FramePair:
        nonlocal made
        made += 1
        if made == 2:
            raise MemoryError("no room for the flow")
        return usual(retimer, before, after)

    usual = Retimer.pair
    monkeypatch.setattr(Retimer, "pair", pair)
    with pytest.raises(MemoryError, match="no room for the flow"):
        rendered(excerpt("bunny-240", frames=6), retime=Retime.MOTION, target_fps=Fraction(50))


def test_without_a_rate_retiming_changes_nothing(
    excerpt: Callable[..., Path], planned: Callable[..., Any]
) -> None:
    source = excerpt("bunny-240", frames=5)
    assert planned(source, retime=Retime.MOTION) == planned(source)


@pytest.mark.parametrize("way", WAYS)
def test_no_frame_is_made_of_two_scenes(
    way: Retime,
    excerpt: Callable[..., Path],
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    source = tmp_path / "cut.mp4"
    one, other = excerpt("bunny-240", frames=4), excerpt("webb-320", frames=4)
    ffmpeg("-i", one, "-i", other, "-filter_complex", "[0:v][1:v]concat=n=2:v=1", *LOSSLESS, source)
    result = rendered(source, retime=way, target_fps=Fraction(125))
    shown = lumas(decoded(result.output, filters="scale=iw/4:ih/4:flags=neighbor"))
    original = lumas(decoded(source))
    # Frame 3 is shown from 15 on, frame 4 from 20 on; the cut falls to the nearer.
    for number, expected in [(15, 3), (16, 3), (17, 3), (18, 4), (19, 4), (20, 4)]:
        np.testing.assert_array_equal(shown[number], original[expected])


@pytest.mark.parametrize("name", sorted(path.name for path in MEDIA.glob("*.mp4")))
def test_real_clips_have_no_false_cut(name: str, decoded: Callable[..., Any]) -> None:
    small = "scale=160:-2:flags=area"
    frames = lumas(decoded(MEDIA / name, filters=small))
    for gap in (1, 3):
        cuts = [n for n in range(len(frames) - gap) if is_cut(frames[n], frames[n + gap])]
        assert cuts == []
    # A photographer's flash is no cut.
    for frame, following in zip(frames[::20], frames[1::20], strict=False):
        bright = (40 + following * 0.8).clip(0, 255).astype(np.uint8)
        assert not is_cut(frame, bright)
        assert not is_cut(bright, frame)
