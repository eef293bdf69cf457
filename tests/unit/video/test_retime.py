"""Frames between two frames: the codes they have, for every layout and depth, and where what moves is found."""

import json
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from worker.inference.frames import BIT_DEPTHS, FrameFormat, Layout
from worker.video.motion import MAX_FLOW_PIXELS, Motion
from worker.video.plan import SegmentPlan
from worker.video.retime import Retimer, is_cut
from worker.video.timeline import FULL_PHASE

WAYS = (Retime.BLEND, Retime.MOTION)
HALF = FULL_PHASE // 2
FORMATS = [
    FrameFormat(width=37, height=33, layout=layout, bit_depth=depth)
    for layout, depth in [
        *(("yuv420", depth) for depth in BIT_DEPTHS),
        ("gray", 8),
        ("gray", 16),
        ("yuv422", 10),
        ("yuv444", 8),
        ("gbr", 8),
        ("gbr", 12),
    ]
]


def between(
    way: Retime, source: FrameFormat, before: NDArray[np.uint8], after: NDArray[np.uint8], place: int = HALF
) -> NDArray[np.uint8]:
    out = np.empty_like(before)
    Retimer(way, source).pair(before, after).frame_at(place, out)
    return out


def texture(rows: int, columns: int, seed: int = 1) -> NDArray[np.float64]:
    """Smooth detail from 0 to 1."""
    noise = np.random.default_rng(seed).random((rows, columns))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (smooth - smooth.min()) / np.ptp(smooth)


