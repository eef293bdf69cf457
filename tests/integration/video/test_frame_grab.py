"""Single frames: whatever the file, the one that is shown at a moment, as a render would take it."""

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from app.platform.errors import Canceled, PermanentError, PipelineStalled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.h273 import ColourPrimaries, MatrixCoefficients, TransferCharacteristics
from app.platform.media.limits import MediaLimits
from app.platform.media.rectangles import Area
from app.platform.settings import Settings
from tests.media.corpus import missing
from tests.media.kinds import KINDS
from worker import pictures
from worker.inference.frames import FrameFormat, Layout
from worker.pictures import cropped, expanded, require_tone_mapping, to_rgb, write_picture
from worker.video import frame_grab
from worker.video.colour import OutputTags
from worker.video.frame_grab import IndexedVideo, index_video, read_frame
from worker.video.frame_scan import FrameScan, scan_frames

LIMITS = MediaLimits.from_settings(Settings())
# Fields, which look at their neighbours; turned; no times of its own.
CORPUS = ("interlaced-bff", "rotated-90", "mpeg4-avi")
BT709 = OutputTags(
    primaries=ColourPrimaries.BT709,
    transfer=TransferCharacteristics.BT709,
    matrix=MatrixCoefficients.BT709,
    range="tv",
)


def indexed(runner: FfmpegRunner, path: Path) -> tuple[IndexedVideo, FrameScan]:
    video = index_video(runner, path, scale=4, limits=LIMITS, cancelled=lambda: False)
    scan = scan_frames(
        runner,
        path,
        video=video.info.video,
        source=video.colour.source,
        decoded_pix_fmts=video.colour.decoded_pix_fmts,
        deinterlacing=video.metadata.deinterlacing,
        expansion=video.colour.expansion,
        cancelled=lambda: False,
    )
    return video, scan


def check_frames(runner: FfmpegRunner, path: Path, *, numbers: tuple[int, ...]) -> None:
    video, scan = indexed(runner, path)
    tick, first = video.info.video.time_base, video.info.video.start_pts
    for number in numbers:
        number %= len(scan.timeline.pts)
        begins = (scan.timeline.pts[number] - first) * tick
        for at_seconds in (begins, begins + tick / 2):
            frame = read_frame(runner, video, at_seconds, cancelled=lambda: False, stall_seconds=60)
            assert zlib.adler32(frame.data, 0) == scan.checksums[number], (path.name, number)
        if number:
            frame = read_frame(runner, video, begins - tick / 2, cancelled=lambda: False, stall_seconds=60)
            assert zlib.adler32(frame.data, 0) == scan.checksums[number - 1], (path.name, number)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_it_is_the_frame_that_a_render_takes(
    runner: FfmpegRunner, clip: Callable[..., Path], suffix: str
) -> None:
    """Far into groups of pictures that refer to later ones, some of them beyond the next keyframe."""
    options = ("-c:v", "libx264", "-g", "25", "-bf", "3", "-x264-params", "open-gop=1", "-pix_fmt", "yuv420p")
    path = clip(f"long.{suffix}", *options, frames=150)
    check_frames(runner, path, numbers=(0, 26, 101))


def test_of_every_kind_of_file(runner: FfmpegRunner, tmp_path: Path) -> None:
    for name in CORPUS:
        if missing(KINDS[name]) is None:
            check_frames(runner, KINDS[name].make(tmp_path / KINDS[name].file_name), numbers=(5,))


def test_after_the_end_it_is_the_last_frame(runner: FfmpegRunner, clip: Callable[..., Path]) -> None:
    video, scan = indexed(runner, clip("short.mp4", frames=10))

    frame = read_frame(runner, video, Fraction(60), cancelled=lambda: False, stall_seconds=60)
    assert zlib.adler32(frame.data, 0) == scan.checksums[-1]


def test_what_cannot_be_decoded_is_said(
    runner: FfmpegRunner, clip: Callable[..., Path], tmp_path: Path
) -> None:
    path = clip("whole.ts", "-c:v", "mpeg2video", frames=10)
    video, _scan = indexed(runner, path)
    broken = tmp_path / "broken.ts"
    broken.write_bytes(b"\x00" * path.stat().st_size)
    video = replace(video, path=broken)

    with pytest.raises(PermanentError, match="No frame"):
        read_frame(runner, video, Fraction(0), cancelled=lambda: False, stall_seconds=60)


def test_it_ends_when_it_is_called_off_or_hangs(
    runner: FfmpegRunner, clip: Callable[..., Path], tmp_path: Path
) -> None:
    video, _scan = indexed(runner, clip("short.mp4", frames=10))
    os.mkfifo(tmp_path / "pipe.mp4")
    video = replace(video, path=tmp_path / "pipe.mp4")

    with pytest.raises(Canceled):
        read_frame(runner, video, Fraction(0), cancelled=lambda: True, stall_seconds=60)
    with pytest.raises(PipelineStalled):
        read_frame(runner, video, Fraction(0), cancelled=lambda: False, stall_seconds=0.3)


