"""Frames from the host to a device and back."""

from collections.abc import Callable, Sequence

import torch

from worker.inference.frames import Frame

# Waits for a download and returns its frames, which later calls do not change. Raises the device's errors.
PendingFrames = Callable[[], list[Frame]]


class Transfers:
    """Copies that are finished when a call returns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def upload(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Frames of one size, each 1-D uint8 -> N x bytes on the device. The caller may reuse them afterwards."""
        return stack(frames).to(self._device)

    def start_download(self, planes: torch.Tensor) -> PendingFrames:
        """planes: N x bytes uint8 on the device."""
        frames = list(planes.cpu().numpy())
        return lambda: frames


def stack(frames: Sequence[Frame], *, is_pinned: bool = False) -> torch.Tensor:
    """Frames of one size, each 1-D uint8 -> N x bytes in host memory, page-locked if `is_pinned`."""
    stacked = torch.empty((len(frames), frames[0].size), dtype=torch.uint8, pin_memory=is_pinned)
    for row, frame in zip(stacked.numpy(), frames, strict=True):
        row[:] = frame
    return stacked
