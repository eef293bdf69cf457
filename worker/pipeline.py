"""One segment, from the input file to an encoded file: decode, upscale and encode at the same time, no frame on disk.

    decoder (ffmpeg) -> reader thread -> [queue] -> calling thread, upscaling -> [queue] -> writer thread -> encoder

Where output frames lie between source frames, one more thread stands behind the reader and makes them:

    reader thread -> [queue] -> retiming thread -> [queue] -> calling thread

The calling thread starts both ffmpeg processes and outlives them. Queues are bounded, and source frames live in a fixed
set of buffers, so memory does not grow with the segment. The first error of any thread stops all of them, and is the
one that is raised. It knows no database and no task queue.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import FfmpegError, PermanentError, TransientError
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner
from worker.video.decoder import (
    DecodePoint,
    FrameReader,
    WrongFrame,
    decode_points,
    decoding_stream,
    find_decode_point,
)
from worker.video.encoder import Quality, encoding_stream, missing_encoder
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.recheck import compare, read_back, runner_for_output
from worker.video.retime import FramePair, Retimer
from worker.video.watchdog import Abandoned, Handover, Watch, Worker

log = structlog.get_logger(__name__)

Frame: TypeAlias = NDArray[np.uint8]
# A frame of the source's size and how many output frames show it; then the same enlarged.
RepeatedFrame: TypeAlias = tuple[Frame, int]

# Batches of source frames that are decoded ahead of the one being upscaled.
BATCHES_AHEAD = 2
# Of x264, beside a network on the processor. With fewer it could hold up the fastest network where pictures are hard to
# encode; with more it takes more processor time, and interrupts the network more often (bench/RESULTS.md).
NETWORK_THREADS_TO_ENCODER_THREADS = 2
# For retiming: the two source frames that output frames lie between, the one after, and the one being decoded.
FRAMES_TO_RETIME = 4


class FrameUpscaler(Protocol):
    """What enlarges frames. `upscale` takes 1-D uint8 arrays of one source frame each, and gives as many, in the same
    order, of one target frame each; the arrays it was given are written over once it has returned.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def longest_batch_seconds(self) -> float:
        """More than one call can take when all is well: the watchdog is that much more patient."""

    @property
    def processor_threads(self) -> int | None:
        """How many of the processor's threads it keeps busy; None when it computes elsewhere."""

    def upscale(self, frames: Sequence[Frame]) -> list[Frame]: ...


