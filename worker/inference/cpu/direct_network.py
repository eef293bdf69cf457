"""The networks as lists of direct convolutions of bfloat16 values, with sums in 32 bits, for CPUs with a matrix unit.

Every convolution reads features rounded to bfloat16. What is added to them, residuals and the enlarged input, stays in
32 bits. The network's input, the weights that it meets and those of rrdbnet's last convolution are split into two
bfloat16 values, as exact as 16 bits of mantissa.

Plain C computes the same as the matrix unit to the last bit, on any processor, at a fraction of the speed.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from models.architectures import RRDBNet, SRVGGNetCompact
from models.architectures.rrdbnet import RESIDUAL_SCALE, SLOPE
from worker.inference.cpu.huge_pages import Arena, aligned_floats
from worker.inference.cpu.kernels import (
    CHANNELS_LAST,
    CHUNK,
    MOST_INPUTS,
    PLANES,
    SHUFFLED,
    ConvolutionStep,
    Kernels,
    ResultLayout,
    direct_weight_floats,
)
from worker.inference.cpu.network import (
    TILE,
    NetworkOfSteps,
    PackedConvolution,
    PixelPointer,
    convolutions_of,
    padded_to_blocks,
)


@dataclass(frozen=True)
class RoundedPicture:
    """A picture in bfloat16 with its border, as kernels.c has it: the address of its first pixel inside, and the values
    from one pixel to the next."""

    address: int
    stride: int

    def from_channel(self, number: int) -> "RoundedPicture":
        return RoundedPicture(self.address + 2 * number, self.stride)


def pitch_of(width: int) -> int:
    """Returns the pixels from one row of such a picture to the next."""
    return -(-width // 16) * 16 + 2


class DirectSteps:
    """Collects the steps for a picture of one size, and places their results in a workspace at `address`.

    With an address of 0 it counts the floats that they need.
    """

    def __init__(self, *, height: int, width: int, address: int) -> None:
        self.height, self.width = height, width
        self.listed: list[ConvolutionStep] = []
        self.floats = 0
        self._address = address

    def rounded(self, channels: int, *, enlarged: int = 1) -> RoundedPicture:
        """Places a picture in bfloat16 of `enlarged` times the size."""
        pitch = pitch_of(self.width * enlarged)
        begin = self._take((self.height * enlarged + 2) * pitch * channels // 2)
        return RoundedPicture(begin + 2 * (pitch + 1) * channels, channels)

    def exact(self, channels: int) -> PixelPointer:
        """Places a picture in 32 bits."""
        return PixelPointer(self._take(self.height * self.width * channels), channels)

    def add(  # noqa: PLR0913 - the fields of `struct step`
        self,
        convolution: PackedConvolution,
        source: RoundedPicture,
        *,
        rounded: RoundedPicture | None = None,
        exact: PixelPointer | None = None,
        enlarged: int = 1,
        is_enlarging: bool = False,
        more: RoundedPicture | None = None,
        first_inputs: int | None = None,
        residual: PixelPointer | None = None,
        outer: PixelPointer | None = None,
        scale: float = 1.0,
        base: int | None = None,
        layout: ResultLayout = CHANNELS_LAST,
    ) -> None:
        """Adds a convolution on `enlarged` times the picture's size, whose result is stored in 32 bits as `exact` and
        in bfloat16 as `rounded`; the rest is as in `struct step`, with one scale for both sums."""
        step = ConvolutionStep()
        step.is_direct, step.is_enlarging, step.group = True, is_enlarging, 1
        step.input, step.input_stride = source.address, source.stride
        places = {
            "more_input": more,
            "residual": residual,
            "outer": outer,
            "output": exact,
            "rounded": rounded,
        }
        for name, place in places.items():
            if place is not None:
                setattr(step, name, place.address)
                setattr(step, f"{name}_stride", place.stride)
        step.base = base
        step.weights, step.bias = convolution.weights.data_ptr(), convolution.bias.data_ptr()
        if convolution.slopes is not None:
            step.slopes = convolution.slopes.data_ptr()
        step.scale = step.outer_scale = scale
        step.inputs, step.outputs = convolution.inputs, convolution.outputs
        step.inputs_of_first = convolution.inputs if first_inputs is None else first_inputs
        step.height, step.width = self.height * enlarged, self.width * enlarged
        step.layout, step.planes = layout, convolution.outputs
        self.listed.append(step)

    def _take(self, floats: int) -> int:
        begin = self._address + 4 * self.floats
        self.floats += aligned_floats(floats)
        return begin


class DirectProgram(Protocol):
    """Turns a network into direct steps."""

    def write(self, steps: DirectSteps, *, picture: int, result: int) -> RoundedPicture:
        """Adds the steps from a picture of 3 planes to a result of 3 planes of 4 times the size, both in 32 bits.

        Returns where the split picture is expected."""


class SrvggDirectProgram:
    """SRVGGNetCompact."""

    def __init__(self, network: SRVGGNetCompact, kernels: Kernels) -> None:
        layers = list(network.body)
        pack = _DirectPacker(network, kernels)
        self._first = pack.split_input(layers[0], activation=layers[1])
        self._hidden = [
            pack(layer, activation=layers[index])
            for index, layer in enumerate(layers[2:-1], 3)
            if isinstance(layer, nn.Conv2d)
        ]
        self._last = pack(layers[-1])

    def write(self, steps: DirectSteps, *, picture: int, result: int) -> RoundedPicture:
        split = steps.rounded(CHUNK)
        buffers = [steps.rounded(self._first.outputs) for _ in range(2)]
        steps.add(self._first, split, rounded=buffers[0])
        for index, convolution in enumerate(self._hidden):
            steps.add(convolution, buffers[index % 2], rounded=buffers[(index + 1) % 2])
        made = PixelPointer(result, 1)
        steps.add(self._last, buffers[len(self._hidden) % 2], exact=made, base=picture, layout=SHUFFLED)
        return split


class RrdbnetDirectProgram:
    """RRDBNet: the sums of blocks in 32 bits, and rounded copies of them for the convolutions."""

    def __init__(self, network: RRDBNet, kernels: Kernels) -> None:
        pack, leaky = _DirectPacker(network, kernels), nn.PReLU(init=SLOPE)
        self._first = pack.split_input(network.conv_first)
        self._blocks = [
            [
                [*(pack(layer, activation=leaky) for layer in layers[:-1]), pack(layers[-1])]
                for layers in map(convolutions_of, outer.children())
            ]
            for outer in network.body
        ]
        self._body = pack(network.conv_body)
        self._ups = [pack(up, activation=leaky) for up in (network.conv_up1, network.conv_up2)]
        self._last_but_one = pack(network.conv_hr, activation=leaky)
        self._last = pack.split_weights(network.conv_last)

    def write(self, steps: DirectSteps, *, picture: int, result: int) -> RoundedPicture:
        features = self._first.outputs
        growth = self._blocks[0][0][0].outputs if self._blocks else 0
        split, shallow, added = steps.rounded(CHUNK), steps.exact(features), steps.rounded(4 * growth)
        # The rounded copy of a block's input is read until the block's end, as its own exact one.
        states = [(steps.exact(features), steps.rounded(features)) for _ in range(3)]
        now = (shallow, steps.rounded(features))
        steps.add(self._first, split, exact=shallow, rounded=now[1])
        for outer in self._blocks:
            before = now
            for index, block in enumerate(outer):
                free = next(state for state in states if state not in (now, before))
                exact, source = now
                for number, convolution in enumerate(block[:-1]):
                    to = added.from_channel(number * growth)
                    steps.add(convolution, source, rounded=to, more=added, first_inputs=features)
                steps.add(
                    block[-1],
                    source,
                    exact=free[0],
                    rounded=free[1],
                    more=added,
                    first_inputs=features,
                    residual=exact,
                    outer=before[0] if index + 1 == len(outer) else None,
                    scale=RESIDUAL_SCALE,
                )
                now = free
        doubled, largest = steps.rounded(features, enlarged=2), steps.rounded(features, enlarged=4)
        enlarged, last = steps.rounded(features, enlarged=4), steps.rounded(features, enlarged=4)
        steps.add(self._body, now[1], rounded=doubled, is_enlarging=True, residual=shallow)
        steps.add(self._ups[0], doubled, rounded=largest, enlarged=2, is_enlarging=True)
        steps.add(self._ups[1], largest, rounded=enlarged, enlarged=4)
        steps.add(self._last_but_one, enlarged, rounded=last, enlarged=4)
        made = PixelPointer(result, 1)
        steps.add(self._last, last, more=last, first_inputs=features, exact=made, enlarged=4, layout=PLANES)
        return split


class DirectNetwork(NetworkOfSteps):
    """Of direct convolutions."""

    def __init__(self, network: SRVGGNetCompact | RRDBNet, kernels: Kernels) -> None:
        """`network` is in float32 and only read; it may be deleted afterwards."""
        super().__init__(kernels)
        self._radius = network.properties.receptive_radius
        self._program: DirectProgram
        if isinstance(network, SRVGGNetCompact):
            self._program = SrvggDirectProgram(network, kernels)
        else:
            self._program = RrdbnetDirectProgram(network, kernels)

    @property
    def reach_pixels(self) -> int:
        # Not the receptive radius alone: parts of a frame begin at multiples of TILE.
        return self._radius + TILE - 1

    def _workspace_floats(self, height: int, width: int) -> int:
        counted = DirectSteps(height=height, width=width, address=0)
        self._program.write(counted, picture=0, result=0)
        return counted.floats

    def _steps(
        self, picture: torch.Tensor, result: torch.Tensor, workspace: torch.Tensor
    ) -> list[ConvolutionStep]:
        steps = DirectSteps(height=picture.shape[1], width=picture.shape[2], address=workspace.data_ptr())
        split = self._program.write(steps, picture=picture.data_ptr(), result=result.data_ptr())
        self._kernels.split_planes(picture, split.address)
        return steps.listed


def can_run_directly(network: nn.Module) -> bool:
    """Returns whether direct convolutions support the network's shape."""
    if not isinstance(network, SRVGGNetCompact | RRDBNet):
        return False
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return (
        layers[0].in_channels == 3
        and all(layer.out_channels % CHUNK == 0 for layer in layers[:-1])
        and all(2 * layer.in_channels <= MOST_INPUTS for layer in layers)
        and (isinstance(network, RRDBNet) or network.scale == TILE)
    )


