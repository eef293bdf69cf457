"""Networks of other architectures, which the package spandrel recognizes by their weights and builds."""

import enum
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from models.architectures.network import NetworkProperties, UpscalingNetwork
from models.errors import WeightsCorrupt, WeightsError

_INSTALL = "pip install 'regen-server[networks]'"
_CHANNELS = 3


class ForeignNetwork(UpscalingNetwork):
    """A network that spandrel built. Its properties are measured, since its dimensions tell nothing here."""

    architecture = "foreign"

    def __init__(self, descriptor: Any, properties: NetworkProperties | None = None) -> None:
        super().__init__()
        self.model = descriptor.model
        self.scale = int(descriptor.scale)
        self.architecture_name = str(descriptor.architecture.name)
        self.supported_precisions = tuple(
            precision
            for precision, is_supported in (
                ("fp32", True),
                ("fp16", descriptor.supports_half),
                ("bf16", descriptor.supports_bfloat16),
            )
            if is_supported
        )
        # It pads to the sizes that the network can take. Copied with this module, it keeps the copy's model.
        self._descriptor = descriptor
        self._properties = properties

    @property
    def dimensions(self) -> Mapping[str, int]:
        return {}

    @property
    def properties(self) -> NetworkProperties:
        if self._properties is None:
            raise ValueError("This network's properties were not measured.")
        return self._properties

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x scale*H x scale*W, in the dtype of `x`, from 0 to 1."""
        inputs = x.to(next(self.model.parameters()).dtype)
        # One picture at a time is all that every architecture promises.
        enlarged = [self._descriptor(one.contiguous()) for one in inputs.split(1)]
        return torch.cat(enlarged).to(x.dtype)


def build_foreign_network(
    tensors: Mapping[str, torch.Tensor], origin: str, properties: NetworkProperties | None = None
) -> ForeignNetwork:
    """Returns the network of these weights: float32, on the CPU, in evaluation mode.

    Raises `WeightsError` without spandrel, and `WeightsCorrupt` for weights that it does not know or that are not for
    RGB pictures.
    """
    spandrel = import_spandrel()
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(
            spandrel.canonicalize_state_dict(dict(tensors))
        )
    except Exception as error:  # each architecture raises its own kinds for shapes that do not fit
        raise WeightsCorrupt(
            f"{origin} is not of an architecture that spandrel knows: {type(error).__name__}."
        ) from error
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or channels != (_CHANNELS, _CHANNELS):
        raise WeightsCorrupt(f"{origin} is not a network from RGB pictures to RGB pictures.")
    network = ForeignNetwork(descriptor, properties)
    return network.float().requires_grad_(False).eval()


def is_spandrel_installed() -> bool:
    return find_spec("spandrel") is not None


def import_spandrel() -> Any:
    """Returns the package. Raises `WeightsError` where it is not installed."""
    try:
        import torchvision.transforms.functional  # noqa: F401
    except (ImportError, RuntimeError):
        # Absent, or of a build that does not fit this torch (RuntimeError). Two architectures that enlarge nothing
        # name three functions of it when they are imported.
        _stand_in_for_torchvision()
    try:
        import spandrel
    except ImportError as error:
        raise WeightsError(f"This network needs the package spandrel: {_INSTALL}") from error
    return spandrel


def _stand_in_for_torchvision() -> None:
    functional = ModuleType("torchvision.transforms.functional")
    functional.__dict__.update(
        InterpolationMode=enum.Enum("InterpolationMode", "NEAREST BILINEAR BICUBIC"),
        rotate=None,
        normalize=None,
    )
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules[name] = ModuleType(name)
    sys.modules[functional.__name__] = functional
