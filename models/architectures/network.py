"""The interface of every network beside its forward pass: its dimensions, and their properties."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

ReducedPrecision = Literal["bf16", "mixed"]
ALL_PRECISIONS = ("fp32", "fp16", "bf16", "mixed", "bf16-direct")
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class NetworkProperties:
    """Properties derived from a network's dimensions. Pixels are input pixels.

    `receptive_radius` is the largest distance at which an input pixel affects an output pixel. `tile_overlap` is
    the padding of tiles; tiles are exact where it equals the radius. `mflop_per_input_pixel` counts the
    multiplications and additions of all convolutions, in millions. `activation_bytes_per_input_pixel` is the peak
    memory of an fp32 forward pass without the weights. `widest_tensor_values_per_input_pixel` counts the values of
    the largest activation; kernels that index with 32 bits limit it. `reduced_precision` is the fastest precision
    with bfloat16 that stays within 50 dB of fp32; `auto` takes it only where it is `least_decibels` from fp32 or more.
    `has_fp32_peak_in_bf16` is true where in bf16 the widest tensor is still read in 32 bits.
    `exact_precisions` are those in which the network may run at all: for an added engine, those that were measured to
    stay within 50 dB of fp32.
    """

    architecture: str
    scale: int
    parameters: int
    mflop_per_input_pixel: float
    receptive_radius: int
    tile_overlap: int
    activation_bytes_per_input_pixel: int
    widest_tensor_values_per_input_pixel: int
    reduced_precision: ReducedPrecision
    least_decibels: float
    has_fp32_peak_in_bf16: bool = False
    exact_precisions: tuple[str, ...] = ALL_PRECISIONS


class UpscalingNetwork(nn.Module, ABC):
    """A network that takes N x 3 x H x W (RGB) and gives N x 3 x scale*H x scale*W, with what its dimensions tell."""

    architecture: ClassVar[str]
    scale: int
    exact_precisions: tuple[str, ...] = ALL_PRECISIONS

    @property
    @abstractmethod
    def dimensions(self) -> Mapping[str, int]:
        """The keyword arguments that make a network of the same shape."""

    @property
    @abstractmethod
    def properties(self) -> NetworkProperties:
        """What the dimensions tell."""

    def layers_in_bf16(self, precision: ReducedPrecision) -> Sequence[nn.Module]:
        """The layers that compute in bfloat16 in this precision; see `worker.inference.precision`."""
        return [self]

    @classmethod
    def dimensions_of_state(cls, shapes: Shapes) -> Mapping[str, int] | None:
        """Returns the dimensions of the network whose parameters have these names and shapes.

        None means another architecture. A result does not yet mean that every shape fits.
        """
        return None

    @classmethod
    def dimensions_of_layers(
        cls, convolutions: Sequence[tuple[int, int]], prelus: int
    ) -> Mapping[str, int] | None:
        """Returns the dimensions of the network with these convolutions (outputs, inputs), in computing order, and so
        many PReLUs; None means another architecture."""
        return None


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
