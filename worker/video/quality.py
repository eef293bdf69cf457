"""Measures quality: compares the output, reduced to the input's size, with the input.

Only luma is compared, of transparent pictures on black, on a sample of frames, so that the cost does not grow with the
video's length: evenly spread runs of consecutive output frames, or all of a short video. Both videos are decoded side
by side, the input with the command that upscaling uses, so that each frame is compared with the one that the network
was given. A few planes of the input's size are held at a time.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import Canceled, FfmpegError, RegenError
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from worker.video.decoder import (
    DecodePoint,
    FrameReader,
    WrongFrame,
    decode_points,
    decoding_stream,
    find_decode_point,
    seek_options,
)
from worker.video.filter_effect import FilteredPair, FilterEffect
from worker.video.luma import luma, to_8_bits
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.retime import Retimer
from worker.video.similarity_metrics import Plane, SimilarityMeter
from worker.video.timestamp_check import runner_for_output
from worker.video.transparency import LAYER_DECODERS
from worker.video.vmaf import VmafMeter, can_measure_vmaf
from worker.video.warping_error import WarpingErrors, WarpingMeter, flicker_step
from worker.video.watchdog import Watchdog

RUNS = 8
# Three frames show two consecutive changes, for the warping errors.
RUN_FRAMES = 3
# Rows of the reduced picture that are read at a time: whole frames of the output can be very large.
STRIP_ROWS = 16
PURPOSE = "measuring the quality"

NOT_MEASURED = "The quality of the output could not be measured."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class MeasuredQuality:
    """See docs/quality.md. None: figures that cannot be measured, such as `warping_errors` of a single frame; the
    `filter_effect` of no filter.

    `frames`: how many were compared.
    """

    psnr: float
    ssim: float
    vmaf: float | None
    frames: int
    warping_errors: WarpingErrors | None = None
    filter_effect: FilterEffect | None = None

    def as_json(self) -> dict[str, Any]:
        """As the API shows it, without metrics that are None."""
        metrics = {
            "psnr": round(self.psnr, 3),
            "ssim": round(self.ssim, 5),
            "vmaf": None if self.vmaf is None else round(self.vmaf, 3),
            **({} if self.warping_errors is None else self.warping_errors.as_json()),
            "frames": self.frames,
            "stabiliseEffect": None if self.filter_effect is None else self.filter_effect.as_json(),
        }
        return {name: figure for name, figure in metrics.items() if figure is not None}

    def formatted(self) -> list[tuple[str, str]]:
        """Name and formatted value of each metric that is not None."""
        words = [("PSNR", f"{self.psnr:.2f} dB"), ("SSIM", f"{self.ssim:.4f}")]
        if self.vmaf is not None:
            words.append(("VMAF", f"{self.vmaf:.2f}"))
        for more in (self.warping_errors, self.filter_effect):
            words += [] if more is None else more.formatted()
        return [*words, ("frames compared", str(self.frames))]


def measure_if_possible(
    runner: FfmpegRunner,
    *,
    source: Path,
    output: Path,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    cancelled: Callable[[], bool],
    stall_seconds: float,
    filtered_pairs: Sequence[FilteredPair] = (),
    is_fatal: Callable[[Exception], bool] = lambda _: False,
) -> MeasuredQuality | None:
    """As `measure_quality`, but logs a failure and returns None: the render is complete without a measurement.

    Raises Canceled once `cancelled` returns True, and errors for which `is_fatal` does.
    """
    try:
        return measure_quality(
            runner,
            source=source,
            output=output,
            render=render,
            segments=segments,
            cancelled=cancelled,
            stall_seconds=stall_seconds,
            filtered_pairs=filtered_pairs,
        )
    except Canceled:
        raise
    except Exception as error:
        if is_fatal(error):
            raise
        # Only a defect is logged with its traceback.
        is_known = isinstance(error, RegenError | WrongFrame)
        log.warning(
            "quality_not_measured",
            error=str(error),
            detail=getattr(error, "detail", None),
            exc_info=None if is_known else error,
        )
        return None


def measure_quality(
    runner: FfmpegRunner,
    *,
    source: Path,
    output: Path,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    cancelled: Callable[[], bool],
    stall_seconds: float,
    filtered_pairs: Sequence[FilteredPair] = (),
) -> MeasuredQuality:
    """Compare the finished render `output` with its input. `filtered_pairs`: what was measured of its segments' filter.

    Raises WrongFrame if the input's frames cannot be decoded as planned, PipelineStalled if no frame moved for
    `stall_seconds`, Canceled once `cancelled` returns True, FfmpegError if ffmpeg fails.
    """
    similarity, warping = SimilarityMeter(), WarpingMeter()
    width, height = render.source.width, render.source.height
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(cancelled=cancelled, stall_seconds=stall_seconds))
        try:
            vmaf: VmafMeter | None = None
            if can_measure_vmaf(runner, width=width, height=height):
                vmaf = stack.enter_context(VmafMeter(runner, width=width, height=height, watchdog=watchdog))
            comparison = _Comparison(
                runner=runner,
                source=source,
                output=output,
                render=render,
                watchdog=watchdog,
                similarity=similarity,
                warping=warping,
                vmaf=vmaf,
            )
            sample = sampled_frames(render.frame_count)
            shown = 0
            for segment in segments:
                wanted = [number - shown for number in sample if 0 <= number - shown < segment.output_frames]
                if wanted:
                    comparison.run(segment, wanted, first_number=shown)
                shown += segment.output_frames
            score = None if vmaf is None else vmaf.score()
        except (FfmpegError, WrongFrame):
            # The watchdog may have killed the process.
            watchdog.check()
            raise
        watchdog.check()
    metrics = similarity.metrics()
    return MeasuredQuality(
        psnr=metrics.psnr_db,
        ssim=metrics.ssim,
        vmaf=score,
        frames=metrics.frames,
        warping_errors=warping.errors(),
        filter_effect=FilterEffect.of(filtered_pairs),
    )


def sampled_frames(count: int) -> list[int]:
    """Which of `count` output frames are compared: RUNS runs of RUN_FRAMES, each in the middle of its part."""
    if count <= RUNS * RUN_FRAMES:
        return list(range(count))
    starts = ((2 * run + 1) * (count - RUN_FRAMES) // (2 * RUNS) for run in range(RUNS))
    return sorted({start + offset for start in starts for offset in range(RUN_FRAMES)})


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Decodes both videos of one render side by side."""

    runner: FfmpegRunner
    source: Path
    output: Path
    render: RenderPlan
    watchdog: Watchdog
    similarity: SimilarityMeter
    warping: WarpingMeter
    vmaf: VmafMeter | None

    def run(self, segment: SegmentPlan, wanted: Sequence[int], *, first_number: int) -> None:
        """Compare the `wanted` output frames of the segment, whose first has the number `first_number` in the video."""
        left = list(wanted)
        try:
            self._attempt(segment, left, decode_points(self.render, segment)[0], True, first_number)
        except WrongFrame:
            point = find_decode_point(
                self.runner, self.source, render=self.render, segment=segment, watchdog=self.watchdog
            )
            log.info("decode_point_found", index=segment.index, point=str(point))
            # The frames compared so far were verified.
            self._attempt(segment, left, point, False, first_number)

    def _attempt(
        self, segment: SegmentPlan, left: list[int], point: DecodePoint, verify: bool, first_number: int
    ) -> None:
        """Compare the frames in `left`, removing each from it."""
        runner, render, watchdog = self.runner, self.render, self.watchdog
        output_runner = runner_for_output(runner, render.target)
        source_stream = decoding_stream(runner, self.source, render=render, segment=segment, point=point)
        output_stream = _output_stream(output_runner, self.output, render, segment, left)
        with (
            runner.start(source_stream, purpose=PURPOSE, stdin=False, stdout=True) as decoder,
            output_runner.start(output_stream, purpose=PURPOSE, stdin=False, stdout=True) as reader,
        ):
            source = _ReferenceFrames(
                FrameReader(watchdog.own(decoder), segment, verify=verify), render, segment
            )
            watchdog.own(reader)
            while left:
                reference = source.reference_for(left[0])
                watchdog.progress()
                result, large = _read_reduced(reader, render)
                watchdog.progress()
                self.similarity.add(reference, result)
                self.warping.add(first_number + left[0], reference, large)
                if self.vmaf is not None:
                    self.vmaf.add(reference, result)
                watchdog.progress()
                left.pop(0)


