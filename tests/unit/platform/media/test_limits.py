"""Limits: exactly at the limit is accepted, one beyond is refused with both numbers in the sentence."""

from dataclasses import replace
from fractions import Fraction

import pytest

from app.platform.errors import LimitExceeded
from app.platform.media.info import ColourTags, MediaInfo, VideoStream
from app.platform.media.limits import MediaLimits, check_input, check_output
from app.platform.settings import Settings

LIMITS = MediaLimits.from_settings(Settings())


def info(
    *,
    width: int = 640,
    height: int = 360,
    frames: int = 100,
    duration_seconds: Fraction = Fraction(4),
    stream_count: int = 2,
) -> MediaInfo:
    video = VideoStream(
        index=0,
        codec="h264",
        width=width,
        height=height,
        coded_width=width,
        coded_height=height,
        rotation=0,
        pix_fmt="yuv420p",
        sample_aspect_ratio=Fraction(1),
        time_base=Fraction(1, 90000),
        frame_rate=frames / duration_seconds,
        start_pts=0,
        duration_seconds=duration_seconds,
        frames=frames,
        declared_frames=None,
        colour=ColourTags(primaries=None, transfer=None, matrix=None, range=None, chroma_location=None),
        field_order=None,
    )
    return MediaInfo(
        format_name="mov", start_seconds=Fraction(0), video=video, others=(), stream_count=stream_count
    )


def test_the_default_limits_are_the_documented_ones() -> None:
    assert LIMITS.max_input_pixels == 4096 * 2304
    assert LIMITS.max_output_pixels == 8192 * 4320
    assert (LIMITS.max_duration_seconds, LIMITS.max_output_frames, LIMITS.max_streams) == (14400, 400_000, 32)


@pytest.mark.parametrize(
    "at_limit",
    [
        info(width=4096, height=2304),
        info(width=2304, height=4096),
        info(duration_seconds=Fraction(14400)),
        info(stream_count=32),
    ],
)
def test_an_input_at_a_limit_is_accepted(at_limit: MediaInfo) -> None:
    check_input(at_limit, LIMITS)


@pytest.mark.parametrize(
    ("beyond", "numbers"),
    [
        (info(width=4097, height=2304), ("4097 x 2304", "9,437,184")),
        (info(duration_seconds=14400 + Fraction(1, 10)), ("14,400.1", "14,400")),
        (info(stream_count=33), ("33", "32")),
        (info(frames=14400 * 120 + 1, duration_seconds=Fraction(14400)), ("1,728,000",)),
    ],
)
def test_an_input_beyond_a_limit_is_refused(beyond: MediaInfo, numbers: tuple[str, ...]) -> None:
    with pytest.raises(LimitExceeded) as refused:
        check_input(beyond, LIMITS)
    assert all(number in refused.value.message for number in numbers)


def test_two_frames_an_hour_apart_at_120_are_too_many() -> None:
    hour = info(frames=2, duration_seconds=Fraction(3601))
    assert hour.video.upscaled(scale=4, target_fps=Fraction(120)).frames == 432_120
    with pytest.raises(LimitExceeded) as refused:
        check_output(hour.video, scale=4, target_fps=Fraction(120), limits=LIMITS)
    assert "432,120" in refused.value.message
    assert "400,000" in refused.value.message
    check_output(hour.video, scale=4, target_fps=None, limits=LIMITS)


def test_many_input_frames_are_fine_when_target_fps_drops_them() -> None:
    long = info(frames=14400 * 30, duration_seconds=Fraction(14400))
    check_input(long, LIMITS)
    check_output(long.video, scale=4, target_fps=Fraction(24), limits=LIMITS)
    with pytest.raises(LimitExceeded, match="432,000"):
        check_output(long.video, scale=4, target_fps=None, limits=LIMITS)


def test_the_output_size_is_limited_and_every_fault_is_named() -> None:
    check_output(info(width=2048, height=1080).video, scale=4, target_fps=None, limits=LIMITS)
    with pytest.raises(LimitExceeded) as refused:
        check_output(
            info(width=2049, height=1080, duration_seconds=Fraction(4000)).video,
            scale=4,
            target_fps=Fraction(120),
            limits=LIMITS,
        )
    assert len(refused.value.messages) == 2
    assert "8196 x 4320" in refused.value.messages[0]
    assert "480,000" in refused.value.messages[1]


def test_a_side_longer_than_encoders_take_is_refused() -> None:
    check_output(info(width=4096, height=16).video, scale=4, target_fps=None, limits=LIMITS)
    with pytest.raises(LimitExceeded, match="16,384"):
        check_output(info(width=16, height=4098).video, scale=4, target_fps=None, limits=LIMITS)


@pytest.mark.parametrize(
    ("duration_seconds", "target_fps", "frames"),
    [
        (Fraction(2), Fraction(25), 50),
        (Fraction(1001, 500), Fraction(30000, 1001), 60),
        (Fraction(1, 2), Fraction(25), 13),  # 12.5
        (Fraction(49, 100), Fraction(25), 12),  # 12.25
        (Fraction(1, 1000), Fraction(1), 1),
    ],
)
def test_output_frames_are_the_duration_at_the_rate(
    duration_seconds: Fraction, target_fps: Fraction, frames: int
) -> None:
    assert (
        info(duration_seconds=duration_seconds).video.upscaled(scale=4, target_fps=target_fps).frames
        == frames
    )


def test_without_a_rate_the_inputs_frames_stay() -> None:
    assert info(frames=77).video.upscaled(scale=4, target_fps=None).frames == 77


def test_more_frames_may_come_in_than_go_out_but_never_fewer() -> None:
    assert LIMITS.max_input_frames == 14400 * 120
    assert replace(LIMITS, max_duration_seconds=1).max_input_frames == 400_000
