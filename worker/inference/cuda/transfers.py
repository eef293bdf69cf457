"""Frames to the device and back while it computes.

Memory of the host that the device reads and writes is taken from torch's cache of pinned blocks: a block is used again
once its tensor is gone and every copy from or to it is done, so nothing is allocated anew for each group of frames,
and what was handed out stays as it is for as long as somebody holds it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


class Download:
    """Results on their way to the host."""

    def __init__(self, planes: torch.Tensor, frames: torch.Tensor, done: torch.cuda.Event) -> None:
        self._planes: torch.Tensor | None = planes
        self._frames = frames
        self._done = done

    def wait(self) -> list[Frame]:
        """The frames, once they are there; each stays as it is. Raises what the device failed with."""
        self._done.synchronize()
        self._planes = None
        return list(self._frames.numpy())


class Transfers:
    """One device's copies. Those back run beside what is computed next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._back = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Frames of one size, 1-D uint8 -> N x bytes on the device. They are free again when this returns."""
        raw = torch.empty((len(frames), frames[0].size), dtype=torch.uint8, pin_memory=True)
        for row, frame in zip(raw.numpy(), frames, strict=True):
            row[:] = frame
        return raw.to(self._device, non_blocking=True)

    def begin_download(self, planes: torch.Tensor) -> Download:
        """planes: N x bytes uint8 on the device, as the current stream will have made them."""
        frames = torch.empty(planes.shape, dtype=torch.uint8, pin_memory=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._back):
            frames.copy_(planes, non_blocking=True)
            done.record(self._back)
        # Before the copy is done nobody else may be given this memory.
        planes.record_stream(self._back)
        return Download(planes, frames, done)