class _DirectPacker:
    """Packs the convolutions of one network into one arena."""

    def __init__(self, network: nn.Module, kernels: Kernels) -> None:
        self._kernels = kernels
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        # The first and the last convolution may be split.
        counts = (direct_weight_floats(2 * max(one.in_channels, CHUNK), one.out_channels) for one in layers)
        self._arena = Arena(sum(map(aligned_floats, counts)))

    def __call__(self, layer: nn.Module, *, activation: nn.Module | None = None) -> PackedConvolution:
        assert isinstance(layer, nn.Conv2d)
        return self._pack(layer, layer.weight.detach(), activation)

    def split_input(self, layer: nn.Module, *, activation: nn.Module | None = None) -> PackedConvolution:
        """For the split picture, see `regen_split_planes`."""
        assert isinstance(layer, nn.Conv2d)
        whole, rest = _split(layer.weight.detach())
        weights = torch.cat((whole, whole, rest), dim=1)
        filling = torch.zeros(layer.out_channels, CHUNK - weights.shape[1], 3, 3)
        return self._pack(layer, torch.cat((weights, filling), dim=1), activation)

    def split_weights(self, layer: nn.Module) -> PackedConvolution:
        """Reads its inputs twice: for the weights' rounded parts and for the rest."""
        assert isinstance(layer, nn.Conv2d)
        return self._pack(layer, torch.cat(_split(layer.weight.detach()), dim=1), None)

    def _pack(
        self, layer: nn.Conv2d, weights: torch.Tensor, activation: nn.Module | None
    ) -> PackedConvolution:
        assert layer.bias is not None
        outputs, inputs = weights.shape[:2]
        slopes = None
        if activation is not None:
            assert isinstance(activation, nn.PReLU)
            slopes = padded_to_blocks(activation.weight.detach().expand(outputs))
        ready = self._arena.take(direct_weight_floats(inputs, outputs))
        self._kernels.prepare_direct_weights(weights, ready)
        bias = padded_to_blocks(layer.bias.detach())
        return PackedConvolution(inputs=inputs, outputs=outputs, weights=ready, bias=bias, slopes=slopes)


def _split(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the weights rounded to bfloat16, and the rest."""
    whole = weights.to(torch.bfloat16).float()
    return whole, weights - whole
