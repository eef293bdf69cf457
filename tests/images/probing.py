"""Prints what the installed server finds out about each file of a directory: python probing.py DIRECTORY

It runs in an image and beside it, so it imports only the server.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.platform.errors import RegenError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.first_frames import probe_first_frames
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings


def findings(directory: Path) -> dict[str, Any]:
    """By file name: what the file holds, or the sentence that refuses it."""
    settings = Settings()
    runner, limits = FfmpegRunner.for_uploads(settings), MediaLimits.from_settings(settings)
    found: dict[str, Any] = {}
    for path in sorted(directory.iterdir()):
        try:
            info = probe_video(runner, path, limits=limits)
            frames = probe_first_frames(runner, path, stream_index=info.video.index)
        except RegenError as error:
            found[path.name] = f"{type(error).__name__}: {error}"
        else:
            # The listing is what these were told from, in ffprobe's own words, with the paths.
            found[path.name] = asdict(replace(info, listing=None)), asdict(frames)
    return found


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)


if __name__ == "__main__":
    json.dump(findings(Path(sys.argv[1])), sys.stdout, default=_plain, indent=1, sort_keys=True)
