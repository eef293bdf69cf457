"""A segment is decoded from the bytes of a file that its plan names, exactly as from the whole file."""

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from app.platform.media.ffmpeg import FfmpegRunner, RunLimits, find_programs
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.catalog import DEFAULT_ENGINE
from worker.byte_ranges import size_of
from worker.video import input_ranges
from worker.video.decoder import FrameReader, WrongFrame, decode_points, decoding_stream
from worker.video.input_ranges import NOWHERE, InputRanges, PacketPlaces, range_finder
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.segmenter import plan_render

RUNNER = FfmpegRunner(programs=find_programs(), limits=RunLimits(wall_seconds=60, memory_bytes=2**32))
# How a clip of 64 frames with sound, in GOPs of 8 that refer to each other, becomes a file of each kind.
KINDS: dict[str, tuple[str, Sequence[str]]] = {
    "index last": ("mp4", ()),
    "edit list, index first": ("mov", ("-ss", "0.36", "-movflags", "faststart")),
    "indexed fragments": ("mp4", ("-movflags", "dash+global_sidx", "-frag_duration", "320000")),
    "matroska": ("mkv", ()),
    "matroska, index first": ("mkv", ("-reserve_index_space", "2000")),
}
WHOLE_KINDS: dict[str, tuple[str, Sequence[str]]] = {
    "fragments": ("mp4", ("-movflags", "frag_keyframe+empty_moov")),
    "matroska without an index": ("mkv", ("-live", "1")),
    "transport stream": ("ts", ()),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "clip.mp4"
    run(
        *("-f", "lavfi", "-i", "testsrc2=size=64x36:rate=25,noise=alls=30:allf=t"),
        *("-f", "lavfi", "-i", "sine=duration=2.56", "-frames:v", "64", "-pix_fmt", "yuv420p"),
        *("-c:v", "libx264", "-x264-params", "keyint=8:min-keyint=8:bframes=3:open-gop=1:scenecut=0"),
        path,
    )
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with files that are much larger than what they begin with and than gaps between packets."""
    for name, value in (
        ("LEAST_BYTES", 0),
        ("OPENING_BYTES", 25_000),
        ("LEAST_GAP_BYTES", 0),
        ("MOST_SHARE", 1),
    ):
        monkeypatch.setattr(input_ranges, name, value)


def run(*arguments: str | Path) -> None:
    subprocess.run([find_programs().ffmpeg, "-v", "error", "-nostdin", "-y", *arguments], check=True)


def made(clip: Path, kind: tuple[str, Sequence[str]], tmp_path: Path) -> Path:
    suffix, options = kind
    path = tmp_path / f"file.{suffix}"
    seek = options[:2] if "-ss" in options else ()
    run(*seek, "-i", clip, "-c", "copy", *options[len(seek) :], path)
    return path


def places(*starts: int) -> PacketPlaces:
    """Packets of 100 bytes there, one tick apart."""
    packets = PacketPlaces()
    for number, start in enumerate(starts):
        packets.add(number, start=start, size=100)
    return packets


def planned(
    clip: Path, kind: tuple[str, Sequence[str]], tmp_path: Path
) -> tuple[Path, RenderPlan, list[SegmentPlan]]:
    path = made(clip, kind, tmp_path)
    info = probe_video(RUNNER, path, limits=MediaLimits.from_settings(Settings()))
    return path, *plan_render(
        RUNNER,
        path,
        info,
        options=WorkOptions(engine=DEFAULT_ENGINE),
        scale=2,
        segment_seconds=Fraction(8, 25),
        segment_max_output_pixels=10**9,
    )


def read(path: Path, render: RenderPlan, segment: SegmentPlan) -> None:
    """Raises WrongFrame unless every frame is the planned one."""
    stream = decoding_stream(
        RUNNER, path, render=render, segment=segment, point=decode_points(render, segment)[0]
    )
    buffer = np.empty(render.source.frame_bytes, np.uint8)
    with RUNNER.start(stream, purpose="reading", stdin=False, stdout=True) as process:
        reader = FrameReader(process, segment, verify=True)
        for _ in range(segment.source_frames):
            reader.read_into(buffer)
        reader.finish()


def with_ranges(path: Path, wanted: InputRanges) -> Path:
    """A file that has these ranges of the other, and zeros elsewhere."""
    part = path.with_stem("part")
    content = path.read_bytes()
    assert wanted.size_bytes == len(content)
    with part.open("wb") as file:
        file.truncate(wanted.size_bytes)
        for start, stop in wanted.ranges:
            file.seek(start)
            file.write(content[start:stop])
    return part


@pytest.mark.parametrize("kind", KINDS)
def test_the_ranges_of_a_segment_suffice(clip: Path, kind: str, tmp_path: Path) -> None:
    path, render, segments = planned(clip, KINDS[kind], tmp_path)
    middle, last = segments[-3], segments[-1]
    assert len(segments) > 5
    for segment in (middle, last):
        assert segment.input_ranges is not None
        assert SegmentPlan.from_json(segment.to_json()) == segment
        read(with_ranges(path, segment.input_ranges), render, segment)
    assert last.input_ranges is not None
    assert size_of(last.input_ranges.ranges) < 0.6 * path.stat().st_size
    if kind == "index last":
        with pytest.raises(WrongFrame):
            read(with_ranges(path, last.input_ranges), render, middle)


@pytest.mark.parametrize("kind", WHOLE_KINDS)
def test_a_file_that_is_read_in_many_places_is_used_whole(clip: Path, kind: str, tmp_path: Path) -> None:
    path = made(clip, WHOLE_KINDS[kind], tmp_path)
    assert range_finder(path, places(2000)) is None


def test_a_small_file_is_used_whole(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert range_finder(clip, places(2000)) is not None
    assert range_finder(clip, places(2000, NOWHERE)) is None
    monkeypatch.setattr(input_ranges, "LEAST_BYTES", 10**6)
    assert range_finder(clip, places(2000)) is None


def test_ranges_end_where_the_file_is_cut_off(clip: Path) -> None:
    size_bytes = clip.stat().st_size
    finder = range_finder(clip, places(2000, size_bytes - 50))
    assert finder is not None
    wanted = finder.of_segment(keyframe_pts=1, last_pts=1)
    assert wanted is not None
    assert wanted.ranges == ((0, 2000 + input_ranges.OPENING_BYTES), (size_bytes - 50, size_bytes))


def test_a_matroska_file_of_countless_elements_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_ranges, "MOST_BOXES", 1000)
    path = tmp_path / "void.mkv"
    path.write_bytes(input_ranges.MATROSKA_START + b"\x80" + b"\xec\x80" * 2000)
    assert range_finder(path, places(0)) is None


def test_nearly_a_whole_file_is_used_whole(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size_bytes = clip.stat().st_size
    monkeypatch.setattr(input_ranges, "OPENING_BYTES", 0)
    finder = range_finder(clip, places(2000, 3000, size_bytes - 1000))
    assert finder is not None
    wanted = finder.of_segment(keyframe_pts=0, last_pts=0)
    assert wanted == InputRanges(
        size_bytes=size_bytes, ranges=((0, 2100), (3000, 3100), (size_bytes - 1000, size_bytes))
    )
    monkeypatch.setattr(input_ranges, "MOST_SHARE", 3200 / size_bytes)
    assert finder.of_segment(keyframe_pts=0, last_pts=0) is None
    monkeypatch.setattr(input_ranges, "PACKETS_AFTER", 0)
    wanted = finder.of_segment(keyframe_pts=1, last_pts=1)
    assert wanted == InputRanges(
        size_bytes=size_bytes, ranges=((0, 2000), (3000, 3100), (size_bytes - 900, size_bytes))
    )