def test_a_moment_too_far_behind_the_last_key_frame_is_refused(
    runner: FfmpegRunner, clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoding ends at the bound, all attempts together, and the sentence says what to do."""
    one_group = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "99999", "-sc_threshold", "0")
    video, _scan = indexed(runner, clip("one.mp4", *one_group, frames=250, size="320x240"))
    monkeypatch.setattr(frame_grab, "LONGEST_DECODING_SECONDS", 0.02)

    began = time.monotonic()
    with pytest.raises(PermanentError, match=r"too far behind the last key frame.*Choose an earlier moment"):
        read_frame(runner, video, Fraction(9), cancelled=lambda: False, stall_seconds=60)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("layout", "width", "height"), [("yuv420", 35, 27), ("yuv422", 35, 27), ("gbr", 34, 21), ("gray", 34, 21)]
)
def test_a_part_of_a_frame_has_the_colours_of_the_whole(layout: Layout, width: int, height: int) -> None:
    frame_format = FrameFormat(width=width, height=height, layout=layout, bit_depth=10)
    samples = np.random.default_rng(1).integers(64, 940, frame_format.frame_bytes // 2, dtype="<u2")
    frame = samples.view(np.uint8)
    whole = to_rgb(frame, frame_format, Area(x=0, y=0, width=width, height=height))

    for area in (
        Area(x=7, y=5, width=9, height=11),
        Area(x=0, y=0, width=1, height=1),
        Area(x=20, y=3, width=width - 20, height=height - 3),
    ):
        around = expanded(area, margin=2, frame=frame_format)
        part, part_format = cropped(frame, frame_format, around)
        picture = to_rgb(part, part_format, area.within(around))
        expected = whole[area.y : area.y + area.height, area.x : area.x + area.width]
        assert np.array_equal(picture, expected)


def test_pictures_are_written_as_they_are(
    runner: FfmpegRunner, tmp_path: Path, ffmpeg: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "STRIP_ROWS", 10)
    frame_format = FrameFormat(width=64, height=48, layout="yuv444")
    ramp = [np.linspace(40, 200, 64 * 48).reshape(48, 64), np.full((48, 64), 110), np.full((48, 64), 150)]
    frame = frame_format.join([plane.round() for plane in ramp])
    picture = to_rgb(frame, frame_format, Area(x=0, y=0, width=64, height=48))

    for kind, tolerance in (("png", 0), ("jpg", 4)):
        path = tmp_path / f"picture.{kind}"
        write_picture(runner, picture, path, kind=kind, tags=BT709, sample_aspect_ratio=Fraction(1))  # type: ignore[arg-type]
        raw = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"), np.uint8)
        assert np.abs(raw.reshape(picture.shape).astype(int) - picture).max() <= tolerance
    # BT.709, limited range, of the first pixel (ITU-R BT.709-6).
    luma, blue, red = (40 - 16) / 219, (110 - 128) / 224, (150 - 128) / 224
    expected = [luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue]
    assert np.abs(picture[0, 0] - 255 * np.clip(expected, 0, 1)).max() <= 1


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_tone_mapped(
    runner: FfmpegRunner, tmp_path: Path, ffmpeg: Callable[..., bytes], transfer: str
) -> None:
    """Black stays black, paper white is bright, highlights are brighter still, and greys stay grey."""
    try:
        require_tone_mapping(runner)
    except PermanentError as error:
        pytest.skip(str(error))
    # R'G'B' of 0, 203 and 1000 candelas per square metre (ITU-R BT.2408).
    codes = {"smpte2084": (0.0, 0.58, 0.75), "arib-std-b67": (0.0, 0.75, 1.0)}[transfer]
    picture = np.empty((4, 6, 3), np.uint16)
    for column in range(6):
        picture[:, column] = round(codes[column // 2] * 65535)
    tags = OutputTags(
        primaries=ColourPrimaries.BT2020,
        transfer=TransferCharacteristics(transfer),
        matrix=MatrixCoefficients.BT2020NC,
        range="tv",
    )
    path = tmp_path / "picture.png"
    write_picture(runner, picture, path, kind="png", tags=tags, sample_aspect_ratio=Fraction(1))

    raw = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"), np.uint8)
    shown = raw.reshape(4, 6, 3).astype(int)
    assert np.ptp(shown, axis=2).max() <= 2
    black, white, highlight = shown[0, ::2, 0]
    assert black <= 2
    assert 140 <= white < highlight <= 255
