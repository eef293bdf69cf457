"""One 3x3 convolution: its weights as the kernel reads them, its launches, and the fastest launch configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from worker.inference.cuda import kernels
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.timing import seconds_on_cuda


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How a kernel is launched: the pixels that one program computes, `chunk` input channels at a time, `stages` of
    which are being loaded at once."""

    columns: int
    rows: int
    chunk: int
    warps: int
    stages: int


# Large ones read least; small ones let two programs run on a multiprocessor and fit where shared memory is scarce.
CONFIGS = (
    LaunchConfig(columns=128, rows=4, chunk=32, warps=8, stages=3),
    LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=3),
    LaunchConfig(columns=64, rows=4, chunk=32, warps=4, stages=2),
    LaunchConfig(columns=128, rows=2, chunk=32, warps=8, stages=3),
    LaunchConfig(columns=128, rows=2, chunk=64, warps=8, stages=2),
    LaunchConfig(columns=64, rows=2, chunk=32, warps=4, stages=3),
)

# What the fastest configuration depends on: outputs, channels, doubling and shuffle.
Kind = tuple[int, int, bool, int]


class Autotuner:
    """Times each configuration at the first launch of a kind of convolution and keeps the fastest.

    A single configuration is not timed. `timed` keeps the seconds.
    """

    def __init__(
        self,
        configs: Sequence[LaunchConfig] = CONFIGS,
        *,
        seconds_of: Callable[[Callable[[], None]], float] = seconds_on_cuda,
    ) -> None:
        self._configs = configs
        self._seconds_of = seconds_of
        self.chosen: dict[Kind, LaunchConfig] = {}
        self.timed: dict[Kind, dict[LaunchConfig, float]] = {}

    def config_for(self, kind: Kind, launch: Callable[[LaunchConfig], None]) -> LaunchConfig:
        """Returns the fastest configuration. Raises the last one's error if none can be launched."""
        if kind not in self.chosen:
            self.chosen[kind] = self._configs[0] if len(self._configs) == 1 else self._fastest(kind, launch)
        return self.chosen[kind]

    def _fastest(self, kind: Kind, launch: Callable[[LaunchConfig], None]) -> LaunchConfig:
        seconds = self.timed.setdefault(kind, {})
        failed: Exception | None = None
        for config in self._configs:
            try:
                launch(config)
                seconds[config] = self._seconds_of(lambda config=config: launch(config))  # type: ignore[misc]
            except (
                Exception
            ) as error:  # mostly a configuration too large for the device; Triton has many errors
                failed = error
        if not seconds:
            assert failed is not None
            raise failed
        return min(seconds, key=seconds.__getitem__)


class FusedConvolution:
    """A convolution padded by zeros, with bias and activation; see `kernels.convolve` for what it may add."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        slopes: torch.Tensor | None,
        device: torch.device,
        tuner: Autotuner,
        doubles: bool = False,
        shuffle: int = 0,
    ) -> None:
        """weight: outputs x inputs x 3 x 3; bias: outputs; slopes: what multiplies negative values, one an output
        (None: no activation). `doubles` and `shuffle` as in `kernels.convolve`.

        Maps that it reads need `channels` channels, those that it writes `outputs`.
        """
        outputs, inputs = weight.shape[:2]
        self.channels = 16 if inputs <= 16 else -(-inputs // 32) * 32
        self.outputs = max(16, 1 << (outputs - 1).bit_length())
        self.kind: Kind = (self.outputs, self.channels, doubles, shuffle)
        self._doubles, self._shuffle, self._tuner = doubles, shuffle, tuner
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
        the sum includes `enlarged`, images x 3 x height x width float32, contiguous.
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

        launch(self._tuner.config_for(self.kind, launch))


def _padded(values: torch.Tensor, count: int, fill: float) -> torch.Tensor:
    whole = torch.full((count,), fill)
    whole[: values.numel()] = values.detach().float().cpu()
    return whole
