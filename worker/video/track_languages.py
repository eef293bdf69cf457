"""Writes the languages of a QuickTime file's tracks: ffmpeg's muxer knows the numbers of Macintosh's languages alone,
and so keeps `ger` and `eng`, but neither `deu` nor `swe`.

QuickTime File Format, "Language Code Values": from 0x400 on, the three letters of ISO 639-2 with five bits each, as in
MP4 (ISO/IEC 14496-12, 8.4.2).
"""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from worker.video.mp4_boxes import find_boxes, read_bytes

# Within a media header, by the header's version.
LANGUAGE_START = {0: 20, 1: 32}


def write_languages(path: Path, languages: Sequence[str]) -> None:
    """Write those of the first tracks, in the order of the tracks. What is no code of three letters is left out.

    Raises FfmpegError if the file is not what ffmpeg writes.
    """
    with path.open("r+b") as file:
        tracks = (
            track
            for movie in find_boxes(file, 0, path.stat().st_size, b"moov")
            for track in find_boxes(file, *movie, b"trak")
        )
        for track, language in zip(islice(tracks, len(languages)), languages, strict=False):
            if not re.fullmatch("[a-z]{3}", language):
                continue
            for media in find_boxes(file, *track, b"mdia"):
                for start, _ in find_boxes(file, *media, b"mdhd"):
                    file.seek(start + LANGUAGE_START[read_bytes(file, start, 1)[0]])
                    file.write(packed(language).to_bytes(2))


def packed(language: str) -> int:
    """The code of three lower-case letters as ISO's boxes hold it: `und` is 0x55c4."""
    first, second, third = (ord(letter) - 0x60 for letter in language)
    return first << 10 | second << 5 | third