def moved(source: FrameFormat, x: int, y: int, seed: int = 1) -> NDArray[np.uint8]:
    """One textured surface, seen from a place x to the right and y down (even numbers)."""
    planes = []
    for number, (rows, columns) in enumerate(source.plane_shapes):
        factor_x = round(source.width / columns)
        factor_y = round(source.height / rows)
        whole = texture(rows + 32, columns + 32, seed + number)
        left, top = 16 + x // factor_x, 16 + y // factor_y
        planes.append(np.rint(whole[top : top + rows, left : left + columns] * source.max_code))
    return source.join(planes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", FORMATS, ids=lambda source: str(source.pix_fmt))
def test_two_equal_frames_have_the_same_between_them(way: Retime, source: FrameFormat) -> None:
    frame = moved(source, 0, 0)
    for place in (1, 20_000, FULL_PHASE - 1):
        np.testing.assert_array_equal(between(way, source, frame, frame.copy(), place), frame)


@given(
    st.sampled_from(FORMATS),
    st.integers(1, FULL_PHASE - 1),
    st.integers(0, 2**32 - 1),
)
def test_blended_codes_are_the_nearest_to_the_mean(source: FrameFormat, place: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    before = [random.integers(0, source.max_code + 1, shape) for shape in source.plane_shapes]
    # Near enough to be no cut.
    after = [(plane + random.integers(-3, 4, plane.shape)).clip(0, source.max_code) for plane in before]
    mixed = between(Retime.BLEND, source, source.join(before), source.join(after), place)
    for first, last, plane in zip(before, after, source.split(mixed), strict=True):
        exact = (first * (FULL_PHASE - place) + last * place) / FULL_PHASE
        assert np.abs(plane - exact).max() <= 0.5


def test_the_greatest_codes_do_not_overflow() -> None:
    source = FrameFormat(width=32, height=32, layout="gray", bit_depth=16)
    frame = source.join([np.full((32, 32), 65535)])
    for way in WAYS:
        for place in (1, HALF, FULL_PHASE - 1):
            np.testing.assert_array_equal(between(way, source, frame, frame.copy(), place), frame)


@pytest.mark.parametrize(
    ("place", "first", "last", "expected"),
    [(HALF, (-4, 0), (4, 4), (0, 2)), (FULL_PHASE // 4, (-2, 2), (6, 2), (0, 2))],
    ids=["half-way", "a quarter"],
)
@pytest.mark.parametrize("source", FORMATS, ids=lambda source: str(source.pix_fmt))
def test_what_moves_is_found_on_its_way_in_every_plane(
    source: FrameFormat,
    place: int,
    first: tuple[int, int],
    last: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    source = replace(source, width=97, height=81)
    before, after = moved(source, *first), moved(source, *last)
    for plane, right, blended in zip(
        source.split(between(Retime.MOTION, source, before, after, place)),
        source.split(moved(source, *expected)),
        source.split(between(Retime.BLEND, source, before, after, place)),
        strict=True,
    ):
        inner = np.s_[12:-12, 12:-12]
        error = np.abs(plane.astype(float) - right)[inner].mean() / source.max_code
        assert error < 0.01
        assert error * 4 < np.abs(blended.astype(float) - right)[inner].mean() / source.max_code


def test_more_than_eight_bits_are_kept() -> None:
    source = FrameFormat(width=96, height=80, layout="gray", bit_depth=12)
    frame = between(Retime.MOTION, source, moved(source, -2, 0), moved(source, 2, 0))
    error = frame.view("<u2").astype(int) - moved(source, 0, 0).view("<u2")
    # One code of 8 bits is sixteen of these.
    assert np.sqrt((error.reshape(80, 96)[12:-12, 12:-12] ** 2).mean()) < 16


def square(source: FrameFormat, left: int, contrast: int = 60) -> NDArray[np.uint8]:
    """A bright textured square in colour, on a darker ground of which the contrast is given."""
    luma = 40 + contrast * texture(source.height, source.width)
    luma[24:48, left : left + 24] = 150 + 80 * texture(24, 24, seed=5)
    chroma = np.full(source.plane_shapes[1], 128.0)
    chroma[12:24, left // 2 : left // 2 + 12] = 180
    return source.join([np.rint(luma), chroma, 255 - chroma])


def test_a_moving_square_is_half_way_where_blending_shows_it_twice() -> None:
    source = FrameFormat(width=128, height=72)
    before, after = square(source, 40), square(source, 48)
    luma, chroma, _ = source.split(between(Retime.MOTION, source, before, after))
    bright = np.flatnonzero(luma[30:42].mean(axis=0) > 125)
    assert (bright[0], bright[-1]) == (pytest.approx(44, abs=1), pytest.approx(67, abs=1))
    coloured = np.flatnonzero(chroma[14:22].mean(axis=0) > 154)
    assert (coloured[0], coloured[-1]) == (pytest.approx(22, abs=1), pytest.approx(33, abs=1))
    # The ground stands still, code for code.
    standing = np.s_[:, 90:]
    np.testing.assert_array_equal(luma[standing], source.split(before)[0][standing])
    mixed, _, _ = source.split(between(Retime.BLEND, source, before, after))
    profile = mixed[30:42].mean(axis=0)
    # Where one of the two is alone it is half there.
    for edge in (profile[41:47], profile[65:71]):
        assert 100 < edge.mean() < 170


def test_ground_beside_what_moves() -> None:
    source = FrameFormat(width=128, height=72)

    def luma(frame: NDArray[np.uint8]) -> NDArray[np.int64]:
        return source.split(frame)[0].astype(np.int64)

    slow = between(Retime.MOTION, source, square(source, 40, 12), square(source, 48, 12))
    # What the square covers and uncovers is found in the one frame that shows it.
    error = np.abs(luma(slow) - luma(square(source, 44, 12)))[20:52, 30:82]
    assert error.mean() < 0.75
    fast = between(Retime.MOTION, source, square(source, 36, 12), square(source, 52, 12))
    # Motion does not leak into what stands still.
    standing = np.s_[:, 52 + 24 + 8 :]
    np.testing.assert_array_equal(luma(fast)[standing], luma(square(source, 36, 12))[standing])


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 200), (15, 64), (16, 16), (300, 3), (2000, 17)])
@pytest.mark.parametrize("way", WAYS)
def test_sizes_at_which_the_flow_needs_help(way: Retime, size: tuple[int, int]) -> None:
    source = FrameFormat(width=size[0], height=size[1])
    random = np.random.default_rng(3)
    before = random.integers(100, 110, source.frame_bytes, np.uint8)
    after = random.integers(100, 110, source.frame_bytes, np.uint8)
    made = between(way, source, before, after)
    assert made.min() >= 90
    assert made.max() <= 120


def test_large_frames_are_looked_at_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FrameFormat(width=192, height=128)
    assert source.width * source.height < MAX_FLOW_PIXELS
    monkeypatch.setattr("worker.video.motion.MAX_FLOW_PIXELS", 192 * 128 // 4)
    before, after = moved(source, -4, 0), moved(source, 4, 4)
    made, right = (
        source.split(frame)[0].astype(float)
        for frame in (between(Retime.MOTION, source, before, after), moved(source, 0, 2))
    )
    assert np.abs(made - right)[16:-16, 16:-16].mean() < 6


def test_the_number_of_threads_changes_nothing() -> None:
    before, after = (moved(FrameFormat(width=320, height=200, layout="gray"), x, 0) for x in (-6, 4))
    first, last = before.reshape(200, 320), after.reshape(200, 320)
    usual = cv2.getNumThreads()
    made = []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            out = np.empty_like(first)
            Motion(first, last).field_at(0.3).draw(first, last, out, max_code=255)
            made.append(out)
    finally:
        cv2.setNumThreads(usual)
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def _scene(seed: int) -> NDArray[np.uint8]:
    return moved(FrameFormat(width=160, height=96, layout="gray"), 0, 0, seed).reshape(96, 160)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda scene: _scene(9), True),
        (lambda scene: np.full_like(scene, 5), True),
        (lambda scene: scene[:, ::-1], True),
        (lambda scene: np.roll(scene, 12, axis=1), False),
        (lambda scene: (80 + scene * 0.6).astype(np.uint8), False),
        (lambda scene: (scene * 0.4).astype(np.uint8), False),
        (lambda scene: scene ^ 3, False),
    ],
    ids=["another scene", "black", "mirrored", "a fast pan", "a flash", "a shadow", "noise"],
)
def test_cuts(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], expected: bool) -> None:
    scene = _scene(1)
    other = np.ascontiguousarray(change(scene))
    assert is_cut(scene, other) is expected
    assert is_cut(other, scene) is expected


