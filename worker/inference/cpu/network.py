"""The networks as lists of compiled convolutions, in 32 bits on a CPU.

Results differ from those of torch's modules by rounding alone. They are the same for any number of threads, and to the
last bit they depend on no input pixel further away than `reach_pixels`, if pictures are cut at multiples of TILE.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from models.architectures import RRDBNet, SRVGGNetCompact
from models.architectures.rrdbnet import RESIDUAL_SCALE, SLOPE
from worker.inference.cpu.huge_pages import Arena, GrowingBuffer, aligned_floats
from worker.inference.cpu.kernels import (
    BLOCK,
    CHANNELS_LAST,
    MOST_INPUTS,
    PLANES,
    SHUFFLED,
    ConvolutionStep,
    Kernels,
    ResultLayout,
    find_kernels,
    weight_floats,
)

# The kernels compute squares of so many pixels a side.
TILE = 4


@dataclass(frozen=True)
class PackedConvolution:
    """A 3x3 convolution as the kernels read it; `slopes` is None without an activation."""

    inputs: int
    outputs: int
    weights: torch.Tensor
    bias: torch.Tensor
    slopes: torch.Tensor | None


@dataclass(frozen=True)
class PixelPointer:
    """A picture in memory: the address of its first float and the floats from one pixel to the next."""

    address: int
    stride: int

    def from_channel(self, number: int) -> "PixelPointer":
        return PixelPointer(self.address + 4 * number, self.stride)


class StepList:
    """Collects the steps for a picture of one size."""

    def __init__(self, kernels: Kernels, *, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.listed: list[ConvolutionStep] = []
        self._kernels = kernels

    def add(  # noqa: PLR0913 - the fields of `struct step`
        self,
        convolution: PackedConvolution,
        source: PixelPointer,
        target: PixelPointer,
        *,
        enlarged: int = 1,
        is_doubled: bool = False,
        more: PixelPointer | None = None,
        first_inputs: int | None = None,
        residual: PixelPointer | None = None,
        scale: float = 1.0,
        outer: PixelPointer | None = None,
        outer_scale: float = 1.0,
        is_planar: bool = False,
        base: int | None = None,
        layout: ResultLayout = CHANNELS_LAST,
    ) -> None:
        """Adds a convolution whose results are `enlarged` times the picture's size; the rest is as in `struct step`."""
        step = ConvolutionStep()
        step.input, step.input_stride = source.address, source.stride
        for name, place in (("more_input", more), ("residual", residual), ("outer", outer)):
            if place is not None:
                setattr(step, name, place.address)
                setattr(step, f"{name}_stride", place.stride)
        step.base = base
        step.output, step.output_stride = target.address, target.stride
        step.weights, step.bias = convolution.weights.data_ptr(), convolution.bias.data_ptr()
        if convolution.slopes is not None:
            step.slopes = convolution.slopes.data_ptr()
        step.scale, step.outer_scale = scale, outer_scale
        step.inputs, step.outputs = convolution.inputs, convolution.outputs
        step.inputs_of_first = convolution.inputs if first_inputs is None else first_inputs
        step.height, step.width = self.height * enlarged, self.width * enlarged
        step.is_planar, step.is_doubled = is_planar, is_doubled
        step.layout, step.planes = layout, convolution.outputs
        # The smallest possible: what a thread works on should fit its cache.
        step.group = self._kernels.rows
        self.listed.append(step)


class NetworkProgram(Protocol):
    """Turns a network into steps; `layers` counts its convolutions."""

    layers: int

    def floats(self, pixels: int) -> int:
        """Returns the floats of workspace for a picture of so many pixels."""

    def write(self, steps: StepList, *, picture: int, workspace: int, result: int) -> None:
        """Adds the steps. The others are addresses: `picture` of 3 planes, `result` of 3 planes of 4 times the size."""


