"""What renders and previews of the mock result in: real files, made once for each input and kept for the next time."""

import hashlib
import os
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.mock.moves import OpenRender
from app.mock.scaler import OutputShape, scale_video, take_picture, take_thumbnail
from app.platform.media.areas import Area
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.storage.contract import Storage
from app.platform.storage.keys import after_key, before_key, output_key, thumbnail_key
from app.previews.service import PreviewJob
from models.catalog import ENGINES

MOST_KEPT = 16
PNG = {"vcodec": "png", "f": "image2pipe"}


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    output_key: str
    thumbnail_key: str


class Results:
    """For one thread, which outlives the programs that it starts."""

    def __init__(
        self, *, runner: FfmpegRunner, storage: Storage, directory: Path, cancelled: Callable[[], bool]
    ) -> None:
        self._runner = runner
        self._storage = storage
        self._directory = directory
        self._cancelled = cancelled
        self._kept: OrderedDict[str, Path] = OrderedDict()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    def make(self, render: OpenRender) -> StoredResult:
        """The output and its thumbnail, in storage. Raises FfmpegError and StorageError."""
        kept = self._made(render)
        stored = StoredResult(
            output_key=output_key(render.id, attempt=1), thumbnail_key=thumbnail_key(render.id, attempt=1)
        )
        self._store(kept / "output.mp4", stored.output_key, "video/mp4")
        self._store(kept / "thumbnail.jpg", stored.thumbnail_key, "image/jpeg")
        return stored

    def make_preview(self, job: PreviewJob) -> tuple[str, str]:
        """The keys of both pictures, before and after. Raises FfmpegError and StorageError."""
        scale = ENGINES[job.engine].scale
        keys = [
            make_key(job.claim.preview_id, attempt=job.claim.attempt, suffix=".png")
            for make_key in (before_key, after_key)
        ]
        with self._job() as directory:
            source = directory / "input"
            self._storage.fetch(job.input_key, source)
            for key, factor in zip(keys, (1, scale), strict=True):
                picture = directory / "picture.png"
                filters = [f"scale={factor}*iw:{factor}*ih:flags=fast_bilinear", "format=rgb24"]
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
                    cancelled=self._cancelled,
                    options=PNG,
                )
                self._storage.put_file(key, picture, content_type="image/png")
        return keys[0], keys[1]

    def _made(self, render: OpenRender) -> Path:
        rate = "own" if render.target_fps is None else str(render.target_fps).replace("/", "-")
        name = f"{render.file_sha256}-{rate}"
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        shape = OutputShape(
            width=render.output.width,
            height=render.output.height,
            frames=render.output.frames,
            target_fps=render.target_fps,
        )
        made = self._directory / name
        with self._job() as directory:
            source = directory / "input"
            self._storage.fetch(render.input_key, source)
            result = directory / "result"
            result.mkdir()
            video, picture = result / "output.mp4", result / "thumbnail.jpg"
            scale_video(self._runner, source, video, shape=shape, cancelled=self._cancelled)
            take_thumbnail(self._runner, video, picture, shape=shape, cancelled=self._cancelled)
            result.replace(made)
        self._kept[name] = made
        if len(self._kept) > MOST_KEPT:
            shutil.rmtree(self._kept.popitem(last=False)[1])
        return made

    def _store(self, kept: Path, key: str, content_type: str) -> None:
        with self._job() as directory:
            # Storing consumes the file; it may share its bytes with the one that is kept.
            os.link(kept, directory / kept.name)
            self._storage.put_file(key, directory / kept.name, content_type=content_type)

    @contextmanager
    def _job(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="job-", dir=self._directory) as name:
            yield Path(name)


def likely_quality(render: OpenRender) -> dict[str, Any]:
    """Figures such as are measured of real outputs, the same for the same input."""
    digest = hashlib.sha256(f"{render.file_sha256}/{render.engine}".encode()).hexdigest()
    chance = random.Random(digest)  # noqa: S311  (it is to repeat)
    return {
        "psnr": round(chance.uniform(34.0, 42.0), 2),
        "ssim": round(chance.uniform(0.95, 0.99), 4),
        "temporalStability": round(chance.uniform(38.0, 46.0), 2),
        "frames": min(render.output.frames, 30),
    }


def _crop(area: Area) -> str:
    return f"crop={area.width}:{area.height}:{area.x}:{area.y}:exact=1"
