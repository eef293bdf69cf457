"""The files of the mock's renders and previews: real ones, made once for each input and kept for reuse."""

import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from app.mock.scaler import scale_video, take_picture, take_thumbnail
from app.platform.media.codecs import OutputFormat
from app.platform.media.containers import ISO_SUFFIXES
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.mp4_samples import read_tracks
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rectangles import Area
from app.platform.media.segment_times import SegmentTimes
from app.platform.media.time_range import time_range
from app.platform.storage.contract import Storage
from app.platform.storage.keys import after_key, before_key
from app.previews.service import PreviewJob
from app.renders.tables import Render

MOST_KEPT = 16
ALL_KEY_FRAMES_A_PART = 50
PNG = {"vcodec": "png", "f": "image2pipe"}


class ResultMaker:
    """For use from one thread, which must outlive the programs that it starts."""

    def __init__(self, *, runner: FfmpegRunner, storage: Storage, directory: Path) -> None:
        """`directory` is emptied."""
        self._runner = runner
        self._storage = storage
        self._directory = directory
        self._kept: OrderedDict[str, Path] = OrderedDict()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    def make(self, render: Render, *, cancelled: Callable[[], bool]) -> tuple[Path, Path]:
        """Returns the render's video and thumbnail, on this machine's disk. Raises FfmpegError and StorageError."""
        target_fps = _target_rate(render)
        rate = "own" if target_fps is None else str(target_fps).replace("/", "-")
        name = f"{render.file.sha256}-{rate}-{render.output.width}x{render.output.height}"
        form = form_of(render)
        name += f"-{form.chosen_codec}{form.file.suffix}"
        part = time_range(render.start_seconds, render.end_seconds)
        if part is not None:
            name += f"-{float(part.start)}-{'' if part.end is None else float(part.end)}"
        if name not in self._kept:
            self._kept[name] = self._make(render, self._directory / name, cancelled=cancelled)
            if len(self._kept) > MOST_KEPT:
                shutil.rmtree(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(name)
        return self._kept[name] / f"output{form_of(render).file.suffix}", self._kept[name] / "thumbnail.jpg"

    def store(self, kept: Path, key: str, *, content_type: str) -> None:
        """Raises StorageError."""
        with self._job_directory() as directory:
            # Storing consumes the file; the link shares its bytes with the file that is kept.
            os.link(kept, directory / kept.name)
            self._storage.put_file(key, directory / kept.name, content_type=content_type)

    def make_preview(self, job: PreviewJob, *, cancelled: Callable[[], bool]) -> tuple[str, str]:
        """Stores both pictures and returns their keys, before and after. Raises FfmpegError and StorageError."""
        keys = [
            make_key(job.claim.preview_id, attempt=job.claim.attempt, suffix=".png")
            for make_key in (before_key, after_key)
        ]
        with self._job_directory() as directory:
            source = directory / "input"
            self._storage.fetch(job.input_key, source)
            for key, (columns, rows) in zip(keys, ((1, 1), job.factors), strict=True):
                picture = directory / "picture.png"
                filters = [f"scale={columns}*iw:{rows}*ih:flags=fast_bilinear", "format=rgb24"]
                if job.crop is not None:
                    filters.insert(0, _crop(job.crop))
                take_picture(
                    self._runner,
                    source,
                    picture,
                    frame=0,
                    at_seconds=job.at_seconds,
                    filters=",".join(filters),
                    purpose="making the preview",
                    cancelled=cancelled,
                    options=PNG,
                )
                self._storage.put_file(key, picture, content_type="image/png")
        return keys[0], keys[1]

    def _make(self, render: Render, made: Path, *, cancelled: Callable[[], bool]) -> Path:
        with self._job_directory() as directory:
            source, result = directory / "input", directory / "result"
            self._storage.fetch(render.file.storage_key, source)
            result.mkdir()
            video, picture = result / f"output{form_of(render).file.suffix}", result / "thumbnail.jpg"
            scale_video(
                self._runner,
                source,
                video,
                output=render.output,
                part=time_range(render.start_seconds, render.end_seconds),
                target_fps=_target_rate(render),
                form=form_of(render),
                cancelled=cancelled,
            )
            take_thumbnail(self._runner, video, picture, frames=render.output.frames, cancelled=cancelled)
            return result.replace(made)

    @contextmanager
    def _job_directory(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="job-", dir=self._directory) as name:
            yield Path(name)


def _target_rate(render: Render) -> Fraction | None:
    """The constant rate of the output; None for the input's timestamps."""
    has_own_rate = render.deinterlace in (Deinterlace.FIELD, Deinterlace.DETELECINE)
    return render.output.frame_rate if has_own_rate and render.target_fps is None else render.target_fps


def form_of(render: Render) -> OutputFormat:
    """What was asked of the output's codec and container."""
    return OutputFormat(codec=render.codec, container=render.container)


def playlist_facts(video: Path) -> tuple[SegmentTimes | None, bool]:
    """When the groups of pictures of a result are shown, None if no playlist can hold it; and whether it has sound."""
    if video.suffix not in ISO_SUFFIXES:
        return None, False
    content = video.read_bytes()
    tracks = {
        track.handler: track
        for track in read_tracks(lambda at, count: content[at : None if count is None else at + count])
    }
    track = tracks[b"vide"]
    if track.description[12:16].startswith(b"ap"):  # ProRes
        return None, False
    shown = [time - track.times[0] for time in track.times]
    order = sorted(shown)
    starts = track.sync if track.sync is not None else range(0, len(shown), ALL_KEY_FRAMES_A_PART)
    last_duration = order[-1] - order[-2] if len(order) > 1 else track.timescale
    times = SegmentTimes(
        timescale=track.timescale,
        delay=max(earlier - time for earlier, time in zip(order, shown, strict=True)),
        ends=[*(shown[number] for number in starts[1:]), order[-1] + last_duration],
    )
    return times, b"soun" in tracks


def _crop(area: Area) -> str:
    return f"crop={area.width}:{area.height}:{area.x}:{area.y}:exact=1"