class SrvggProgram:
    """SRVGGNetCompact."""

    def __init__(self, network: SRVGGNetCompact, kernels: Kernels) -> None:
        layers = list(network.body)
        prepare = _WeightPacker(network, kernels)
        self._convolutions = [
            prepare(layer, activation=layers[index + 1] if index + 1 < len(layers) else None)
            for index, layer in enumerate(layers)
            if isinstance(layer, nn.Conv2d)
        ]
        self._features = self._convolutions[0].outputs
        self.layers = len(self._convolutions)

    def floats(self, pixels: int) -> int:
        return 2 * self._features * pixels

    def write(self, steps: StepList, *, picture: int, workspace: int, result: int) -> None:
        pixels = steps.height * steps.width
        buffers = [
            PixelPointer(workspace, self._features),
            PixelPointer(workspace + 4 * self._features * pixels, self._features),
        ]
        source = PixelPointer(picture, 1)
        for index, convolution in enumerate(self._convolutions[:-1]):
            steps.add(convolution, source, buffers[index % 2], is_planar=index == 0)
            source = buffers[index % 2]
        steps.add(self._convolutions[-1], source, PixelPointer(result, 1), base=picture, layout=SHUFFLED)


class RrdbnetProgram:
    """RRDBNet.

    Nothing is concatenated: the outputs of a dense block's convolutions share one buffer, each behind the one before,
    and the block's input has another. Enlarged pictures are read from the smaller ones.
    """

    def __init__(self, network: RRDBNet, kernels: Kernels) -> None:
        prepare, leaky = _WeightPacker(network, kernels), nn.PReLU(init=SLOPE)
        self._first = prepare(network.conv_first)
        self._blocks = [
            [
                [*(prepare(layer, activation=leaky) for layer in layers[:-1]), prepare(layers[-1])]
                for layers in map(convolutions_of, outer.children())
            ]
            for outer in network.body
        ]
        self._body = prepare(network.conv_body)
        self._ups = [prepare(up, activation=leaky) for up in (network.conv_up1, network.conv_up2)]
        self._last_but_one = prepare(network.conv_hr, activation=leaky)
        self._last = prepare(network.conv_last)
        self._features = self._first.outputs
        self._growth = self._blocks[0][0][0].outputs if self._blocks else 0
        self.layers = 6 + sum(len(block) for outer in self._blocks for block in outer)

    def floats(self, pixels: int) -> int:
        # The last two pictures have 16 times the pixels; all smaller ones share the memory of the last.
        return 2 * 16 * self._features * pixels

    def write(self, steps: StepList, *, picture: int, workspace: int, result: int) -> None:
        size = 4 * self._features * steps.height * steps.width
        largest, last = (
            PixelPointer(workspace, self._features),
            PixelPointer(workspace + 16 * size, self._features),
        )
        # One after the other in the memory of the last: at most 4 + 1 + 3 of its 16 sizes, and the blocks' outputs.
        doubled = last
        shallow = PixelPointer(last.address + 4 * size, self._features)
        states = [PixelPointer(last.address + (5 + index) * size, self._features) for index in range(3)]
        added = PixelPointer(last.address + 8 * size, 4 * self._growth)

        steps.add(self._first, PixelPointer(picture, 1), shallow, is_planar=True)
        now = shallow
        for outer in self._blocks:
            before = now
            for index, block in enumerate(outer):
                # The input of this group of blocks is read until its end, the other states for one block.
                free = next(state for state in states if state not in (now, before))
                ends = index + 1 == len(outer)
                self._add_block(steps, block, now, free, added, outer=before if ends else None)
                now = free
        features = next(state for state in states if state != now)
        steps.add(self._body, now, features, residual=shallow)
        steps.add(self._ups[0], features, doubled, enlarged=2, is_doubled=True)
        steps.add(self._ups[1], doubled, largest, enlarged=4, is_doubled=True)
        steps.add(self._last_but_one, largest, last, enlarged=4)
        steps.add(self._last, last, PixelPointer(result, 1), enlarged=4, layout=PLANES)

    def _add_block(
        self,
        steps: StepList,
        block: list[PackedConvolution],
        source: PixelPointer,
        target: PixelPointer,
        added: PixelPointer,
        *,
        outer: PixelPointer | None,
    ) -> None:
        for index, convolution in enumerate(block[:-1]):
            to = added.from_channel(index * self._growth)
            steps.add(convolution, source, to, more=added, first_inputs=self._features)
        steps.add(
            block[-1],
            source,
            target,
            more=added,
            first_inputs=self._features,
            residual=source,
            scale=RESIDUAL_SCALE,
            outer=outer,
            outer_scale=RESIDUAL_SCALE,
        )


