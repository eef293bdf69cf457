"""From an engine's id to a network ready to run."""

from dataclasses import replace
from pathlib import Path

import torch

from models.added import find_engine, measured_properties
from models.architectures import (
    ARCHITECTURES,
    NearestNeighbour,
    NetworkProperties,
    UpscalingNetwork,
    network_for_state,
)
from models.architectures.foreign import build_foreign_network, is_spandrel_installed
from models.catalog import Engine
from models.errors import WeightsCorrupt
from models.weights import ensure_weights, load_state_dict, read_network


def load_network(
    engine_id: str, *, weights_directory: str | Path, stand_in: bool = False
) -> UpscalingNetwork:
    """Returns the engine's network: float32, on the CPU, in evaluation mode, no parameter requiring a gradient.

    It takes N x 3 x H x W (RGB, 0 to 1) and gives N x 3 x 4H x 4W. Missing weights are converted into
    `weights_directory` first. `stand_in` gives a network of the same contract without weights, which enlarges by
    nearest neighbour exactly and does not touch the folder. Raises `UnknownEngine` and `WeightsError`.
    """
    engine = find_engine(engine_id, weights_directory)
    if stand_in:
        return NearestNeighbour(scale=engine.scale).eval()
    path = ensure_weights(engine_id, weights_directory)
    return network_of(load_state_dict(path, engine), str(path), _measured(engine))


def read_properties(
    engine_id: str, *, weights_directory: str | Path, stand_in: bool = False
) -> NetworkProperties:
    """Returns the properties of the network that `load_network` would give, without loading its weights.

    Raises as `load_network`.
    """
    engine = find_engine(engine_id, weights_directory)
    if stand_in:
        return NearestNeighbour(scale=engine.scale).properties
    return _measured(engine) or read_network(ensure_weights(engine_id, weights_directory)).properties


def can_run(engine: Engine) -> bool:
    """Returns whether the packages that the engine's network needs are installed."""
    architecture = measured_properties(engine).get("architecture")
    return architecture is None or architecture in ARCHITECTURES or is_spandrel_installed()


def network_of(
    state: dict[str, torch.Tensor], origin: str, measured: NetworkProperties | None = None
) -> UpscalingNetwork:
    """Returns the network of a state dict, ready as `load_network` gives it: one of `models.architectures`, or another
    that spandrel knows. `measured` are its properties where its dimensions do not tell them. Raises `WeightsError`."""
    network = network_for_state({name: tuple(tensor.shape) for name, tensor in state.items()})
    if network is None:
        return build_foreign_network(state, origin, measured)
    network.load_state_dict(state, assign=True)
    if measured is not None:
        network.exact_precisions = measured.exact_precisions
    return network.requires_grad_(False).eval()


def _measured(engine: Engine) -> NetworkProperties | None:
    values = measured_properties(engine)
    if not values:
        return None
    try:
        properties = NetworkProperties(**values)
    except TypeError as error:
        raise WeightsCorrupt(
            f"The weights of {engine.id} were added by another version: add them again."
        ) from error
    return replace(properties, exact_precisions=tuple(properties.exact_precisions))
