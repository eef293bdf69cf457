"""One direct convolution on random values, by any kernels: what compares the matrix unit with plain C."""

from functools import cache

import torch
from torch import nn

from models.architectures import RRDBNet, SRVGGNetCompact
from worker.inference.cpu.direct_network import (
    DirectNetwork,
    DirectSteps,
    RoundedPicture,
    can_run_directly,
    pitch_of,
)
from worker.inference.cpu.huge_pages import allocate_in_huge_pages
from worker.inference.cpu.kernels import (
    BLOCK,
    ConvolutionStep,
    Kernels,
    direct_weight_floats,
    find_kernels,
    find_matrix_unit,
)
from worker.inference.cpu.network import PackedConvolution, PixelPointer, padded_to_blocks

# Rows and columns, inputs, outputs: whole and incomplete matrices.
_SHAPES = ((1, 1, 32, 16), (3, 17, 64, 48), (2, 33, 96, 32), (4, 64, 32, 64))
# Of the largest result: sums in another order differ by less.
_TOLERANCE = 1e-5


class DirectTrial:
    """A convolution of `inputs` to `outputs` channels with a bias, on a picture that holds `values`."""

    def __init__(self, values: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> None:
        """values: inputs x H x W; weights: outputs x inputs x 3 x 3; both float32 and rounded here."""
        self.values = values.to(torch.bfloat16)
        self.weights, self.bias = weights.to(torch.bfloat16).float(), bias

    def prepared(self, kernels: Kernels) -> "PreparedTrial":
        return PreparedTrial(self, kernels)

    def run(self, kernels: Kernels, *, threads: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the results in 32 bits and those rounded to bfloat16, each H x W x outputs."""
        prepared = self.prepared(kernels)
        prepared.run(threads=threads)
        return prepared.exact, prepared.rounded


class PreparedTrial:
    """A trial in memory. `exact` and `rounded` are its results after `run`."""

    def __init__(self, trial: DirectTrial, kernels: Kernels) -> None:
        (inputs, height, width), outputs = trial.values.shape, trial.weights.shape[0]
        columns = -(-outputs // BLOCK) * BLOCK
        weights = allocate_in_huge_pages(direct_weight_floats(inputs, outputs))
        kernels.prepare_direct_weights(trial.weights, weights)
        packed = PackedConvolution(inputs, outputs, weights, padded_to_blocks(trial.bias), None)
        counted = DirectSteps(height=height, width=width, address=0)
        _place(counted, inputs, columns)
        memory = allocate_in_huge_pages(counted.floats)
        steps = DirectSteps(height=height, width=width, address=memory.data_ptr())
        source, rounded, exact = _place(steps, inputs, columns)
        steps.add(packed, source, rounded=rounded, exact=exact)
        _inside(memory, source, height, width).copy_(trial.values.permute(1, 2, 0))
        begin = (exact.address - memory.data_ptr()) // 4
        results = memory[begin : begin + height * width * columns].view(height, width, columns)
        self.exact = results[..., :outputs]
        self.rounded = _inside(memory, rounded, height, width)[..., :outputs]
        self._kernels, self._packed = kernels, packed
        self._steps = (ConvolutionStep * 1)(*steps.listed)

    def run(self, *, threads: int = 1) -> None:
        scratch = allocate_in_huge_pages(threads * self._kernels.scratch_floats(self._steps))
        self._kernels.run(self._steps, scratch, threads=threads)


def _place(
    steps: DirectSteps, inputs: int, outputs: int
) -> tuple[RoundedPicture, RoundedPicture, PixelPointer]:
    return steps.rounded(inputs), steps.rounded(outputs), steps.exact(outputs)


def random_trial(height: int, width: int, inputs: int, outputs: int, *, seed: int = 0) -> DirectTrial:
    generator = torch.Generator().manual_seed(seed)
    return DirectTrial(
        torch.randn(inputs, height, width, generator=generator),
        torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5),
        torch.randn(outputs, generator=generator),
    )


@cache
def find_agreeing_matrix_unit() -> Kernels | None:
    """Returns the kernels for the processor's matrix unit if they give what plain C gives, otherwise None."""
    unit, plain = find_matrix_unit(), find_kernels()
    if unit is None or plain is None:
        return None
    for shape in _SHAPES:
        trial = random_trial(*shape)
        found, expected = trial.run(unit)[0], trial.run(plain)[0]
        if not (found - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            return None
    return unit


def compile_directly(network: nn.Module) -> DirectNetwork | None:
    """Returns the network in direct convolutions, by the matrix unit or by plain C; None without kernels or for a shape
    that they do not support.
    """
    kernels = find_agreeing_matrix_unit() or find_kernels()
    if kernels is None or not isinstance(network, SRVGGNetCompact | RRDBNet) or not can_run_directly(network):
        return None
    return DirectNetwork(network, kernels)


def _inside(memory: torch.Tensor, picture: RoundedPicture, height: int, width: int) -> torch.Tensor:
    """Returns a view of a picture in bfloat16 without its border."""
    pitch, stride = pitch_of(width), picture.stride
    begin = (picture.address - memory.data_ptr()) // 2
    rows = memory.view(torch.bfloat16)[begin : begin + height * pitch * stride]
    return rows.view(height, pitch, stride)[:, :width]