class NetworkOfSteps(ABC):
    """A network for pictures of any size. Not thread-safe."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._workspace, self._scratch, self._result = GrowingBuffer(), GrowingBuffer(), GrowingBuffer()

    @property
    @abstractmethod
    def reach_pixels(self) -> int:
        """The largest distance at which an input pixel affects a result's last bit."""

    @abstractmethod
    def _workspace_floats(self, height: int, width: int) -> int:
        """How many floats the steps for a picture of that size need."""

    @abstractmethod
    def _steps(
        self, picture: torch.Tensor, result: torch.Tensor, workspace: torch.Tensor
    ) -> list[ConvolutionStep]:
        """The steps that make one picture's result."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x 4H x 4W, float32, contiguous. The next call overwrites the result."""
        number, channels, height, width = x.shape
        workspace = self._workspace.floats(self._workspace_floats(height, width))
        result = self._result.floats(number * channels * 16 * height * width)
        result = result.view(number, channels, 4 * height, 4 * width)
        threads = torch.get_num_threads()
        for picture, made in zip(x.contiguous(), result, strict=True):
            steps = self._steps(picture, made, workspace)
            listed = (ConvolutionStep * len(steps))(*steps)
            scratch = self._scratch.floats(threads * self._kernels.scratch_floats(listed))
            self._kernels.run(listed, scratch, threads=threads)
        return result


class CompiledNetwork(NetworkOfSteps):
    """Of Winograd's convolutions."""

    def __init__(self, network: SRVGGNetCompact | RRDBNet, kernels: Kernels) -> None:
        """`network` is in float32 and only read; it may be deleted afterwards."""
        super().__init__(kernels)
        self._program: NetworkProgram
        if isinstance(network, SRVGGNetCompact):
            self._program = SrvggProgram(network, kernels)
        else:
            self._program = RrdbnetProgram(network, kernels)

    @property
    def reach_pixels(self) -> int:
        # A tile for every layer.
        return TILE * self._program.layers + TILE - 1

    def _workspace_floats(self, height: int, width: int) -> int:
        return self._program.floats(height * width)

    def _steps(
        self, picture: torch.Tensor, result: torch.Tensor, workspace: torch.Tensor
    ) -> list[ConvolutionStep]:
        steps = StepList(self._kernels, height=picture.shape[1], width=picture.shape[2])
        self._program.write(
            steps,
            picture=picture.data_ptr(),
            workspace=workspace.data_ptr(),
            result=result.data_ptr(),
        )
        return steps.listed


def compile_network(network: nn.Module) -> CompiledNetwork | None:
    """Returns the network in compiled convolutions, or None without kernels or for a shape that they do not support.

    `network` is in float32, on the CPU, and only read.
    """
    kernels = find_kernels()
    if (
        kernels is None
        or not isinstance(network, SRVGGNetCompact | RRDBNet)
        or not _has_whole_blocks(network)
    ):
        return None
    return CompiledNetwork(network, kernels)


def _has_whole_blocks(network: SRVGGNetCompact | RRDBNet) -> bool:
    """Returns whether all convolutions but the last have outputs in whole blocks of channels."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return (
        layers[0].in_channels <= BLOCK
        and all(layer.out_channels % BLOCK == 0 and layer.in_channels <= MOST_INPUTS for layer in layers[:-1])
        and (isinstance(network, RRDBNet) or network.scale == TILE)
    )


class _WeightPacker:
    """Packs the convolutions of one network into one arena."""

    def __init__(self, network: nn.Module, kernels: Kernels) -> None:
        self._kernels = kernels
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        self._arena = Arena(
            sum(aligned_floats(weight_floats(layer.in_channels, layer.out_channels)) for layer in layers)
        )

    def __call__(self, convolution: nn.Module, *, activation: nn.Module | None = None) -> PackedConvolution:
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        inputs, outputs = convolution.in_channels, convolution.out_channels
        slopes = None
        if activation is not None:
            assert isinstance(activation, nn.PReLU)
            slopes = padded_to_blocks(activation.weight.detach().expand(outputs))
        weights = self._arena.take(weight_floats(inputs, outputs))
        self._kernels.prepare_weights(convolution.weight, weights)
        bias = padded_to_blocks(convolution.bias.detach())
        return PackedConvolution(inputs=inputs, outputs=outputs, weights=weights, bias=bias, slopes=slopes)


def convolutions_of(block: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]


def padded_to_blocks(values: torch.Tensor) -> torch.Tensor:
    """Returns the values, padded with zeros to whole blocks of channels."""
    filled = torch.zeros(-(-values.numel() // BLOCK) * BLOCK)
    filled[: values.numel()] = values
    return filled