def test_flat_pictures_are_told_apart_by_their_brightness() -> None:
    black, gray, almost = (np.full((40, 60), code, np.uint8) for code in (16, 120, 18))
    assert is_cut(black, gray)
    assert not is_cut(black, almost)


@pytest.mark.parametrize("way", WAYS)
def test_across_a_cut_the_nearer_is_shown_and_the_earlier_of_two_as_near(way: Retime) -> None:
    source = FrameFormat(width=160, height=96, layout="gray")
    before, after = _scene(1).reshape(-1), _scene(9).reshape(-1)
    for place, shown in [(1, before), (HALF, before), (HALF + 1, after), (FULL_PHASE - 1, after)]:
        np.testing.assert_array_equal(between(way, source, before, after, place), shown)


def test_plans_of_before_there_were_places_still_load() -> None:
    segment = SegmentPlan(
        index=0,
        first_frame=0,
        first_pts=0,
        last_pts=2,
        seek_ticks=(),
        repeats=(1, 0, 2),
        checksums=(1, 2, 3),
        start_tick=0,
        runs=((3, 1),),
    )
    fields = json.loads(segment.to_json())
    del fields["between"]
    assert SegmentPlan.from_json(json.dumps(fields)) == segment
    assert (segment.used_frames, segment.output_frames) == (2, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("layout", "depth"), [("yuv420", 8), ("yuv422", 10), ("yuv444", 12), ("gbr", 8), ("gbr", 16)]
)
def test_what_is_transparent_gives_no_colour(way: Retime, layout: Layout, depth: int) -> None:
    """A disc of one colour that moves and fades, over invisible pixels of another: between them it is of its colour."""
    source = FrameFormat(width=64, height=48, layout=layout, bit_depth=depth, has_alpha=True)
    top = source.max_code
    colours = [0.7 * top, 0.3 * top, 0.6 * top]
    across, down = np.meshgrid(np.arange(64), np.arange(48))

    def frame(x: int, opacity: float) -> NDArray[np.uint8]:
        inside = np.hypot(across - x, down - 24) < 12
        planes = []
        for (rows, columns), colour in zip(source.plane_shapes, [*colours, opacity * top], strict=True):
            # Chroma of half the size is of the disc wherever a pixel of it is.
            covered = inside.reshape(rows, 48 // rows, columns, 64 // columns).any(axis=(1, 3))
            planes.append(np.where(covered, np.rint(colour), 0))
        return source.join(planes)

    made = source.split(between(way, source, frame(24, 1), frame(34, 0.5)))
    alpha = made[3] / top
    assert 0.7 < alpha[24, 29] < 0.8
    assert alpha[2, 2] == 0
    for plane, colour in zip(made[:3], colours, strict=True):
        down_step, across_step = 48 // plane.shape[0], 64 // plane.shape[1]
        shown = alpha.reshape(plane.shape[0], down_step, plane.shape[1], across_step).min(axis=(1, 3)) > 0.05
        assert shown.sum() > 50
        assert np.abs(plane[shown].astype(float) - colour).max() <= 0.012 * top
