"""Fits sound to the video: fills long gaps, and cuts sound that comes long after the video.

ffmpeg fills a gap in one piece, in memory: an hour takes a gigabyte. So a track with long gaps is converted run by run,
each padded with silence as it is written.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from app.platform.errors import Canceled
from app.platform.media.clock import LONG_GAP_SECONDS
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.file_listing import FileListing
from worker.video.tracks import KeptTrack

LINES_PER_CHECK = 1024
PACKETS = (
    "-select_streams",
    "a",
    "-show_entries",
    "packet=stream_index,pts_time,duration_time,pos:packet_side_data=side_data_type",
    "-of",
    "csv=p=0",
)

# ffprobe's name of what comes with the first packet that a new description of a track is for.
NEW_DESCRIPTION = "New Extradata"
SOUND_BEYOND = "Sound that begins more than a minute after the end of the video was left out."

# Start and end in seconds of packets without a long gap between them.
Run: TypeAlias = tuple[float, float]


def read_sound_runs(
    runner: FfmpegRunner,
    path: Path,
    *,
    cancelled: Callable[[], bool],
    on_packet: Callable[[int, int, float], None] = lambda _index, _place, _at: None,
    listing: FileListing | None = None,
) -> tuple[dict[int, list[Run]], Set[int]]:
    """The runs of each sound track, in order, and the tracks that are described anew in their course.

    `listing`: the file's, if there is one.
    `on_packet` gets each packet's stream, its place in the file in bytes, if ffprobe tells it, and its time in seconds.

    Raises Canceled, and what FfmpegProcess.wait raises.
    """
    runs: dict[int, list[Run]] = {}
    described_anew = set()
    packets = runner.scan_lines(path, *PACKETS) if listing is None else listing.sound_packets()
    with closing(packets) as lines:
        for number, line in enumerate(lines):
            if number % LINES_PER_CHECK == 0 and cancelled():
                raise Canceled()
            fields = line.split(",")
            if len(fields) < 3 or fields[1] == "N/A":
                continue
            if NEW_DESCRIPTION in line:
                described_anew.add(int(fields[0]))
            at, lasts = float(fields[1]), 0.0 if fields[2] == "N/A" else float(fields[2])
            if len(fields) > 3 and fields[3].isdecimal():
                on_packet(int(fields[0]), int(fields[3]), at)
            track = runs.setdefault(int(fields[0]), [])
            if track and at - track[-1][1] <= LONG_GAP_SECONDS:
                track[-1] = track[-1][0], max(track[-1][1], at + lasts)
            else:
                track.append((at, at + lasts))
    return runs, described_anew


def fit_to_film(
    tracks: Sequence[KeptTrack], runs: Mapping[int, Sequence[Run]], *, start: float, end: float
) -> tuple[tuple[KeptTrack, ...], tuple[str, ...]]:
    """The tracks without the runs that begin long after the video's end, and warnings.

    `start`, `end`: the time that becomes 0 in the output, and the video's end, in seconds of the input. A
    track with long gaps gets its runs, in seconds of the output; one that loses some is converted.
    """
    fitted, warnings = [], []
    for track in tracks:
        found = runs.get(track.index, ()) if track.kind == "audio" else ()
        kept = [run for run in found if run[0] <= end + LONG_GAP_SECONDS]
        if len(kept) < len(found):
            warnings.append(SOUND_BEYOND)
            if not kept:
                continue
        elif len(kept) < 2:
            fitted.append(track)
            continue
        shifted = tuple((max(0.0, first - start), last - start) for first, last in kept)
        is_copied = track.is_copied and len(kept) == len(found)
        fitted.append(replace(track, is_copied=is_copied, runs=shifted))
    return tuple(fitted), tuple(dict.fromkeys(warnings))
