"""Both networks as sequences of fused convolutions over preallocated feature maps.

Results differ from those of torch's modules by rounding alone: the sum of a convolution, its bias, activation and
residuals stays in 32 bits until it is stored, where the modules round to 16 bits after each; the output is never
rounded to 16 bits.

The five convolutions of a dense block, with 32, 32, 32, 32 and 64 outputs, are computed as five others, three of which
have 64: with fewer outputs the tensor cores wait for loads. The first gives x1 and the part of x2 that depends on x0,
the second adds the part that depends on x1, and so on:

    x0 -> [x1 | part of x2],  x1 -> x2,  [x0 x1 x2] -> [x3 | part of x4],  x3 -> x4,  [x0 x1 x2 x3 x4] -> out

Each writes behind the channels present in one map of 192 channels, so nothing is concatenated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from models.architectures import ResidualDenseBlock, RRDBNet, SRVGGNetCompact
from models.architectures.rrdbnet import RESIDUAL_SCALE, SLOPE, ResidualInResidualDenseBlock
from worker.inference.cuda.buffers import FeatureMap
from worker.inference.cuda.layers import FusedConvolution

_FEATURES = 64
_GROWTH = 32


@dataclass(frozen=True, kw_only=True)
class FusedNetwork:
    """A network for one input shape: `run` reads `input` (N x 3 x H x W) and writes `output` (N x 3 x 4H x 4W); both
    are float32, contiguous, and always the same tensors.
    """

    input: torch.Tensor
    output: torch.Tensor
    steps: list[Callable[[], object]] = field(default_factory=list)

    def run(self) -> None:
        for step in self.steps:
            step()


def can_fuse(network: nn.Module) -> bool:
    """Returns whether `fuse` supports the network: srvgg with 64 features, rrdbnet with 64 and a growth of 32."""
    if isinstance(network, RRDBNet):
        return tuple(network.conv_hr.weight.shape[:2]) == (_FEATURES, _FEATURES) and all(
            block.conv1.out_channels == _GROWTH
            for block in network.modules()
            if isinstance(block, ResidualDenseBlock)
        )
    if isinstance(network, SRVGGNetCompact):
        return network.scale == 4 and _convolutions(network)[0].out_channels == _FEATURES
    return False


def fuse(
    network: nn.Module,
    *,
    images: int,
    height: int,
    width: int,
    device: torch.device,
    winograd: bool = False,
) -> FusedNetwork:
    """Returns the network on the device for inputs of that shape, with weights rounded to 16 bits.

    `winograd`: the convolutions for which `FusedConvolution` has it are computed by Winograd's F(4x4, 3x3).
    Raises `ValueError` if `can_fuse` is False, and torch's error if memory runs out.
    """
    if not can_fuse(network):
        raise ValueError(f"{type(network).__name__} cannot be fused.")
    fused = FusedNetwork(
        input=torch.zeros(images, 3, height, width, device=device),
        output=torch.zeros(images, 3, 4 * height, 4 * width, device=device),
    )
    build = _Build(images=images, height=height, width=width, device=device, winograd=winograd)
    if isinstance(network, SRVGGNetCompact):
        _add_srvgg(fused, network, build)
    else:
        assert isinstance(network, RRDBNet)
        _add_rrdbnet(fused, network, build)
    return fused


@dataclass(frozen=True, kw_only=True)
class _Build:
    images: int
    height: int
    width: int
    device: torch.device
    winograd: bool

    def map_of(self, channels: int, *, scale: int = 1) -> FeatureMap:
        return FeatureMap.allocate(
            images=self.images,
            height=self.height * scale,
            width=self.width * scale,
            channels=channels,
            device=self.device,
        )

    def convolution(self, weight: torch.Tensor, bias: torch.Tensor, **options: Any) -> FusedConvolution:
        return FusedConvolution(weight, bias, device=self.device, winograd=self.winograd, **options)

    def whole(self, layer: nn.Conv2d, **options: Any) -> FusedConvolution:
        assert layer.bias is not None
        return self.convolution(layer.weight, layer.bias, **options)


def _add_srvgg(fused: FusedNetwork, network: SRVGGNetCompact, build: _Build) -> None:
    *hidden, last = _convolutions(network)
    activations = [layer for layer in network.body if isinstance(layer, nn.PReLU)]
    picture = build.map_of(16)
    maps = build.map_of(_FEATURES), build.map_of(_FEATURES)
    fused.steps.append(partial(picture.interior(3).copy_, fused.input))
    source = picture
    for index, (layer, activation) in enumerate(zip(hidden, activations, strict=True)):
        out = maps[index % 2]
        fused.steps.append(partial(build.whole(layer, slopes=activation.weight), source, out))
        source = out
    shuffled = build.whole(last, shuffle=4)
    fused.steps.append(partial(shuffled, source, fused.output, enlarged=fused.input))


def _convolutions(network: SRVGGNetCompact) -> list[nn.Conv2d]:
    return [layer for layer in network.body if isinstance(layer, nn.Conv2d)]


def _add_rrdbnet(fused: FusedNetwork, network: RRDBNet, build: _Build) -> None:
    add = fused.steps.append
    picture, shallow, body = build.map_of(16), build.map_of(_FEATURES), build.map_of(_FEATURES)
    # The input of a residual-in-residual block is needed until its last sum: three maps in turn.
    first, second, third = (build.map_of(_FEATURES + 4 * _GROWTH) for _ in range(3))
    add(partial(picture.interior(3).copy_, fused.input))
    add(partial(build.whole(network.conv_first), picture, shallow))
    add(partial(first.interior(_FEATURES).copy_, shallow.interior(_FEATURES)))
    for block in network.body:
        assert isinstance(block, ResidualInResidualDenseBlock)
        _add_dense_block(fused, block.rdb1, build, source=first, out=second)
        _add_dense_block(fused, block.rdb2, build, source=second, out=third)
        _add_dense_block(fused, block.rdb3, build, source=third, out=second, around=first)
        first, second = second, first
    add(partial(build.whole(network.conv_body), first, body, first=shallow))
    source = body
    for scale, layer, doubles in (
        (2, network.conv_up1, True),
        (4, network.conv_up2, True),
        (4, network.conv_hr, False),
    ):
        out = build.map_of(_FEATURES, scale=scale)
        add(partial(build.whole(layer, slopes=_leaky(_FEATURES), doubles=doubles), source, out))
        source = out
    add(partial(build.whole(network.conv_last, shuffle=1), source, fused.output))


def _add_dense_block(
    fused: FusedNetwork,
    block: ResidualDenseBlock,
    build: _Build,
    *,
    source: FeatureMap,
    out: FeatureMap,
    around: FeatureMap | None = None,
) -> None:
    """`source` holds the block's input in its first 64 channels and receives intermediate results in the others."""
    add = fused.steps.append
    for now, later, width in ((block.conv1, block.conv2, 64), (block.conv3, block.conv4, 128)):
        assert now.bias is not None and later.bias is not None
        both = build.convolution(
            torch.cat((now.weight, later.weight[:, :width])),
            torch.cat((now.bias, later.bias)),
            slopes=torch.cat((_leaky(_GROWTH), torch.ones(_GROWTH))),
        )
        rest = build.convolution(later.weight[:, width:], torch.zeros(_GROWTH), slopes=_leaky(_GROWTH))
        made, partial_sum = source.channels(width), source.channels(width + _GROWTH)
        add(partial(both, source, made))
        add(partial(rest, made, partial_sum, first=partial_sum))
    assert block.conv5.bias is not None
    # Factors of the convolution itself are in its weights.
    scale = 1.0 if around is None else RESIDUAL_SCALE
    factor = RESIDUAL_SCALE * scale
    last = build.convolution(block.conv5.weight * factor, block.conv5.bias * factor)
    add(partial(last, source, out, first=source, scale=scale, second=around))


def _leaky(count: int) -> torch.Tensor:
    return torch.full((count,), SLOPE)
