"""One 3x3 convolution by Winograd: its weights as the kernel reads them, and its launch."""

import math

import torch

from worker.inference.cuda import kernels
from worker.inference.cuda.buffers import FeatureMap

# Pixels in a row that one program computes, input channels at a time, and warps. Compiled without a card for sm_80 and
# sm_86, with 64 outputs, no register spills.
COLUMNS, CHUNK, WARPS = 128, 16, 8

_A, _B = math.sqrt(1 / 2), math.sqrt(2)
# Winograd's F(4, 3) at the points 0, +-A, +-B and infinity, as in worker/inference/cpu/kernels.h: what makes six values
# of a filter's row; then of each point its row of B^T (six pixels to one value) and its column of A^T (one sum to four
# pixels).
_OF_FILTERS = (
    (1, 0, 0),
    *((1 / n, p / n, p * p / n) for p, n in ((_A, -1.5), (-_A, -1.5), (_B, 6), (-_B, 6))),
    (0, 0, 1),
)
_OF_PICTURES = (
    (1, 0, -2.5, 0, 1, 0, 1, 0, 0, 0),
    *((0, -q * p, -q, p, 1, 0, 1, p, p**2, p**3) for p, q in ((_A, 2), (-_A, 2), (_B, 0.5), (-_B, 0.5))),
    (0, 1, 0, -2.5, 0, 1, 0, 0, 0, 1),
)


class WinogradConvolution:
    """A convolution padded by zeros, with bias and activation; see `kernels.convolve` for what it may add."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        device: torch.device,
        slopes: torch.Tensor | None = None,
    ) -> None:
        """weight: outputs x inputs x 3 x 3, outputs a power of two from 16 on, inputs a multiple of 16; bias:
        outputs; slopes: what multiplies negative values, one an output (None: no activation)."""
        self._outputs, self._inputs = weight.shape[:2]
        rows = torch.tensor(_OF_FILTERS, dtype=torch.float64)
        filters = torch.einsum("ax,by,oiyx->abio", rows, rows, weight.detach().double().cpu())
        self._weights = filters.to(device=device, dtype=torch.float16).contiguous()
        self._transforms = torch.tensor(_OF_PICTURES, device=device)
        self._bias = bias.detach().float().to(device)
        self._slopes = (torch.ones(self._outputs) if slopes is None else slopes.detach().float()).to(device)

    def __call__(
        self,
        source: FeatureMap,
        out: FeatureMap,
        *,
        first: FeatureMap | None = None,
        scale: float = 1.0,
        second: FeatureMap | None = None,
    ) -> None:
        """Writes act(conv(source) + bias [+ scale * first] [+ second]) into `out`.

        Raises Triton's or the driver's error if the device cannot launch it.
        """
        unused, chunk = self._bias, math.gcd(CHUNK, self._inputs)
        across, down = -(-source.width // COLUMNS), -(-source.height // 4)
        kernels.convolve[(across, down, source.images)](
            source.pointer,
            self._weights,
            self._bias,
            self._slopes,
            out.pointer,
            unused if first is None else first.pointer,
            unused if second is None else second.pointer,
            self._transforms,
            source.height,
            source.width,
            self._inputs // chunk,
            float(scale),
            SOURCE_STRIDE=source.stride,
            OUT_STRIDE=out.stride,
            FIRST_STRIDE=0 if first is None else first.stride,
            SECOND_STRIDE=0 if second is None else second.stride,
            N=self._outputs,
            CHUNK=chunk,
            COLUMNS=COLUMNS,
            num_warps=WARPS,
            num_stages=1,
        )
