"""When a video is deinterlaced, and which of its fields comes first."""

from fractions import Fraction
from typing import Any

import pytest

from app.platform.errors import ConfigurationError
from app.platform.media.ffmpeg import Completed, FfmpegRunner
from app.platform.media.picture_options import Deinterlace
from app.platform.media.probe import ColourTags, MediaInfo, VideoStream
from worker.video.deinterlace import Deinterlacing, plan_deinterlacing

LISTED = " TS. bwdif             V->V       Deinterlace.\n TS. yadif             V->V       Deinterlace.\n"
MATCHING = " ... fieldmatch        N->V       Field matching for inverse telecine.\n"


class Listing(FfmpegRunner):
    """ffmpeg with other components."""

    def __init__(self, listed: str = LISTED) -> None:
        self.listed = listed

    def run(self, stream_or_args: Any, **options: Any) -> Completed:
        return Completed(stdout=self.listed.encode(), stderr="")


def video(
    codec: str, field_order: str | None, *, format_name: str, height: int, rotation: int, pix_fmt: str
) -> MediaInfo:
    untagged = ColourTags(primaries=None, transfer=None, matrix=None, range=None, chroma_location=None)
    stream = VideoStream(
        index=0,
        codec=codec,
        width=720,
        height=height,
        coded_width=720,
        coded_height=height,
        rotation=rotation,
        pix_fmt=pix_fmt,
        sample_aspect_ratio=Fraction(1),
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        start_pts=0,
        duration_seconds=Fraction(1),
        frames=25,
        declared_frames=None,
        colour=untagged,
        field_order=field_order,
    )
    return MediaInfo(
        format_name=format_name, start_seconds=Fraction(0), video=stream, others=(), stream_count=1
    )


def plan(
    codec: str,
    field_order: str | None,
    *,
    marked: bool,
    format_name: str = "mov,mp4",
    height: int = 576,
    rotation: int = 0,
    listed: str = LISTED,
    pix_fmt: str = "yuv420p",
    asked: Deinterlace = Deinterlace.AUTO,
) -> tuple[Deinterlacing | None, Any]:
    info = video(
        codec, field_order, format_name=format_name, height=height, rotation=rotation, pix_fmt=pix_fmt
    )
    return plan_deinterlacing(Listing(listed), info, has_interlaced=marked, asked=asked)


@pytest.mark.parametrize(
    ("codec", "field_order", "marked", "chosen"),
    [
        ("h264", "tt", True, "parity=auto:deint=interlaced"),
        ("mpeg4", None, True, "parity=auto:deint=interlaced"),
        # Its first frames are whole; others need not be.
        ("mpeg2video", "tb", False, "parity=auto:deint=interlaced"),
        ("v210", "tb", True, "parity=tff:deint=all"),
        ("rawvideo", "bt", False, "parity=bff:deint=all"),
        ("prores", "bb", False, "parity=bff:deint=all"),
        ("prores", "tb", True, "parity=auto:deint=interlaced"),
    ],
)
def test_what_says_which_field_is_first(
    codec: str, field_order: str | None, marked: bool, chosen: str
) -> None:
    deinterlacing, warnings = plan(codec, field_order, marked=marked)
    assert deinterlacing is not None
    assert deinterlacing.filters(Fraction(1, 25)) == [f"bwdif=mode=send_frame:{chosen}", "settb=1/25"]
    assert len(warnings) == 1


def test_whole_frames_are_left_alone() -> None:
    assert plan("h264", "progressive", marked=False) == (None, [])
    assert plan("rawvideo", None, marked=False) == (None, [])


def test_broadcasts_may_change_without_a_word() -> None:
    deinterlacing, warnings = plan("h264", "progressive", marked=False, format_name="mpegts")
    assert deinterlacing is not None
    assert (deinterlacing.marked_only, warnings) == (True, [])


def test_what_cannot_be_undone_is_told() -> None:
    for codec, height in (("hevc", 576), ("h264", 8)):
        deinterlacing, warnings = plan(codec, "tt", marked=True, height=height)
        assert deinterlacing is None
        assert len(warnings) == 1


def test_it_is_turned_afterwards() -> None:
    deinterlacing, _ = plan("h264", "tt", marked=True, rotation=270)
    assert deinterlacing is not None
    assert deinterlacing.filters(Fraction(1, 25))[-1] == "transpose=cclock"


def test_another_filter_where_the_better_one_lacks() -> None:
    deinterlacing, _ = plan("h264", "tt", marked=True, listed=LISTED.splitlines()[1])
    assert deinterlacing is not None
    assert deinterlacing.filter == "yadif"
    with pytest.raises(ConfigurationError, match="ffmpeg"):
        plan("h264", "tt", marked=True, listed="")


@pytest.mark.parametrize(
    ("codec", "field_order", "marked", "order"),
    [
        ("mpeg2video", "tt", True, "auto"),
        ("v210", "bt", False, "bff"),
        ("hevc", "progressive", False, "auto"),
    ],
)
def test_a_films_fields_are_put_together(codec: str, field_order: str, marked: bool, order: str) -> None:
    deinterlacing, warnings = plan(
        codec, field_order, marked=marked, asked=Deinterlace.DETELECINE, listed=LISTED + MATCHING
    )
    assert deinterlacing is not None
    matching, rest, *_ = deinterlacing.filters(Fraction(1, 25))
    assert matching.startswith(f"fieldmatch=order={order}:")
    assert rest == f"yadif=mode=send_frame:parity={order}:deint=interlaced"
    assert (deinterlacing.film_rate, deinterlacing.pictures_per_frame, warnings) == (25, 1, [])
    # Each of two filters reads the frames before.
    assert deinterlacing.pictures_before == 4


def test_films_of_other_samples() -> None:
    for pix_fmt, is_possible in (
        ("yuv422p10le", True),
        ("gray", False),
        ("gbrp", False),
        ("yuva420p", False),
    ):
        deinterlacing, warnings = plan(
            "ffv1",
            None,
            marked=False,
            pix_fmt=pix_fmt,
            asked=Deinterlace.DETELECINE,
            listed=LISTED + MATCHING,
        )
        assert (deinterlacing is not None) == is_possible
        assert len(warnings) == 1
    for codec, height in (("hevc", 576), ("mpeg2video", 575)):
        deinterlacing, warnings = plan(
            codec, "tt", marked=True, height=height, asked=Deinterlace.DETELECINE, listed=LISTED + MATCHING
        )
        assert deinterlacing is None
        assert len(warnings) == 1


def test_what_puts_films_together_may_lack() -> None:
    for listed in (LISTED, MATCHING):
        with pytest.raises(ConfigurationError, match="fieldmatch"):
            plan("mpeg2video", "tt", marked=True, asked=Deinterlace.DETELECINE, listed=listed)
