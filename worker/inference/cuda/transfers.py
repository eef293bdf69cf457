"""Frames to a CUDA device and back while it computes.

Host memory that the device reads and writes comes from torch's cache of pinned blocks. A block is reused once its
tensor is gone and every copy from or to it has finished, so batches allocate nothing anew, and a returned frame stays
unchanged as long as a reference to it exists.
"""

from collections.abc import Sequence

import torch

from worker.inference.frames import Frame
from worker.inference.transfers import PendingFrames, Transfers, stack


class StreamTransfers(Transfers):
    """Copies of one device. Downloads run on a stream of their own, beside the next batch's computing."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, frames: Sequence[Frame]) -> torch.Tensor:
        return stack(frames, is_pinned=True).to(self._device, non_blocking=True)

    def start_download(self, planes: torch.Tensor) -> PendingFrames:
        """planes: N x bytes uint8 on the device, as the current stream will have made them."""
        frames = torch.empty(planes.shape, dtype=torch.uint8, pin_memory=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._downloads.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._downloads):
            frames.copy_(planes, non_blocking=True)
            done.record(self._downloads)
        # The allocator must not reuse this memory before the copy has finished.
        planes.record_stream(self._downloads)

        def wait() -> list[Frame]:
            done.synchronize()
            return list(frames.numpy())

        return wait
