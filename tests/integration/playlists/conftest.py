"""A small film as a worker stores it: files of its segments, and the result that was joined of them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.platform.media.segment_times import SegmentTimes

RATE, LENGTHS = 25, (20, 30, 14)
TICKS = 12_800


@dataclass(frozen=True, kw_only=True)
class Film:
    segments: tuple[Path, ...]
    result: Path
    sound: Path
    times: SegmentTimes


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-threads", "1", *map(str, arguments)], check=True)


def make_film(
    directory: Path, *, codec: tuple[str, ...] = ("-c:v", "libx264", "-bf", "3"), suffix: str = ".mp4"
) -> Film:
    segments, start, ends = [], 0, []
    picture = f"testsrc2=size=96x64:rate={RATE}"
    for number, length in enumerate(LENGTHS):
        path = directory / f"{number}.mp4"
        chosen = f"select=between(n\\,{start}\\,{start + length - 1}),setpts=N/{RATE}/TB"
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            picture,
            "-vf",
            chosen,
            "-frames:v",
            str(length),
            *codec,
            "-video_track_timescale",
            str(TICKS),
            path,
        )
        segments.append(path)
        start += length
        ends.append(start * TICKS // RATE)
    listing = directory / "list.txt"
    listing.write_text("".join(f"file '{path.name}'\n" for path in segments))
    sound, result = directory / "sound.m4a", directory / f"result{suffix}"
    seconds = str(start / RATE)
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"sine=frequency=440:sample_rate=48000:duration={seconds}",
        "-ac",
        "2",
        "-c:a",
        "aac",
        "-movflags",
        "+faststart",
        sound,
    )
    ffmpeg(
        "-f",
        "concat",
        "-i",
        listing,
        "-i",
        sound,
        "-c",
        "copy",
        "-video_track_timescale",
        str(TICKS),
        "-movflags",
        "+faststart",
        result,
    )
    return Film(
        segments=tuple(segments),
        result=result,
        sound=sound,
        times=SegmentTimes(timescale=TICKS, delay=2 * TICKS // RATE, ends=ends),
    )


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    return make_film(tmp_path_factory.mktemp("film"))


def frames(source: str | Path, *options: str, track: str = "v") -> list[list[str]]:
    """Of each frame that ffmpeg decodes: its time in microseconds, and the hash of its bytes."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        *options,
        "-i",
        str(source),
        "-map",
        f"0:{track}",
        "-fps_mode",
        "passthrough",
    ]
    command += ["-enc_time_base", "1/1000000", "-f", "framehash", "-hash", "md5", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.replace(" ", "").split(",") for line in lines if not line.startswith("#")]
    return [[row[2], row[-1]] for row in rows]
