"""Encodes one segment at the quality that reaches a target of VMAF.

    upscaled frames -> one ffmpeg -> a lossless copy of the segment, and one of the sample
    the sample -> encoder at a CRF -> libvmaf, a few times
    the copy -> encoder at the CRF that was found -> the segment's file

The quality depends on frames up to the segment's last, which are too many for memory. So they are kept in a file, coded
without loss, while the search lasts; the device that made them goes on with the next segment meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import ffmpeg
import numpy as np
import structlog

from app.platform.errors import Canceled, FfmpegCancelled, FfmpegError
from app.platform.media.codecs import VmafTarget
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from worker.video.encoder import encoding_stream, missing_encoder
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.quality_search import SCALES, FoundQuality, find_crf, sampled_durations, sampled_frames
from worker.video.timestamp_check import WrittenVideo, runner_for_output
from worker.video.vmaf import files_vmaf, model_for
from worker.video.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.video.filter_effect import FilteredPair

# Of all trials, on every machine: what an encoder makes may depend on the number of its threads.
TRIAL_THREADS = 4
# Of the copies, which are read in the order of their frames.
RATE = 25
# About what coding without loss leaves of a frame's bytes; of noise it leaves all, of drawings a tenth.
LOSSLESS_SHARE = 0.5
PURPOSE = "searching for the quality"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodedSegment:
    """A segment's written video, if its quality was searched what was found, and what was measured of `stabilise`."""

    video: WrittenVideo
    quality: FoundQuality | None
    filtered_pairs: Sequence["FilteredPair"] = ()

    @property
    def figures(self) -> dict[str, Any]:
        """What was found and measured, by the names of a segment's columns; empty without either."""
        found: dict[str, Any] = {} if self.quality is None else asdict(self.quality)
        if self.filtered_pairs:
            found["filtered_pairs"] = [pair.to_json() for pair in self.filtered_pairs]
        return found


def lossless_copy_bytes(render: RenderPlan, segment: SegmentPlan) -> int:
    """About how much space the copy of a segment takes while its quality is searched for."""
    return int(LOSSLESS_SHARE * segment.output_frames * render.target.frame_bytes)