def encoder_threads(upscaler: FrameUpscaler) -> int | None:
    """How many threads x264 gets beside this upscaler; None: as many as it likes."""
    threads = upscaler.processor_threads
    return None if threads is None else -(-threads // NETWORK_THREADS_TO_ENCODER_THREADS)


def run_segment(
    *,
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    render: RenderPlan,
    segment: SegmentPlan,
    upscaler: FrameUpscaler,
    quality: Quality,
    on_frame: Callable[[int], None],
    cancelled: Callable[[], bool],
    stall_seconds: float,
    on_stall: Callable[[], None] | None = None,
) -> None:
    """Make one segment of the output.

    `destination` appears complete and checked, or not at all. `on_frame` gets the number of frames upscaled so far, in
    this thread. `cancelled` is asked several times a second, in another thread; `on_stall`: see Watch.

    Raises PermanentError when the input's frames cannot be read as planned, PipelineStalled when no frame moved for
    `stall_seconds` and the longest batch, Canceled when `cancelled` said so, ConfigurationError when ffmpeg lacks the
    encoder, FfmpegError when ffmpeg fails otherwise, and whatever the upscaler raises.
    """
    part = destination.with_name(f"{destination.name}.part")
    most_done = 0

    def report(done: int) -> None:
        nonlocal most_done
        if done > most_done:
            most_done = done
            on_frame(done)

    def attempt(point: DecodePoint, *, verify: bool) -> None:
        patience_seconds = stall_seconds + upscaler.longest_batch_seconds
        with Watch(cancelled=cancelled, stall_seconds=patience_seconds, on_stall=on_stall) as watch:
            stream = _SegmentRun(
                runner=runner, render=render, segment=segment, upscaler=upscaler, watch=watch, on_frame=report
            )
            stream.run(source, part, point=point, verify=verify, quality=quality)

    try:
        try:
            attempt(decode_points(render, segment)[0], verify=True)
        except WrongFrame as wrong:
            log.warning("segment_decoded_differently", index=segment.index, position=wrong.position)
            with Watch(cancelled=cancelled, stall_seconds=stall_seconds) as watch:
                point, verify = _find_point(runner, source, render, segment, watch)
            log.info("decode_point_found", index=segment.index, point=str(point), verify=verify)
            try:
                attempt(point, verify=verify)
            except WrongFrame as error:
                raise TransientError(
                    "The video was read differently each time it was read.", detail=str(error)
                ) from error
        _check(runner, part, render=render, segment=segment)
        part.replace(destination)
    finally:
        part.unlink(missing_ok=True)


def _find_point(
    runner: FfmpegRunner, source: Path, render: RenderPlan, segment: SegmentPlan, watch: Watch
) -> tuple[DecodePoint, bool]:
    try:
        return find_decode_point(runner, source, render=render, segment=segment, watch=watch)
    except WrongFrame as error:
        watch.check()
        raise PermanentError(
            "The video's frames cannot be read the same way twice; the file is damaged.", detail=str(error)
        ) from error
    except FfmpegError:
        # A process that the watch has killed.
        watch.check()
        raise


def _check(runner: FfmpegRunner, part: Path, *, render: RenderPlan, segment: SegmentPlan) -> None:
    written = read_back(runner_for_output(runner, render.target), part)
    ticks = list(segment.output_ticks())
    fault = compare(written, target=render.target, timescale=render.timescale, ticks=ticks)
    if fault is not None:
        raise TransientError("A part of the video was not encoded as planned.", detail=fault)


class _SegmentRun:
    """One pass over a segment."""

    def __init__(
        self,
        *,
        runner: FfmpegRunner,
        render: RenderPlan,
        segment: SegmentPlan,
        upscaler: FrameUpscaler,
        watch: Watch,
        on_frame: Callable[[int], None],
    ) -> None:
        self._runner = runner
        self._render = render
        self._segment = segment
        self._upscaler = upscaler
        self._watch = watch
        self._on_frame = on_frame
        batch_size = upscaler.batch_size
        self._free: Handover[Frame] = Handover(watch)
        for _ in range((BATCHES_AHEAD + 1) * batch_size):
            self._free.put(np.empty(render.source.frame_bytes, np.uint8))
        self._unused: Handover[Frame] = Handover(watch)
        if segment.between:
            for _ in range(FRAMES_TO_RETIME):
                self._unused.put(np.empty(render.source.frame_bytes, np.uint8))
        # Frames of the source's size are bounded by their buffers. None ends each queue.
        self._to_retime: Handover[RepeatedFrame] = Handover(watch)
        self._decoded: Handover[RepeatedFrame | None] = Handover(watch)
        self._upscaled: Handover[RepeatedFrame | None] = Handover(watch, maxsize=batch_size + 1)

    def run(self, source: Path, part: Path, *, point: DecodePoint, verify: bool, quality: Quality) -> None:
        """Raises the first error of any thread."""
        runner, render, segment, watch = self._runner, self._render, self._segment, self._watch
        encoding = encoding_stream(
            runner,
            part,
            render=render,
            segment=segment,
            quality=quality,
            threads=encoder_threads(self._upscaler),
        )
        decoding = decoding_stream(runner, source, render=render, segment=segment, point=point)
        with (
            runner.start(encoding, purpose="encoding the video", stdin=True, stdout=False) as encoder,
            runner.start(decoding, purpose="reading the video", stdin=False, stdout=True) as decoder,
        ):
            watch.own(encoder)
            watch.own(decoder)
            threads = [Worker(watch, lambda: self._write(encoder), name="segment-writer")]
            if segment.between:
                threads += [
                    Worker(watch, lambda: self._read_all(decoder, verify=verify), name="segment-reader"),
                    Worker(watch, self._retime, name="segment-retimer"),
                ]
            else:
                threads.append(
                    Worker(watch, lambda: self._read(decoder, verify=verify), name="segment-reader")
                )
            for thread in threads:
                thread.start()
            try:
                self._upscale()
            except Abandoned:
                pass  # the watch knows why
            except BaseException as error:
                watch.fail(error)
            for thread in threads:
                thread.join()
        watch.check()

    def _read(self, decoder: FfmpegProcess, *, verify: bool) -> None:
        reader = FrameReader(decoder, self._segment, verify=verify)
        for _ in range(self._segment.source_frames):
            buffer = self._free.get()
            repeats = reader.read_into(buffer)
            self._watch.progress()
            if repeats:
                self._decoded.put((buffer, repeats))
            else:
                self._free.put(buffer)
        reader.finish()
        self._decoded.put(None)

    def _read_all(self, decoder: FfmpegProcess, *, verify: bool) -> None:
        """Hand over every frame, shown or not."""
        reader = FrameReader(decoder, self._segment, verify=verify)
        for _ in range(self._segment.source_frames):
            buffer = self._unused.get()
            self._to_retime.put((buffer, reader.read_into(buffer)))
            self._watch.progress()
        reader.finish()

    def _retime(self) -> None:
        """Each source frame as often as it is shown, and after it what lies between it and the next."""
        retimer = Retimer(self._render.retime, self._render.source)
        before: Frame | None = None
        places: tuple[int, ...] = ()
        for following in self._segment.between:
            after, repeats = self._to_retime.get()
            if before is not None:
                if places:
                    self._fill(retimer.pair(before, after), places)
                self._unused.put(before)
            if repeats:
                buffer = self._free.get()
                buffer[:] = after
                self._decoded.put((buffer, repeats))
            before, places = after, following
        self._decoded.put(None)

    def _fill(self, pair: FramePair, places: Sequence[int]) -> None:
        for place in places:
            buffer = self._free.get()
            pair.frame_at(place, buffer)
            self._watch.progress()
            self._decoded.put((buffer, 1))

    def _upscale(self) -> None:
        done = 0
        ended = False
        while not ended:
            batch: list[RepeatedFrame] = []
            while len(batch) < max(1, self._upscaler.batch_size):
                item = self._decoded.get()
                if item is None:
                    ended = True
                    break
                batch.append(item)
            if not batch:
                break
            results = self._upscaler.upscale([frame for frame, _ in batch])
            self._watch.progress()
            for (buffer, repeats), result in zip(batch, results, strict=True):
                self._free.put(buffer)
                self._upscaled.put((result, repeats))
                done += 1
                self._on_frame(done)
        self._upscaled.put(None)

    def _write(self, encoder: FfmpegProcess) -> None:
        try:
            while (item := self._upscaled.get()) is not None:
                frame, repeats = item
                for _ in range(repeats):
                    encoder.write_all(frame.data)
                    self._watch.progress()
            encoder.close_stdin()
            encoder.wait()
        except FfmpegError as error:
            # An exception raised from itself is its own cause: those who follow the causes never come to an end.
            if (missing := missing_encoder(error, self._render)) is not None:
                raise missing from error
            raise
