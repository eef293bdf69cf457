"""The network in fused kernels on a GPU, with torch's modules as the fallback."""

import logging
import math

import torch
from torch import nn

from worker.inference.cuda.fused import FusedNetwork
from worker.inference.memory import is_out_of_memory
from worker.inference.precision import place_network

logger = logging.getLogger(__name__)

# In dB, against the modules' result. 16-bit rounding stays 10 dB above it; a fault in one of a hundred pixels does not.
LEAST_PSNR = 50.0
# The largest difference of a value, where 1 is white: a mean hides a fault of a few pixels.
WORST = 1 / 16


class FusedRuntime:
    """Has the contract of the network. Not thread-safe.

    The fused network is made for the first shape that comes and compared with torch's modules on a test picture; an
    error, a lack of memory or a wrong result drops it for good, with a logged reason. The modules compute pictures of
    other sizes.
    """

    def __init__(self, network: nn.Module, *, device: torch.device) -> None:
        """Runs the network in 16-bit floats; `network` is only read."""
        self._network, self._device = network, device
        self._modules = place_network(network, device=device, precision="fp16")
        self._fused: FusedNetwork | None = None
        # Of the fused network.
        self._shape: torch.Size = torch.Size()
        self._is_dropped = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W float32 in [0, 1] -> N x 3 x 4H x 4W float32."""
        is_first = self._fused is None
        # The first batch may have been smaller.
        if not self._is_dropped and (is_first or (self._has_size_of(x) and self._shape[0] < x.shape[0])):
            self._make(x)
        if self._fused is None or not self._has_size_of(x):
            enlarged: torch.Tensor = self._modules(x)
            return enlarged
        with _current(self._device):
            return self._fused(x)

    def release(self) -> None:
        """Leaves the modules, which take the least memory, after memory ran out."""
        self._fused, self._is_dropped = None, True

    def _has_size_of(self, x: torch.Tensor) -> bool:
        return self._shape[1:] == x.shape[1:]

    def _make(self, x: torch.Tensor) -> None:
        images, colours, height, width = x.shape
        self._fused = None
        try:
            with _current(self._device):
                size = {"images": images, "height": height, "width": width}
                fused = FusedNetwork(self._network, self._modules, **size)
                picture = trial_picture((images, colours, height, width), self._device)
                fault = find_fault(fused(picture), self._modules(picture))
        except Exception as error:  # compilers, drivers and libraries have many kinds; the modules remain
            fault = "too little memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        if fault is None:
            self._fused, self._shape = fused, x.shape
            return
        self._is_dropped = True
        logger.warning("fused_kernels_dropped shape=%s reason=%s", tuple(x.shape), fault.strip()[:300])


def trial_picture(shape: tuple[int, int, int, int], device: torch.device) -> torch.Tensor:
    """Returns waves of several lengths, edges, points and grain up to every border, different for each image.

    Float32 in [0, 1], always the same for a shape.
    """
    images, colours, height, width = shape
    y = torch.arange(height, dtype=torch.float32).view(1, 1, height, 1)
    x = torch.arange(width, dtype=torch.float32).view(1, 1, 1, width)
    colour = torch.arange(colours, dtype=torch.float32).view(1, colours, 1, 1)
    index = torch.arange(images, dtype=torch.float32).view(images, 1, 1, 1)
    waves = torch.sin((x + 3 * index) / 9 + colour) + torch.sin(y / 5 + x / 17) + torch.cos(y * x / 991)
    edges = ((x + y + 7 * index) % 64 < 20).float() + ((x // 11 + y // 7) % 2)
    grain = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    picture = 0.4 + 0.12 * waves + 0.15 * edges + 0.1 * grain + 0.4 * (grain > 0.995)
    return picture.clamp_(0, 1).to(device).contiguous(memory_format=torch.channels_last)


def find_fault(found: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Returns what is wrong with a result beside that of torch's modules, both N x 3 x H x W, or None."""
    if found.shape != expected.shape:
        return f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"
    # Comparisons with NaN are false, so NaN is a fault.
    worst = float((found.float() - expected.float()).abs().max())
    if not worst <= WORST:
        return f"differs from the modules by up to {worst:.3g}"
    least = min(psnr(one, other) for one, other in zip(found, expected, strict=True))
    if not least >= LEAST_PSNR:
        return f"agrees with the modules to {least:.1f} dB only"
    return None


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the PSNR in dB, where 1 is white: infinite for equal tensors, NaN if a value is NaN."""
    error = float((found.float() - expected.float()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def _current(device: torch.device) -> torch.cuda.device:
    """Makes the device current: Triton launches on the current device."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