class TargetEncoding:
    """One segment's search; a context manager, which removes the files that it made beside `destination`.

    `threads` are those of the encoder of the segment, None for its default.
    """

    def __init__(
        self,
        runner: FfmpegRunner,
        destination: Path,
        *,
        render: RenderPlan,
        segment: SegmentPlan,
        target: VmafTarget,
        threads: int | None,
        cancelled: Callable[[], bool],
        stall_seconds: float,
    ) -> None:
        self._runner = runner_for_output(runner, render.target)
        self._destination = destination
        self._render, self._segment, self._target = render, segment, target
        self._threads = threads
        self._cancelled, self._stall_seconds = cancelled, stall_seconds
        self._sample = sampled_frames(
            segment.output_frames, frame_pixels=render.target.width * render.target.height
        )
        self._is_partial = len(self._sample) < segment.output_frames
        self._copy = destination.with_name(f"{destination.name}.copy.mkv")
        self._sample_copy = (
            destination.with_name(f"{destination.name}.sample.mkv") if self._is_partial else self._copy
        )
        self._trial = destination.with_name(f"{destination.name}.trial{render.segment_file.suffix}")

    def copying_stream(self) -> Stream:
        """The command that takes the segment's output frames from stdin, and keeps them for `encode`."""
        target = self._render.target
        source = self._runner.raw_input(
            width=target.width, height=target.height, pix_fmt=target.pix_fmt, frame_rate=RATE
        )["v:0"]
        options = {"vcodec": "ffv1", "level": 3, "g": 1, "pix_fmt": target.pix_fmt, "fps_mode": "passthrough"}
        if self._threads is not None:
            options["threads"] = self._threads
        copy = self._runner.output(source, self._copy, **options)
        if not self._is_partial:
            return copy
        chosen = "+".join(f"between(n\\,{first}\\,{last})" for first, last in _spans(self._sample))
        sampled = self._runner.output(source, self._sample_copy, vf=f"select={chosen}", **options)
        return ffmpeg.merge_outputs(copy, sampled)

    def encode(self) -> FoundQuality:
        """Search, and encode the segment to `destination`. All of it together takes no longer than one run may.

        Raises FfmpegError if ffmpeg fails or measures nothing, ConfigurationError if it lacks the encoder or libvmaf,
        Canceled once `cancelled` returned True, PipelineStalled if no frame moved.
        """
        self._runner = self._runner.within_one_limit()
        model = model_for(self._render.target)
        # Full range would be coded the same, but compared after a conversion that its tag causes.
        trial_render = replace(self._render, tags=replace(self._render.tags, range="tv"))
        trial_segment = replace(self._segment, runs=sampled_durations(self._segment, self._sample))
        trials: dict[float, float] = {}

        def measure(crf: float) -> float:
            trial = encoding_stream(
                self._runner,
                self._trial,
                render=trial_render,
                segment=trial_segment,
                quality=crf,
                threads=TRIAL_THREADS,
                repeatable=True,
            )
            self._encode_copy(self._sample_copy, trial, frames=len(self._sample))
            try:
                trials[crf] = files_vmaf(
                    self._runner,
                    result=self._trial,
                    reference=self._sample_copy,
                    model=model,
                    frames=len(self._sample),
                    cancelled=self._cancelled,
                )
            except FfmpegCancelled as error:
                raise Canceled() from error
            return trials[crf]

        crf, vmaf = find_crf(SCALES[self._render.codec], self._target.vmaf, measure)
        log.info(
            "quality_found",
            index=self._segment.index,
            target=self._target.vmaf,
            crf=crf,
            vmaf=round(vmaf, 3),
            tried={f"{tried:g}": round(score, 3) for tried, score in trials.items()},
        )
        chosen = encoding_stream(
            self._runner,
            self._destination,
            render=self._render,
            segment=self._segment,
            quality=crf,
            threads=self._threads,
        )
        self._encode_copy(self._copy, chosen, frames=self._segment.output_frames)
        return FoundQuality(crf=crf, vmaf=vmaf)

    def _encode_copy(self, copy: Path, encoding: Stream, *, frames: int) -> None:
        """Feed the frames of the copy to the encoder: a program of its own, with all the memory that one may have."""
        decoding = ffmpeg.output(
            self._runner.input(copy)["v:0"],
            "pipe:1",
            f="rawvideo",
            vcodec="rawvideo",
            pix_fmt=self._render.target.pix_fmt,
            fps_mode="passthrough",
        )
        frame = np.empty(self._render.target.frame_bytes, np.uint8)
        with (
            Watchdog(cancelled=self._cancelled, stall_seconds=self._stall_seconds) as watchdog,
            self._runner.start(encoding, purpose="encoding the video", stdin=True, stdout=False) as encoder,
            self._runner.start(decoding, purpose=PURPOSE, stdin=False, stdout=True) as decoder,
        ):
            watchdog.own(encoder)
            watchdog.own(decoder)
            try:
                for _ in range(frames):
                    if not decoder.read_exactly_into(frame.data):
                        decoder.wait()
                        raise FfmpegError(
                            f"The video program failed while {PURPOSE}: a frame of the copy is missing."
                        )
                    encoder.write_all(frame.data)
                    watchdog.progress()
                encoder.close_stdin()
                encoder.wait()
            except FfmpegError as error:
                # The watchdog may have killed the process.
                watchdog.check()
                if (missing := missing_encoder(error, self._render)) is not None:
                    raise missing from error
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in (self._copy, self._sample_copy, self._trial):
            path.unlink(missing_ok=True)


def _spans(sample: list[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of consecutive numbers."""
    spans: list[tuple[int, int]] = []
    for number in sample:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
