"""Measures VMAF if ffmpeg has it (filter libvmaf, with its built-in models)."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import ffmpeg
import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import ConfigurationError, FfmpegError
from app.platform.media.codecs import LEAST_VMAF_SIDE
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from worker.inference.frames import FrameFormat
from worker.video.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.video.similarity_metrics import Plane  # which imports OpenCV

FILTER = "libvmaf"
LOG_LIMIT_BYTES = 1024 * 1024
PURPOSE = "measuring VMAF"
# Built into libvmaf: for 1080p, seen from three times its height, and for 4K, seen from one and a half.
MODELS = ("vmaf_v0.6.1", "vmaf_4k_v0.6.1")
MOST_PIXELS_OF_HD_MODEL = 2560 * 1440
BEST = 100.0
TRIED_SIDE = 64
# They do not change the figures.
THREADS = 4
NO_VMAF = (
    "This ffmpeg cannot measure VMAF, which `output_quality` vmaf=... needs: it has no filter libvmaf. Set "
    "REGEN_FFMPEG to one that has it, or choose another quality."
)

log = structlog.get_logger(__name__)


def can_measure_vmaf(runner: FfmpegRunner, *, width: int, height: int) -> bool:
    """Whether ffmpeg has VMAF and pictures of that size are large enough for it. Raises FfmpegError."""
    return min(width, height) >= LEAST_VMAF_SIDE and FILTER in runner.components("filters")


def measures_vmaf(runner: FfmpegRunner) -> bool:
    """Whether ffmpeg measures VMAF with each of the models: tried, with one small frame."""
    frame = runner.generated_input(f"testsrc2=size={TRIED_SIDE}x{TRIED_SIDE}:rate=25:duration=0.04")["v:0"]
    try:
        for model in MODELS:
            copies = frame.filter_multi_output("split")
            compared = _compared(copies[0], copies[1], model=model)
            _read_scores(_answer(runner, compared, cancelled=None), frames=1)
    except FfmpegError as error:
        log.info("vmaf_not_measured_here", error=error.message, detail=error.detail)
        return False
    return True


def model_for(pictures: FrameFormat) -> str:
    """The model for pictures of that size: the one for a 4K screen beyond 2560x1440, else the one for 1080p."""
    return MODELS[1] if pictures.width * pictures.height > MOST_PIXELS_OF_HD_MODEL else MODELS[0]


def files_vmaf(
    runner: FfmpegRunner,
    *,
    result: Path,
    reference: Path,
    model: str,
    frames: int,
    cancelled: Callable[[], bool] | None = None,
) -> float:
    """The mean VMAF of the frames of `result`, each compared with the one of `reference` at its place, 0 to 100.

    Both have `frames` frames of one size and pixel format. Raises FfmpegError, also if it gives no such figure,
    ConfigurationError if ffmpeg lacks the filter, FfmpegCancelled once `cancelled` returns True.
    """
    compared = _compared(runner.input(result)["v:0"], runner.input(reference)["v:0"], model=model)
    try:
        answer = _answer(runner, compared, cancelled=cancelled)
    except FfmpegError as error:
        if f"No such filter: '{FILTER}'" in (error.detail or ""):
            raise ConfigurationError(NO_VMAF, detail=error.detail) from error
        raise
    return _read_scores(answer, frames=frames)


def _compared(result: Stream, reference: Stream, *, model: str) -> Stream:
    """Frames are compared in their order, whatever their times, code by code: where tags differ ffmpeg would convert
    one of them."""
    alike = [
        stream.filter("settb", "1/25")
        .filter("setpts", "N")
        .filter("setparams", range="tv", colorspace="bt709")
        for stream in (result, reference)
    ]
    measured = ffmpeg.filter(
        alike,
        FILTER,
        model=f"version={model}",
        n_threads=THREADS,
        log_fmt="json",
        log_path="/dev/stdout",
    )
    return ffmpeg.output(measured, "pipe:1", f="null")


def _answer(runner: FfmpegRunner, compared: Stream, *, cancelled: Callable[[], bool] | None) -> bytes:
    return runner.run(
        compared, purpose=PURPOSE, stdout_limit_bytes=LOG_LIMIT_BYTES, cancelled=cancelled
    ).stdout


def _read_scores(answer: bytes, *, frames: int | None = None) -> float:
    """The mean of libvmaf's log, which tells of `frames` frames. Raises FfmpegError."""
    try:
        told = json.loads(answer)
        mean = float(told["pooled_metrics"]["vmaf"]["mean"])
        if not 0 <= mean <= BEST or frames not in (None, len(told["frames"])):
            raise ValueError(f"a mean of {mean} of {len(told['frames'])} frames")
    except (ValueError, KeyError, TypeError) as error:
        raise FfmpegError(
            "The video program gave an unreadable answer.",
            detail=f"{error}: {answer[:1000].decode(errors='replace')}",
        ) from error
    return mean


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

    def add(self, reference: "Plane", result: "Plane") -> None:
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
        return _read_scores(answer)

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


def _codes(plane: "Plane") -> NDArray[np.uint8]:
    return np.rint(plane).clip(0, 255).astype(np.uint8)
