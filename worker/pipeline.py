"""Renders one segment, from the input file to an encoded file: decodes, upscales and encodes concurrently.

    decoder (ffmpeg) -> source frames -> [queue] -> calling thread, upscaling -> [queue] -> writer thread -> encoder

`worker.source_frames` has the threads before the calling one.

The calling thread starts both ffmpeg processes and outlives them. Queues are bounded, so that memory does not grow
with the segment. The first error of any thread stops all of them and is raised. The module depends on no database and
no task queue.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import structlog

from app.platform.errors import FfmpegError, PermanentError, TransientError
from app.platform.media.codecs import Quality, VmafTarget
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from app.platform.progress import current_progress
from worker.device_turns import AtOnce, ComputingTurn
from worker.inference.aligned_frames import AlignedFrame, AveragingObserver
from worker.inference.frames import Frame
from worker.source_frames import RepeatedFrame, SourceFrames
from worker.video.decoder import (
    DecodePoint,
    WrongFrame,
    decode_points,
    decoding_stream,
    discarded_frames,
    find_decode_point,
)
from worker.video.encoder import encoding_stream, missing_encoder
from worker.video.plan import MOST_DISCARDED_FRAMES, RenderPlan, SegmentPlan
from worker.video.target_encoding import EncodedSegment, TargetEncoding
from worker.video.timestamp_check import check_segment
from worker.video.watchdog import PipelineQueue, PipelineStopped, PipelineThread, Watchdog

if TYPE_CHECKING:
    from worker.video.filter_effect import FilteredPair, FilterMeter

log = structlog.get_logger(__name__)

# x264's threads beside a network on the processor. Fewer could delay the fastest network if pictures are hard to
# encode; more take processor time and interrupt the network more often (bench/RESULTS.md).
NETWORK_THREADS_TO_ENCODER_THREADS = 2
# Upper bound, of 10-bit 4K on one busy core: nothing moves in the pipeline until the first frame is decoded.
SECONDS_PER_DISCARDED_FRAME = 0.2


class FrameUpscaler(Protocol):
    """Upscales frames. `upscale` takes 1-D uint8 arrays of one source frame each and returns as many, in the same
    order, of one target frame each; its arguments are overwritten once it has returned.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def longest_batch_seconds(self) -> float:
        """Upper bound of a regular call; it extends the watchdog's stall time."""

    @property
    def processor_threads(self) -> int | None:
        """How many processor threads it uses; None if it computes on another device."""

    def upscale(self, frames: Sequence[Frame]) -> list[Frame]: ...


class StabilisedRun(Protocol):
    """Upscales consecutive frames; the arguments of `upscale` are overwritten once it has returned."""

    def upscale(self, frames: Sequence[AlignedFrame]) -> list[RepeatedFrame]:
        """The results that are complete by now, in order, of frames that are shown."""

    def finish(self) -> list[RepeatedFrame]:
        """Those that remain after the last frame."""


@runtime_checkable
class StabilisingUpscaler(FrameUpscaler, Protocol):
    """What renders with `stabilise` need."""

    def stabilised(self, observer: AveragingObserver | None = None) -> StabilisedRun:
        """What upscales the frames of one segment in order, each averaged with those around it."""


