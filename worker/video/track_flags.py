"""Switches subtitle tracks of a written MP4 file off: ffmpeg's muxer switches the first one on if none is the default.

ISO/IEC 14496-12: the lowest bit of a track header's flags says whether the track is enabled.
"""

from collections.abc import Set
from pathlib import Path

from worker.video.mp4_boxes import find_boxes, read_bytes

ENABLED = 1
SUBTITLE_HANDLERS = (b"sbtl", b"text", b"subt")
# Within a track header and a handler box: version (8 bits) and flags (24 bits); the handler's kind after 4 bytes more.
FLAGS_END, HANDLER_START = 4, 8


def switch_off_subtitles(path: Path, numbers: Set[int]) -> None:
    """Switch off the subtitle tracks with these numbers, counted from 0 among the subtitle tracks.

    Raises FfmpegError if the file is not what ffmpeg writes.
    """
    if not numbers:
        return
    with path.open("r+b") as file:
        number = 0
        for movie in find_boxes(file, 0, path.stat().st_size, b"moov"):
            for track in find_boxes(file, *movie, b"trak"):
                headers = [start for start, _ in find_boxes(file, *track, b"tkhd")]
                handlers = [
                    read_bytes(file, start + HANDLER_START, 4)
                    for media in find_boxes(file, *track, b"mdia")
                    for start, _ in find_boxes(file, *media, b"hdlr")
                ]
                if handlers[0] not in SUBTITLE_HANDLERS:
                    continue
                if number in numbers:
                    at = headers[0] + FLAGS_END - 1
                    flags = read_bytes(file, at, 1)[0]
                    file.seek(at)
                    file.write(bytes([flags & ~ENABLED]))
                number += 1
