"""Results that a frame keeps from the frame before.

A frame that equals the one before has its result. Of a frame that differs in places, only the changed regions are
computed and written over the result before. Either way the result equals, to the last bit, that of computing the
whole frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from worker.inference.changed_regions import ChangedRegions, Region
from worker.inference.colour import rgb_to_planes
from worker.inference.frames import Frame, FrameFormat
from worker.inference.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class _PreviousFrame:
    """The last frame and its result; `rgb` (1 x 3 x H x W) is None where regions are not reused."""

    frame: Frame
    result: Frame
    rgb: torch.Tensor | None = None


class FrameReuse:
    """Keeps the last frame of one upscaler."""

    def __init__(self, runtime: Runtime, *, source: FrameFormat, target: FrameFormat) -> None:
        self._runtime = runtime
        self._source, self._target = source, target
        self._regions = ChangedRegions(height=source.height, width=source.width, reach=runtime.reach_pixels)
        self._previous: _PreviousFrame | None = None

    def forget(self) -> None:
        """Frees the last frame."""
        self._previous = None

    def remember(self, frame: Frame, result: Frame) -> None:
        self._previous = _PreviousFrame(frame=frame.copy(), result=result)

    def distinct(self, frames: Sequence[Frame]) -> tuple[list[Frame], Frame | None, list[int]]:
        """Returns the frames that differ from the one before, the previous result, and for each frame the index of its
        result among those of the distinct frames; -1 stands for the previous result.
        """
        last = None if self._previous is None else self._previous.frame
        distinct: list[Frame] = []
        indexes: list[int] = []
        for frame in frames:
            if last is None or not np.array_equal(frame, last):
                distinct.append(frame)
            indexes.append(len(distinct) - 1)
            last = frame
        return distinct, None if self._previous is None else self._previous.result, indexes

    def upscale(
        self, frame: Frame, rgb: torch.Tensor, enlarge: Callable[[torch.Tensor], torch.Tensor]
    ) -> Frame:
        """Returns the frame's result and keeps it for the next frame.

        rgb: 1 x 3 x H x W, on the host. `enlarge` turns it into 1 x bytes, the planes of the whole result.
        """
        previous, known = self._previous, self._regions
        changed = None
        if previous is not None and previous.rgb is not None:
            changed = known.find(previous.rgb, rgb)
        if previous is not None and changed is not None and known.are_proved(changed):
            result = previous.result.copy()
            for region in changed:
                self._overwrite(result, region, rgb)
            known.note_use(changed)
        else:
            result = enlarge(rgb)[0].numpy()
            for region in known.to_prove(changed or ()):
                trial = result.copy()
                self._overwrite(trial, region, rgb)
                known.note_proof(region, is_equal=np.array_equal(trial, result))
        self._previous = _PreviousFrame(frame=frame.copy(), result=result, rgb=rgb)
        return result

    def _overwrite(self, result: Frame, region: Region, rgb: torch.Tensor) -> None:
        """Computes one region and writes it into the result."""
        read = self._regions.input_of(region)
        part = rgb[:, :, read.top : read.bottom, read.left : read.right]
        enlarged = self._runtime(part.contiguous(memory_format=self._runtime.memory_format))
        part_format = replace(self._target, height=enlarged.shape[2], width=enlarged.shape[3])
        planes = part_format.split(rgb_to_planes(enlarged, part_format)[0].numpy())
        for whole, made in zip(self._target.split(result), planes, strict=True):
            # Samples of this plane per input pixel: the scale, or half of it where chroma is subsampled.
            down, across = whole.shape[0] // self._source.height, whole.shape[1] // self._source.width
            top, left = (region.top - read.top) * down, (region.left - read.left) * across
            rows, columns = region.size[0] * down, region.size[1] * across
            whole[region.top * down : region.bottom * down, region.left * across : region.right * across] = (
                made[top : top + rows, left : left + columns]
            )
