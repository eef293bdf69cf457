"""One 3x3 convolution: its weights as the kernels read them, and its launches."""

import math
from dataclasses import dataclass

import torch

from worker.inference.cuda import kernels
from worker.inference.cuda.buffers import FeatureMap


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How a kernel is launched: the pixels that one program computes, `chunk` input channels at a time, `stages` of
    which are being loaded at once."""

    columns: int
    rows: int
    chunk: int
    warps: int
    stages: int


# Compiled without a card for sm_80, sm_86, sm_90: they fit its shared memory, and at most 32 bytes of registers spill.
DIRECT = LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=3)
WINOGRAD = LaunchConfig(columns=128, rows=4, chunk=16, warps=8, stages=1)

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


class FusedConvolution:
    """A convolution padded by zeros, with bias and activation; see `kernels.convolve` for what it may add."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        device: torch.device,
        slopes: torch.Tensor | None = None,
        doubles: bool = False,
        shuffle: int = 0,
        winograd: bool = False,
        config: LaunchConfig | None = None,
    ) -> None:
        """weight: outputs x inputs x 3 x 3; bias: outputs; slopes: what multiplies negative values, one an output
        (None: no activation). `doubles` and `shuffle` as in `kernels.convolve`. `winograd` applies to layers of at
        least 32 inputs and 64 outputs with neither: others spilled registers. `config` is `DIRECT` or `WINOGRAD` by
        default.

        Maps that it reads need `channels` channels, those that it writes `outputs`.
        """
        outputs, inputs = weight.shape[:2]
        self.channels = 16 if inputs <= 16 else -(-inputs // 32) * 32
        self.outputs = max(16, 1 << (outputs - 1).bit_length())
        self.is_winograd = winograd and inputs >= 32 and self.outputs == 64 and not doubles and not shuffle
        self._doubles, self._shuffle = doubles, shuffle
        self._config = config or (WINOGRAD if self.is_winograd else DIRECT)
        filters = weight.detach().double().cpu().permute(3, 2, 1, 0)
        if self.is_winograd:
            rows = torch.tensor(_OF_FILTERS, dtype=torch.float64)
            filters = torch.einsum("ax,by,xyio->abio", rows, rows, filters)
        padded = torch.zeros(*filters.shape[:2], self.channels, self.outputs)
        padded[:, :, :inputs, :outputs] = filters
        self._weights = padded.to(device=device, dtype=torch.float16).contiguous()
        self._transforms = torch.tensor(_OF_PICTURES, device=device)
        self._bias = _padded(bias, self.outputs, 0.0).to(device)
        self._slopes = _padded(torch.ones(outputs) if slopes is None else slopes, self.outputs, 1.0).to(
            device
        )

    def __call__(
        self,
        source: FeatureMap,
        out: FeatureMap | torch.Tensor,
        *,
        first: FeatureMap | None = None,
        scale: float = 1.0,
        second: FeatureMap | None = None,
        enlarged: torch.Tensor | None = None,
    ) -> None:
        """Writes act(conv(source) + bias [+ scale * first] [+ second]) into `out`.

        With a shuffle `out` is images x 3 x shuffle*height x shuffle*width float32, contiguous; with a shuffle of 4
        the sum includes `enlarged`, images x 3 x height x width float32, contiguous. Raises Triton's or the driver's
        error if the device cannot launch it.
        """
        factor, unused, config = 2 if self._doubles else 1, self._bias, self._config
        height, width = source.height * factor, source.width * factor
        chunk = math.gcd(config.chunk, self.channels)
        options = {"N": self.outputs, "CHUNK": chunk, "COLUMNS": config.columns, "num_warps": config.warps}
        if self.is_winograd:
            kernel, last = kernels.convolve_by_winograd, self._transforms
        else:
            kernel, last = kernels.convolve, unused if enlarged is None else enlarged
            options |= {"ROWS": config.rows, "DOUBLES": self._doubles, "SHUFFLE": self._shuffle}
            options |= {"STAGES": config.stages}
        across, down = -(-width // config.columns), -(-height // config.rows)
        kernel[(across, down, source.images)](
            source.pointer,
            self._weights,
            self._bias,
            self._slopes,
            out.pointer if isinstance(out, FeatureMap) else out,
            unused if first is None else first.pointer,
            unused if second is None else second.pointer,
            last,
            height,
            width,
            self.channels // chunk,
            float(scale),
            SOURCE_STRIDE=source.stride,
            OUT_STRIDE=out.stride if isinstance(out, FeatureMap) else 0,
            FIRST_STRIDE=0 if first is None else first.stride,
            SECOND_STRIDE=0 if second is None else second.stride,
            num_stages=config.stages,
            **options,
        )


def _padded(values: torch.Tensor, count: int, fill: float) -> torch.Tensor:
    whole = torch.full((count,), fill)
    whole[: values.numel()] = values.detach().float().cpu()
    return whole
