"""Both networks with the convolutions of their middle by Winograd, over preallocated feature maps.

torch's modules in 16 bits compute what comes before and after, 5 % of the multiplications of regen-4x-lite and 8 % of
regen-4x. Results differ from those of the modules alone by rounding: the sum of a convolution, its bias, activation and
residuals stays in 32 bits until it is stored.

Every convolution has 64 outputs, for which the compiled kernel spills no registers (with 32: one or two KB). So the
five of a dense block, with 32, 32, 32, 32 and 64, are computed as five others: the first gives x1 and the part of x2
that depends on x0, the second adds the part that depends on x1, with as many outputs for nothing, and so on:

    x0 -> [x1 | part of x2],  x1 -> x2,  [x0 x1 x2] -> [x3 | part of x4],  x3 -> x4,  [x0 x1 x2 x3 x4] -> out

Each writes behind the channels present in one map, so nothing is concatenated.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from models.architectures import ResidualDenseBlock, RRDBNet, SRVGGNetCompact
from models.architectures.rrdbnet import RESIDUAL_SCALE, SLOPE, ResidualInResidualDenseBlock
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.layers import WinogradConvolution

_FEATURES = 64
_GROWTH = 32


def can_fuse(network: nn.Module) -> bool:
    """Returns whether `FusedNetwork` supports it: srvgg with 64 features, rrdbnet with 64 and a growth of 32."""
    if isinstance(network, RRDBNet):
        return network.dimensions["features"] == _FEATURES and network.dimensions["growth"] == _GROWTH
    return isinstance(network, SRVGGNetCompact) and network.dimensions["features"] == _FEATURES


class FusedNetwork:
    """A network for one input shape, or for fewer images of that size. Not thread-safe."""

    def __init__(
        self, network: nn.Module, modules: nn.Module, *, images: int, height: int, width: int
    ) -> None:
        """`modules`: a copy of the network in 16 bits, on the device that computes.

        Raises `ValueError` if `can_fuse` is False, and torch's error if memory runs out.
        """
        if not can_fuse(network):
            raise ValueError(f"{type(network).__name__} cannot be fused.")
        self._modules = modules
        self._device = next(modules.parameters()).device
        self._images, self._height, self._width = images, height, width
        self._steps: list[Callable[[], object]] = []
        # What the modules write, and what they read at the end.
        self._begin = self._map_of(_FEATURES)
        if isinstance(network, SRVGGNetCompact):
            self._end = self._add_srvgg(network)
        else:
            assert isinstance(network, RRDBNet)
            self._end = self._add_rrdbnet(network)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W float32 in [0, 1] -> N x 3 x 4H x 4W float32."""
        count, modules = x.shape[0], self._modules
        assert isinstance(modules, SRVGGNetCompact | RRDBNet)
        self._begin.interior(_FEATURES)[:count].copy_(modules.shallow(x))
        for step in self._steps:
            step()
        return modules.enlarge(self._end.interior(_FEATURES)[:count], x)

    def _map_of(self, channels: int) -> FeatureMap:
        size = {"images": self._images, "height": self._height, "width": self._width}
        return FeatureMap.allocate(**size, channels=channels, device=self._device)

    def _add(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        source: FeatureMap,
        out: FeatureMap,
        *,
        slopes: torch.Tensor | None = None,
        first: FeatureMap | None = None,
        scale: float = 1.0,
        second: FeatureMap | None = None,
    ) -> None:
        convolution = WinogradConvolution(weight, bias, device=self._device, slopes=slopes)
        self._steps.append(partial(convolution, source, out, first=first, scale=scale, second=second))

    def _add_srvgg(self, network: SRVGGNetCompact) -> FeatureMap:
        source, other = self._begin, self._map_of(_FEATURES)
        hidden = list(network.body)[2:-1]
        for layer, activation in zip(hidden[::2], hidden[1::2], strict=True):
            assert isinstance(layer, nn.Conv2d) and isinstance(activation, nn.PReLU)
            assert layer.bias is not None
            self._add(layer.weight, layer.bias, source, other, slopes=activation.weight)
            source, other = other, source
        return source

    def _add_rrdbnet(self, network: RRDBNet) -> FeatureMap:
        # The input of a residual-in-residual block is needed until its last sum: three maps in turn.
        first, second, third = (self._map_of(_FEATURES + 5 * _GROWTH) for _ in range(3))
        self._steps.append(partial(first.interior(_FEATURES).copy_, self._begin.interior(_FEATURES)))
        for block in network.body:
            assert isinstance(block, ResidualInResidualDenseBlock)
            self._add_dense_block(block.rdb1, source=first, out=second)
            self._add_dense_block(block.rdb2, source=second, out=third)
            self._add_dense_block(block.rdb3, source=third, out=second, around=first)
            first, second = second, first
        end = self._map_of(_FEATURES)
        assert network.conv_body.bias is not None
        self._add(network.conv_body.weight, network.conv_body.bias, first, end, first=self._begin)
        return end

    def _add_dense_block(
        self,
        block: ResidualDenseBlock,
        *,
        source: FeatureMap,
        out: FeatureMap,
        around: FeatureMap | None = None,
    ) -> None:
        """`source` holds the block's input in its first 64 channels and receives intermediate results in the others."""
        leaky, none = torch.full((_GROWTH,), SLOPE), torch.zeros(_GROWTH)
        for now, later, width in ((block.conv1, block.conv2, 64), (block.conv3, block.conv4, 128)):
            assert now.bias is not None and later.bias is not None
            made, partial_sum = source.channels(width), source.channels(width + _GROWTH)
            self._add(
                torch.cat((now.weight, later.weight[:, :width])),
                torch.cat((now.bias, later.bias)),
                source,
                made,
                slopes=torch.cat((leaky, torch.ones(_GROWTH))),
            )
            rest = later.weight[:, width:]
            # What it writes behind is overwritten before it is read, or never read.
            self._add(
                torch.cat((rest, torch.zeros_like(rest))),
                torch.cat((none, none)),
                made,
                partial_sum,
                slopes=torch.cat((leaky, leaky)),
                first=partial_sum,
            )
        assert block.conv5.bias is not None
        # Factors of the convolution itself are in its weights.
        scale = 1.0 if around is None else RESIDUAL_SCALE
        weight, bias = (RESIDUAL_SCALE * scale * values for values in (block.conv5.weight, block.conv5.bias))
        self._add(weight, bias, source, out, first=source, scale=scale, second=around)