class _ReferenceFrames:
    """The luma of the network's input for each output frame of a segment: a source frame, or one interpolated again."""

    def __init__(self, reader: FrameReader, render: RenderPlan, segment: SegmentPlan) -> None:
        self._reader = reader
        self._render = render
        self._frame_sources = _frame_sources(segment)
        self._retimer = Retimer(render.retime, render.source)
        # The last two source frames that were read, and the position of the second.
        self._held = [np.empty(render.source.frame_bytes, np.uint8) for _ in range(2)]
        self._last = -1

    def reference_for(self, index: int) -> Plane:
        """The luma for output frame `index` of the segment. Indices must not decrease."""
        source, target = self._render.source, self._render.target
        position, phase = self._frame_sources[index]
        while self._last < (position + 1 if phase else position):
            self._held.reverse()
            self._reader.read_into(self._held[1])
            self._last += 1
        if not phase:
            return luma(self._held[1 - (self._last - position)], source=source, target=target)
        between = np.empty(source.frame_bytes, np.uint8)
        self._retimer.pair(*self._held).frame_at(phase, between)
        return luma(between, source=source, target=target)


def _frame_sources(segment: SegmentPlan) -> list[tuple[int, int]]:
    """For each output frame the position of its source frame, and its phase from there to the next (0: none).

    The frames around the segment, each of which is one of these, are shown by none.
    """
    phases: list[tuple[int, int]] = []
    for position, repeats in enumerate(segment.repeats):
        phases += [(position, 0)] * repeats
        if segment.between:
            phases += [(position, phase) for phase in segment.between[position]]
    return phases[segment.leading : len(phases) - segment.trailing]


