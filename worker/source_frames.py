"""The network's input frames of one segment, made in threads before the one that upscales.

    decoder (ffmpeg) -> reader thread -> [queue] -> calling thread

If output frames are interpolated between source frames, another thread makes them after the reader; if pictures are
averaged over time, another one finds out after that how frames agree with those around them:

    reader thread -> [queue] -> retiming thread -> [queue] -> aligning thread -> [queue] -> calling thread

Frames are kept in a fixed set of buffers, which bounds the queues.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from app.platform.media.ffmpeg import FfmpegProcess
from app.platform.media.picture_options import STABILISED_RADIUS
from worker.inference.aligned_frames import AlignedFrame
from worker.inference.frames import Frame
from worker.video.decoder import FrameReader
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.watchdog import PipelineQueue, PipelineThread, Watchdog

if TYPE_CHECKING:
    from worker.video.retime import FramePair

# Batches of source frames decoded ahead of the one being upscaled.
BATCHES_AHEAD = 2
# Buffers for interpolation: the two source frames, the one after them, and the one being decoded.
FRAMES_TO_RETIME = 4

# A frame, before or after upscaling, and how many output frames show it.
RepeatedFrame: TypeAlias = tuple[Frame, int]


class SourceFrames:
    """The frames of one pass over a segment. None in a queue marks the end."""

    def __init__(
        self,
        *,
        render: RenderPlan,
        segment: SegmentPlan,
        watchdog: Watchdog,
        batch_size: int,
        observed: Collection[int] = (),
    ) -> None:
        """`observed`: positions of frames that are measured although they are not shown."""
        self._render = render
        self._observed = observed
        self._segment = segment
        self._watchdog = watchdog
        self._free: PipelineQueue[Frame] = PipelineQueue(watchdog)
        for _ in range((BATCHES_AHEAD + 1) * batch_size + (STABILISED_RADIUS if render.stabilise else 0)):
            self._free.put(np.empty(render.source.frame_bytes, np.uint8))
        self._unused: PipelineQueue[Frame] = PipelineQueue(watchdog)
        if segment.between:
            for _ in range(FRAMES_TO_RETIME):
                self._unused.put(np.empty(render.source.frame_bytes, np.uint8))
        self._is_read = False
        self._to_retime: PipelineQueue[RepeatedFrame] = PipelineQueue(watchdog)
        self._to_align: PipelineQueue[AlignedFrame | None] = PipelineQueue(watchdog)
        self._ready: PipelineQueue[AlignedFrame | None] = PipelineQueue(watchdog)
        # Where frames go that are decoded or interpolated.
        self._made = self._to_align if render.stabilise else self._ready

    def threads(self, decoder: FfmpegProcess, *, verify: bool) -> list[PipelineThread]:
        """Those that make the frames, not started yet. `verify` is as for FrameReader."""
        watchdog = self._watchdog
        threads = []
        if self._segment.between:
            threads += [
                PipelineThread(
                    watchdog, lambda: self._read_all(decoder, verify=verify), name="segment-reader"
                ),
                PipelineThread(watchdog, self._retime, name="segment-retimer"),
            ]
        else:
            threads.append(
                PipelineThread(watchdog, lambda: self._read(decoder, verify=verify), name="segment-reader")
            )
        if self._render.stabilise:
            threads.append(PipelineThread(watchdog, self._align, name="segment-aligner"))
        return threads

    def next_batch(self, size: int) -> list[AlignedFrame]:
        """The next frames to upscale, `size` or fewer; none after the last."""
        batch: list[AlignedFrame] = []
        while not self._is_read and len(batch) < max(1, size):
            item = self._ready.get()
            if item is None:
                self._is_read = True
            else:
                batch.append(item)
        return batch

    def reuse(self, frame: Frame) -> None:
        """Takes back the buffer of a frame that is upscaled."""
        self._free.put(frame)

    def _read(self, decoder: FfmpegProcess, *, verify: bool) -> None:
        reader = FrameReader(decoder, self._segment, verify=verify)
        for _ in range(self._segment.source_frames):
            buffer = self._free.get()
            repeats = reader.read_into(buffer)
            self._watchdog.progress()
            if repeats:
                self._made.put(AlignedFrame(buffer, repeats))
            else:
                self._free.put(buffer)
        reader.finish()
        self._made.put(None)

    def _read_all(self, decoder: FfmpegProcess, *, verify: bool) -> None:
        """Pass on every source frame, shown or not."""
        reader = FrameReader(decoder, self._segment, verify=verify)
        for _ in range(self._segment.source_frames):
            buffer = self._unused.get()
            self._to_retime.put((buffer, reader.read_into(buffer)))
            self._watchdog.progress()
        reader.finish()

    def _retime(self) -> None:
        """Pass on each source frame that is shown, and after it those interpolated between it and the next."""
        # Imports OpenCV, which few segments need.
        from worker.video.retime import Retimer

        retimer = Retimer(self._render.retime, self._render.source)
        before: Frame | None = None
        phases: tuple[int, ...] = ()
        for following in self._segment.between:
            after, repeats = self._to_retime.get()
            if before is not None:
                if phases:
                    self._fill(retimer.pair(before, after), phases)
                self._unused.put(before)
            if repeats:
                buffer = self._free.get()
                buffer[:] = after
                self._made.put(AlignedFrame(buffer, repeats))
            before, phases = after, following
        self._made.put(None)

    def _fill(self, pair: "FramePair", phases: Sequence[int]) -> None:
        for phase in phases:
            buffer = self._free.get()
            pair.frame_at(phase, buffer)
            self._watchdog.progress()
            self._made.put(AlignedFrame(buffer, 1))

    def _align(self) -> None:
        # Imports OpenCV.
        from worker.video.alignment import aligned_frames

        segment = self._segment
        shown = range(segment.leading, segment.leading + segment.used_frames)
        frames: Iterator[AlignedFrame] = iter(self._to_align.get, None)
        for frame in aligned_frames(
            frames,
            source=self._render.source,
            strength=self._render.stabilise,
            shown=shown,
            observed=self._observed,
        ):
            self._watchdog.progress()
            self._ready.put(frame)
        self._ready.put(None)
