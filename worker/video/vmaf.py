"""Measures VMAF if ffmpeg has it (filter libvmaf, with its built-in model)."""

import json
from types import TracebackType
from typing import Self

import ffmpeg
import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import FfmpegError
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from worker.video.similarity_metrics import Plane
from worker.video.watchdog import Watchdog

FILTER = "libvmaf"
LISTING_LIMIT_BYTES = 1024 * 1024
# libvmaf refuses smaller pictures, or crashes.
MIN_SIDE = 33
PURPOSE = "measuring VMAF"

log = structlog.get_logger(__name__)


def can_measure_vmaf(runner: FfmpegRunner, *, width: int, height: int) -> bool:
    """Whether ffmpeg has VMAF and pictures of that size are large enough for it. Raises FfmpegError."""
    if min(width, height) < MIN_SIDE:
        return False
    listing = runner.run(["-filters"], purpose="listing its filters", stdout_limit_bytes=LISTING_LIMIT_BYTES)
    return any(FILTER in line.split()[:2] for line in listing.stdout.decode(errors="replace").splitlines())


class VmafMeter:
    """One ffmpeg that compares pairs of planes; a context manager.

    A failure is logged and not raised: `score` returns None then.
    """

    def __init__(self, runner: FfmpegRunner, *, width: int, height: int, watchdog: Watchdog) -> None:
        self._has_failed = False
        self._process = runner.start(
            _stream(runner, width=width, height=height), purpose=PURPOSE, stdin=True, stdout=True
        )
        watchdog.own(self._process)

    def add(self, reference: Plane, result: Plane) -> None:
        if self._has_failed:
            return
        try:
            for plane in (result, reference):
                self._process.write_all(_codes(plane).data)
            # Only luma is measured; the pixel format needs chroma planes.
            gray = np.full(2 * reference.size, 128, np.uint8)
            for _ in range(2):
                self._process.write_all(gray.data)
        except FfmpegError as error:
            self._fail(error)

    def score(self) -> float | None:
        """The mean of all frames, 0 to 100; None after a failure. No planes may be added after this."""
        if self._has_failed:
            return None
        try:
            return self._finish(self._process)
        except FfmpegError as error:
            self._fail(error)
            return None

    def _finish(self, process: FfmpegProcess) -> float:
        process.close_stdin()
        answer = b"".join(iter(lambda: process.stdout.read(64 * 1024), b""))
        process.wait()
        try:
            return float(json.loads(answer)["pooled_metrics"]["vmaf"]["mean"])
        except (ValueError, KeyError, TypeError) as error:
            raise FfmpegError(
                "The video program gave an unreadable answer.", detail=answer[:1000].decode(errors="replace")
            ) from error

    def _fail(self, error: FfmpegError) -> None:
        self._has_failed = True
        log.warning("vmaf_failed", error=error.message, detail=error.detail)

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()


def _stream(runner: FfmpegRunner, *, width: int, height: int) -> Stream:
    """Each frame on stdin is the result above the input, in 4:4:4: not every version of libvmaf takes gray.

    The frame rate has no effect: VMAF is computed per frame.
    """
    pairs = runner.raw_input(width=width, height=2 * height, pix_fmt="yuv444p", frame_rate=25)
    copies = pairs["v:0"].filter_multi_output("split")
    result, reference = (copies[index].filter("crop", width, height, 0, index * height) for index in range(2))
    # The log goes to stdout by name: a file's path could contain characters that filters parse.
    measured = ffmpeg.filter([result, reference], FILTER, log_fmt="json", log_path="/dev/stdout")
    return ffmpeg.output(measured, "pipe:1", f="null")


def _codes(plane: Plane) -> NDArray[np.uint8]:
    return np.rint(plane).clip(0, 255).astype(np.uint8)