def _output_stream(
    runner: FfmpegRunner, output: Path, render: RenderPlan, segment: SegmentPlan, wanted: Sequence[int]
) -> Stream:
    """The command that writes the luma planes of the wanted frames to stdout."""
    start = render.offset_ticks + segment.start_tick
    ticks = list(segment.output_ticks())
    first, last = (render.written_tick(start + ticks[index]) for index in (wanted[0], wanted[-1]))
    chosen = "+".join(f"eq(n\\,{index - wanted[0]})" for index in wanted)
    timescale = render.written_timescale
    chain = f"settb=1/{timescale},trim=start_pts={first}:end_pts={last + 1},select={chosen},"
    options = seek_options(Fraction(first, timescale))
    if render.target.has_alpha:
        # Other formats cannot be premultiplied.
        chain += f"format={replace(render.target, layout='yuv444').pix_fmt},premultiply=inplace=1,"
    if render.alpha_tag:
        options["c:v"] = LAYER_DECODERS[render.codec]
    video = runner.input(output, copyts=None, **options)
    return ffmpeg.output(
        video["v:0"],
        "pipe:1",
        f="rawvideo",
        vcodec="rawvideo",
        vf=f"{chain}extractplanes=y",
        fps_mode="passthrough",
    )


def _read_reduced(process: FfmpegProcess, render: RenderPlan) -> tuple[Plane, Plane]:
    """The next luma plane of the output, reduced by averaging: to the input's size, and by `flicker_step`."""
    source, target = render.source, render.target
    factor, rest = divmod(target.width, source.width)
    # Where a strip's borders would fall within rows, all of the picture is one.
    in_strips = not rest and target.height == factor * source.height
    strip_rows = STRIP_ROWS if in_strips else source.height
    step = flicker_step(target.width * target.height)
    large = np.empty((-(-target.height // step), -(-target.width // step)), np.float32)
    reduced = np.empty((source.height, source.width), np.float32)
    strip = np.empty((strip_rows * factor if in_strips else target.height, target.width), target.dtype)
    for top in range(0, source.height, strip_rows):
        rows = min(strip_rows, source.height - top)
        codes = strip[: rows * factor] if in_strips else strip
        _read_codes(process, codes)
        levels = codes.astype(np.float32)
        # For integer factors INTER_AREA is the mean.
        reduced[top : top + rows] = cv2.resize(levels, (source.width, rows), interpolation=cv2.INTER_AREA)
        first = top * factor // step if in_strips else 0
        part = large[first : first + -(-len(levels) // step)]
        part[:] = cv2.resize(levels, part.shape[::-1], interpolation=cv2.INTER_AREA) if step > 1 else levels
    for plane in (reduced, large):
        to_8_bits(plane, target)
    return reduced, large


def _read_codes(process: FfmpegProcess, codes: NDArray[Any]) -> None:
    if not process.read_exactly_into(codes.data):
        process.wait()
        raise FfmpegError(f"The video program failed while {PURPOSE}: a frame of the output is missing.")
