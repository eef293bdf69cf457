"""Segments that are released while the video is still being read are those that the plan of the whole video has."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.media.info import MediaInfo
from app.platform.media.rates import Retime
from tests.unit.video.test_colour import make_video
from worker.video.colour import plan_colour
from worker.video.deinterlace import Deinterlacing
from worker.video.encoder import MIN_REORDERED_FRAMES
from worker.video.frame_scan import FrameScan
from worker.video.hdr_metadata import SourceMetadata
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.segmenter import EarlyRelease, RenderPlanner, SettledSegments
from worker.video.timeline import SourceTimeline

PROGRESSIVE = SourceMetadata(
    deinterlacing=None,
    is_interlaced=False,
    mastering_display=None,
    content_light=None,
    spatial=None,
    warnings=(),
)


class Releases:
    """What a planner releases. Every `refused`-th offer is not taken."""

    def __init__(self, *, refused: int = 0) -> None:
        self.plans: list[RenderPlan] = []
        self.segments: list[SegmentPlan] = []
        self._refused = refused
        self._offers = 0

    def take(self, settled: SettledSegments) -> bool:
        self._offers += 1
        if self._refused and self._offers % self._refused == 0:
            return False
        self.plans.append(settled.render)
        self.segments += settled.segments
        assert settled.planned_frames == sum(segment.used_frames for segment in self.segments)
        return True


def planner(
    frames: int, release: EarlyRelease, deinterlacing: Deinterlacing | None = None, **options: object
) -> RenderPlanner:
    video = make_video(
        width=64,
        height=36,
        pix_fmt="yuv420p",
        frames=frames,
        frame_rate=Fraction(25),
        time_base=Fraction(1, 100),
    )
    return RenderPlanner(
        info=MediaInfo(
            format_name="mov,mp4", start_seconds=Fraction(0), video=video, others=(), stream_count=1
        ),
        colour=plan_colour(video, scale=4),
        metadata=replace(PROGRESSIVE, deinterlacing=deinterlacing, is_interlaced=deinterlacing is not None),
        continuous=None,
        release=release,
        reorder=None if release.begun is None else release.begun.reorder,
        encoder_rate=None if release.begun is None else release.begun.encoder_rate,
        **options,  # type: ignore[arg-type]
    )


def part(scan: FrameScan, frames: int) -> FrameScan:
    pts = scan.timeline.pts[:frames]
    timeline = replace(scan.timeline, pts=pts, end_pts=pts[-1] + 4)
    return replace(
        scan, timeline=timeline, checksums=scan.checksums[:frames], differences=scan.differences[:frames]
    )


def make_scan(gaps: Sequence[int], keyframes: set[int], checksums: Sequence[int]) -> FrameScan:
    pts = list(accumulate(gaps[:-1], initial=0))
    keys = sorted({0, *(number for number in keyframes if number < len(pts))})
    return FrameScan(
        timeline=SourceTimeline(time_base=Fraction(1, 100), pts=pts, end_pts=pts[-1] + gaps[-1]),
        checksums=checksums[: len(pts)],
        keyframes=[(pts[number], pts[number]) for number in keys],
        is_trusted=True,
        warnings=(),
    )


GAPS = st.one_of(
    st.integers(20, 120).map(lambda count: [4] * count),
    st.lists(st.sampled_from([1, 3, 4, 5, 40, 700]), min_size=20, max_size=120),
)


@settings(max_examples=40, deadline=None)
@given(
    gaps=GAPS,
    keyframes=st.sets(st.integers(1, 119), max_size=12),
    checksums=st.lists(st.integers(0, 3), min_size=120, max_size=120),
    target_fps=st.sampled_from([None, Fraction(2), Fraction(24000, 1001), Fraction(60)]),
    retime=st.sampled_from([Retime.NEAREST, Retime.BLEND]),
    segment_frames=st.integers(1, 30),
    segment_seconds=st.sampled_from([Fraction(1, 5), Fraction(1), Fraction(4)]),
    looks=st.sets(st.integers(1, 119), min_size=1, max_size=6),
    refused=st.sampled_from([0, 2]),
)
def test_what_is_released_is_what_the_whole_plan_has(
    gaps: list[int],
    keyframes: set[int],
    checksums: list[int],
    target_fps: Fraction | None,
    retime: Retime,
    segment_frames: int,
    segment_seconds: Fraction,
    looks: set[int],
    refused: int,
) -> None:
    scan = make_scan(gaps, keyframes, checksums)
    frames = len(scan.timeline.pts)
    options = {
        "target_fps": target_fps,
        "retime": retime,
        "segment_seconds": segment_seconds,
        "segment_max_output_pixels": segment_frames * 64 * 36 * 16,
    }
    released = Releases(refused=refused)
    first = planner(frames, EarlyRelease(take=released.take), **options)
    for look in sorted(look for look in looks if look <= frames):
        first.settle(part(scan, look))
    render, segments = first.plan(scan, ())
    assert segments[: len(released.segments)] == released.segments
    assert sum(segment.output_frames for segment in segments) == render.frame_count
    ends = [segment.start_tick + segment.duration_ticks for segment in segments]
    assert [segment.start_tick for segment in segments] == [0, *ends[:-1]]
    assert ends[-1] == render.total_ticks
    assert {segment.coding_id for segment in segments} == {render.coding_id}
    if render.reorder and len(segments) > 1:
        assert min(segment.output_frames for segment in segments) >= MIN_REORDERED_FRAMES
    if not released.plans:
        return
    # An attempt that begins again, and reads the whole video before it releases anything, plans the same.
    again = planner(frames, EarlyRelease(take=Releases().take, begun=released.plans[0]), **options)
    assert again.plan(scan, ()) == (render, segments)


@settings(max_examples=8, deadline=None)
@given(
    differences=st.lists(st.floats(0, 50), min_size=3, max_size=40),
    target_fps=st.sampled_from([None, Fraction(60)]),
    looks=st.sets(st.integers(1, 1200), min_size=1, max_size=4),
)
def test_of_a_film_what_is_released_stays(
    differences: list[float], target_fps: Fraction | None, looks: set[int]
) -> None:
    frames = 1200
    scan = make_scan([4] * frames, set(range(0, frames, 50)), range(frames))
    scan = replace(scan, differences=[differences[at % len(differences)] for at in range(frames)])
    film = Deinterlacing(
        filter="yadif", parity="auto", marked_only=False, rotation=0, film_rate=Fraction(24000, 1001)
    )
    options = {
        "target_fps": target_fps,
        "retime": Retime.BLEND,
        "segment_seconds": Fraction(1),
        "segment_max_output_pixels": 2**40,
    }
    released = Releases()
    first = planner(frames, EarlyRelease(take=released.take), film, **options)
    for look in sorted(looks):
        first.settle(part(scan, look))
    render, segments = first.plan(scan, ())
    assert segments[: len(released.segments)] == released.segments
    assert released.segments or max(looks) < 900
    assert sum(segment.output_frames for segment in segments) == render.frame_count
    assert render.frame_rate == (target_fps or Fraction(24000, 1001))
    assert render.source_frame_count == frames


def test_frames_that_are_read_otherwise_are_planned_anew() -> None:
    options = {
        "target_fps": None,
        "retime": Retime.NEAREST,
        "segment_seconds": Fraction(1, 5),
        "segment_max_output_pixels": 2**40,
    }
    scan = make_scan([4] * 100, set(), range(100))
    released = Releases()
    one = planner(100, EarlyRelease(take=released.take), **options)
    one.settle(part(scan, 60))
    assert released.segments
    other = replace(scan, checksums=[7, *scan.checksums[1:]])
    _, segments = one.plan(other, ())
    assert segments[0] != released.segments[0]
    assert sum(segment.output_frames for segment in segments) == 100
