"""Subtitles of MP4 files that were cut without encoding: their edit list begins within a text.

ffmpeg moves such a track to the text's own start, so that all texts come too early. Its times without the edit list,
and the edit list itself (ISO/IEC 14496-12, 8.6.6), say where the texts are.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import FfmpegError
from worker.video.mp4_boxes import TIMESCALE_START, find_boxes, read_bytes

# Of a text that begins before the film does, what is left is shown.
CLIPPED = "setts=ts=max(TS\\,0):duration=if(lt(PTS\\,0)\\,max(DURATION+PTS\\,0)\\,DURATION)"
# Of an edit list: version, flags and the number of edits; one edit by the version.
COUNT_END = 8
EDIT_BYTES = {0: 12, 1: 20}
HANDLER_START = 8
SUBTITLE_HANDLERS = (b"sbtl", b"text")


def subtitle_shifts(path: Path) -> Mapping[int, Fraction]:
    """For each text track that begins within its media, the seconds to add to its times without the edit list, by the
    track's number in the file. Empty for a file that is no MP4, or an unusual one."""
    try:
        with path.open("rb") as file:
            movies = find_boxes(file, 0, path.stat().st_size, b"moov")
            tracks = [track for movie in movies for track in find_boxes(file, *movie, b"trak")]
            shifts = {number: _shift(file, track) for number, track in enumerate(tracks)}
    except (FfmpegError, KeyError, IndexError, StopIteration, ValueError, ZeroDivisionError):
        return {}
    return {number: shift for number, shift in shifts.items() if shift}


def _shift(file: BinaryIO, track: tuple[int, int]) -> Fraction:
    """0 for a track that is read as it is. Raises IndexError, KeyError, StopIteration, ValueError and ZeroDivisionError
    for a file that is not as the standard says."""
    (media,) = find_boxes(file, *track, b"mdia")
    handler = next(find_boxes(file, *media, b"hdlr"))[0]
    lists = [one for edits in find_boxes(file, *track, b"edts") for one in find_boxes(file, *edits, b"elst")]
    if read_bytes(file, handler + HANDLER_START, 4) not in SUBTITLE_HANDLERS or len(lists) != 1:
        return Fraction(0)
    start, _end = lists[0]
    version, count = read_bytes(file, start, 1)[0], int.from_bytes(read_bytes(file, start + 4, 4))
    if count != 1:
        return Fraction(0)
    half = (EDIT_BYTES[version] - 4) // 2
    media_time = int.from_bytes(read_bytes(file, start + COUNT_END + half, half), signed=True)
    header = next(find_boxes(file, *media, b"mdhd"))[0]
    timescale = read_bytes(file, header + TIMESCALE_START[read_bytes(file, header, 1)[0]], 4)
    return -Fraction(max(0, media_time), int.from_bytes(timescale))
