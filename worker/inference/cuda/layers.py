"""One 3x3 convolution: its weights as the kernel reads them, and its launches."""

from collections.abc import Sequence
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


# In the order in which they are tried. Large ones read least; small ones fit where shared memory is scarce.
CONFIGS = (
    LaunchConfig(columns=128, rows=4, chunk=32, warps=8, stages=3),
    LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=3),
    LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=2),
    LaunchConfig(columns=128, rows=2, chunk=32, warps=8, stages=3),
    LaunchConfig(columns=128, rows=2, chunk=64, warps=8, stages=2),
    LaunchConfig(columns=64, rows=2, chunk=32, warps=4, stages=3),
)


class FusedConvolution:
    """A convolution padded by zeros, with bias and activation; see `kernels.convolve` for what it may add."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        slopes: torch.Tensor | None,
        device: torch.device,
        configs: Sequence[LaunchConfig] = CONFIGS,
        doubles: bool = False,
        shuffle: int = 0,
    ) -> None:
        """weight: outputs x inputs x 3 x 3; bias: outputs; slopes: what multiplies negative values, one an output
        (None: no activation). `doubles` and `shuffle` as in `kernels.convolve`. The first of `configs` that the device
        can launch is kept.

        Maps that it reads need `channels` channels, those that it writes `outputs`.
        """
        outputs, inputs = weight.shape[:2]
        self.channels = 16 if inputs <= 16 else -(-inputs // 32) * 32
        self.outputs = max(16, 1 << (outputs - 1).bit_length())
        self._doubles, self._shuffle, self._configs = doubles, shuffle, configs
        padded = torch.zeros(3, 3, self.channels, self.outputs)
        padded[:, :, :inputs, :outputs] = weight.detach().float().cpu().permute(3, 2, 1, 0)
        self._weights = padded.to(device=device, dtype=torch.float16).contiguous()
        self._bias = _padded(bias, self.outputs, 0.0).to(device)
        self._slopes = _padded(torch.ones(outputs) if slopes is None else slopes, self.outputs, 1.0).to(
            device
        )

    def __call__(
        self,
        source: FeatureMap,
        out: FeatureMap | torch.Tensor,
        *,
        before: FeatureMap | None = None,
        residual: FeatureMap | None = None,
        scale: float = 1.0,
        second: FeatureMap | None = None,
        second_scale: float = 1.0,
        enlarged: torch.Tensor | None = None,
    ) -> None:
        """Writes act(conv(source) + before) [* scale + residual [* second_scale + second]] into `out`.

        With a shuffle `out` is images x 3 x shuffle*height x shuffle*width float32, contiguous; with a shuffle of 4
        the sum includes `enlarged`, images x 3 x height x width float32, contiguous. Raises the last configuration's
        error if none can be launched.
        """
        factor = 2 if self._doubles else 1
        height, width = source.height * factor, source.width * factor
        unused = self._bias

        def launch(config: LaunchConfig) -> None:
            chunk = min(config.chunk, self.channels)
            if self.channels % chunk:
                chunk = 32
            grid = (-(-width // config.columns), -(-height // config.rows), source.images)
            kernels.convolve[grid](
                source.pointer,
                self._weights,
                self._bias,
                self._slopes,
                out.pointer if isinstance(out, FeatureMap) else out,
                unused if before is None else before.pointer,
                unused if residual is None else residual.pointer,
                unused if second is None else second.pointer,
                unused if enlarged is None else enlarged,
                height,
                width,
                self.channels // chunk,
                float(scale),
                float(second_scale),
                SOURCE_STRIDE=source.stride,
                OUT_STRIDE=out.stride if isinstance(out, FeatureMap) else 0,
                BEFORE_STRIDE=0 if before is None else before.stride,
                RESIDUAL_STRIDE=0 if residual is None else residual.stride,
                SECOND_STRIDE=0 if second is None else second.stride,
                N=self.outputs,
                CHUNK=chunk,
                COLUMNS=config.columns,
                ROWS=config.rows,
                STAGES=config.stages,
                DOUBLES=self._doubles,
                SHUFFLE=self._shuffle,
                num_warps=config.warps,
                num_stages=config.stages,
            )

        for number, config in enumerate(self._configs, start=1):
            try:
                launch(config)
            except Exception:  # mostly a configuration too large for the device; Triton has many errors
                if number == len(self._configs):
                    raise
            else:
                self._configs = (config,)
                return


def _padded(values: torch.Tensor, count: int, fill: float) -> torch.Tensor:
    whole = torch.full((count,), fill)
    whole[: values.numel()] = values.detach().float().cpu()
    return whole