def encoder_threads(upscaler: FrameUpscaler) -> int | None:
    """How many threads x264 gets beside this upscaler; None for x264's default."""
    threads = upscaler.processor_threads
    return None if threads is None else -(-threads // NETWORK_THREADS_TO_ENCODER_THREADS)


def run_segment(  # noqa: PLR0913 - all that one segment is made from, and what watches it
    *,
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    render: RenderPlan,
    segment: SegmentPlan,
    upscaler: FrameUpscaler,
    quality: Quality | VmafTarget,
    on_frame: Callable[[int], None],
    cancelled: Callable[[], bool],
    stall_seconds: float,
    on_stall: Callable[[], None] | None = None,
    turn: ComputingTurn | None = None,
    is_whole: bool = True,
    measures_filter: bool = False,
) -> EncodedSegment:
    """Render one segment of the output. Decoding begins at once, upscaling when it is the segment's `turn`. With a
    target of VMAF the encoder's quality is searched for after that turn.

    `destination` appears complete and verified, or not at all. `on_frame` gets the number of frames upscaled so far, in
    this thread. `cancelled` is polled several times a second, in another thread; `on_stall`: see Watchdog.

    Without `is_whole`, `source` may lack bytes: raises WrongFrame if it does not deliver the planned frames at once.
    Raises PermanentError if the input's frames cannot be decoded as planned, PipelineStalled if no frame moved for
    `stall_seconds` plus the longest batch and the decoding before the first frame, Canceled once `cancelled` returned
    True, ConfigurationError if ffmpeg lacks the encoder, FfmpegError if ffmpeg fails otherwise, and what the upscaler
    raises.
    """
    part = destination.with_name(f"{destination.name}.part")
    runner = _runner_for(runner, render, segment, stall_seconds=stall_seconds)
    most_done = 0

    def report(done: int) -> None:
        nonlocal most_done
        if done > most_done:
            most_done = done
            on_frame(done)

    def attempt(point: DecodePoint, *, verify: bool) -> Sequence["FilteredPair"]:
        discarding_seconds = discarded_frames(segment, point) * SECONDS_PER_DISCARDED_FRAME
        stall_timeout_seconds = stall_seconds + upscaler.longest_batch_seconds
        with (
            current_progress().allowing(upscaler.longest_batch_seconds),
            Watchdog(
                cancelled=cancelled,
                stall_seconds=stall_timeout_seconds,
                on_stall=on_stall,
                first_seconds=discarding_seconds,
            ) as watchdog,
        ):
            stream = _SegmentRun(
                runner=runner,
                render=render,
                segment=segment,
                upscaler=upscaler,
                turn=turn or AtOnce(),
                watchdog=watchdog,
                on_frame=report,
                measures_filter=measures_filter,
            )
            stream.run(source, encoding, point=point, verify=verify)
            return stream.filtered_pairs

    with ExitStack() as stack:
        stack.callback(part.unlink, missing_ok=True)
        threads, search = encoder_threads(upscaler), None
        if isinstance(quality, VmafTarget):
            search = stack.enter_context(
                TargetEncoding(
                    runner,
                    part,
                    render=render,
                    segment=segment,
                    target=quality,
                    threads=threads,
                    cancelled=cancelled,
                    stall_seconds=stall_seconds,
                )
            )
            encoding = search.copying_stream()
        else:
            encoding = encoding_stream(
                runner, part, render=render, segment=segment, quality=quality, threads=threads
            )
        try:
            pairs = attempt(decode_points(render, segment)[0], verify=True)
        except WrongFrame as wrong:
            if not is_whole:
                raise
            log.warning("segment_decoded_differently", index=segment.index, position=wrong.position)
            # The last point to try is the file's start.
            first_seconds = segment.first_frame * SECONDS_PER_DISCARDED_FRAME
            with Watchdog(cancelled=cancelled, stall_seconds=stall_seconds + first_seconds) as watchdog:
                point = _find_point(runner, source, render, segment, watchdog)
            log.info("decode_point_found", index=segment.index, point=str(point))
            try:
                # The point is the right one: whatever is decoded differently from now on is damage.
                pairs = attempt(point, verify=False)
            except WrongFrame as error:
                raise TransientError(
                    "The video gave different frames at each reading.", detail=str(error)
                ) from error
        found = None if search is None else search.encode()
        written = check_segment(runner, part, render=render, segment=segment)
        part.replace(destination)
    return EncodedSegment(video=written, quality=found, filtered_pairs=pairs)


def _runner_for(
    runner: FfmpegRunner, render: RenderPlan, segment: SegmentPlan, *, stall_seconds: float
) -> FfmpegRunner:
    """`runner`, with room for the segment's frames even if they cannot be compressed, and for a segment that exceeds
    the usual bounds a limit of time that exceeds the watchdog's."""
    room = 2 * segment.output_frames * render.target.frame_bytes + runner.limits.output_bytes
    seconds = runner.limits.wall_seconds
    if segment.discarded_frames > MOST_DISCARDED_FRAMES:
        seconds = max(seconds, segment.used_frames * stall_seconds)
    limits = replace(runner.limits, wall_seconds=seconds, output_bytes=room)
    return runner.under(limits)


def _find_point(
    runner: FfmpegRunner, source: Path, render: RenderPlan, segment: SegmentPlan, watchdog: Watchdog
) -> DecodePoint:
    try:
        return find_decode_point(runner, source, render=render, segment=segment, watchdog=watchdog)
    except WrongFrame as error:
        watchdog.check()
        raise PermanentError(
            "The video gives different frames at each reading; the file is damaged.", detail=str(error)
        ) from error
    except FfmpegError:
        # The watchdog may have killed the process.
        watchdog.check()
        raise


def _filter_meter(render: RenderPlan, segment: SegmentPlan, watchdog: Watchdog) -> "FilterMeter | None":
    """None without a filter, and where no frame of the segment is measured."""
    if not render.stabilise:
        return None
    # Imports OpenCV.
    from worker.video.filter_effect import FilterMeter

    meter = FilterMeter(render, segment, watchdog)
    return meter if meter.positions else None


class _SegmentRun:
    """One pass over a segment."""

    def __init__(
        self,
        *,
        runner: FfmpegRunner,
        render: RenderPlan,
        segment: SegmentPlan,
        upscaler: FrameUpscaler,
        turn: ComputingTurn,
        watchdog: Watchdog,
        on_frame: Callable[[int], None],
        measures_filter: bool,
    ) -> None:
        self._turn = turn
        self._runner = runner
        self._render = render
        self._segment = segment
        self._upscaler = upscaler
        self._watchdog = watchdog
        self._on_frame = on_frame
        batch_size = upscaler.batch_size
        self._meter = _filter_meter(render, segment, watchdog) if measures_filter else None
        self._source = SourceFrames(
            render=render,
            segment=segment,
            watchdog=watchdog,
            batch_size=batch_size,
            observed=() if self._meter is None else self._meter.positions,
        )
        # None marks the end.
        self._upscaled: PipelineQueue[RepeatedFrame | None] = PipelineQueue(watchdog, maxsize=batch_size + 1)

    def run(self, source: Path, encoding: Stream, *, point: DecodePoint, verify: bool) -> None:
        """Raises the first error of any thread. `encoding`: the command that takes the upscaled frames."""
        runner, render, segment, watchdog = self._runner, self._render, self._segment, self._watchdog
        decoding = decoding_stream(runner, source, render=render, segment=segment, point=point)
        with (
            runner.start(encoding, purpose="encoding the video", stdin=True, stdout=False) as encoder,
            runner.start(decoding, purpose="reading the video", stdin=False, stdout=True) as decoder,
        ):
            watchdog.own(encoder)
            watchdog.own(decoder)
            threads = [
                PipelineThread(watchdog, lambda: self._write(encoder), name="segment-writer"),
                *self._source.threads(decoder, verify=verify),
            ]
            if self._meter is not None:
                threads.append(PipelineThread(watchdog, self._meter.measure, name="segment-meter"))
            for thread in threads:
                thread.start()
            try:
                self._upscale()
            except PipelineStopped:
                pass  # the watchdog holds the reason
            except BaseException as error:
                watchdog.fail(error)
            for thread in threads:
                thread.join()
        watchdog.check()

    @property
    def filtered_pairs(self) -> Sequence["FilteredPair"]:
        """What was measured, once `run` has returned."""
        return () if self._meter is None else self._meter.pairs

    def _upscale(self) -> None:
        done, planned = 0, self._segment.used_frames
        for results in self._results():
            self._watchdog.progress()
            done += len(results)
            if done == planned:
                # Before the encoder has taken them: the next segment computes beside it.
                self._turn.end()
            for number in range(done - len(results) + 1, done + 1):
                self._on_frame(number)
            for result in results:
                self._upscaled.put(result)
        self._upscaled.put(None)

    def _results(self) -> Iterator[list[RepeatedFrame]]:
        """The upscaled frames, as batches of source frames complete them."""
        stabilised: StabilisedRun | None = None
        is_first = True
        while batch := self._source.next_batch(self._upscaler.batch_size):
            if is_first:
                is_first = False
                self._turn.wait(self._waiting)
                if self._render.stabilise:
                    assert isinstance(self._upscaler, StabilisingUpscaler)
                    stabilised = self._upscaler.stabilised(self._meter)
            if stabilised is None:
                results = self._upscaler.upscale([one.frame for one in batch])
                shown = [(result, one.repeats) for result, one in zip(results, batch, strict=True)]
            else:
                shown = stabilised.upscale(batch)
            for one in batch:
                self._source.reuse(one.frame)
            yield shown
        if stabilised is not None:
            yield stabilised.finish()
        if self._meter is not None:
            self._meter.end()

    def _waiting(self) -> None:
        if self._watchdog.is_stopped:
            raise PipelineStopped
        self._watchdog.progress()

    def _write(self, encoder: FfmpegProcess) -> None:
        try:
            while (item := self._upscaled.get()) is not None:
                frame, repeats = item
                for _ in range(repeats):
                    encoder.write_all(frame.data)
                    self._watchdog.progress()
            encoder.close_stdin()
            encoder.wait()
        except FfmpegError as error:
            # An exception raised from itself would be its own cause, an endless chain.
            if (missing := missing_encoder(error, self._render)) is not None:
                raise missing from error
            raise
