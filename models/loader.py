"""From an engine's id to a network ready to run."""

from pathlib import Path

from models.architectures import NearestNeighbour, NetworkProperties, UpscalingNetwork, network_for_state
from models.catalog import get_engine
from models.weights import ensure_weights, load_state_dict, read_network


def load_network(
    engine_id: str, *, weights_directory: str | Path, stand_in: bool = False
) -> UpscalingNetwork:
    """Returns the engine's network: float32, on the CPU, in evaluation mode, no parameter requiring a gradient.

    It takes N x 3 x H x W (RGB, 0 to 1) and gives N x 3 x 4H x 4W. Missing weights are converted into
    `weights_directory` first. `stand_in` gives a network of the same contract without weights, which enlarges by
    nearest neighbour exactly and does not touch the folder. Raises `UnknownEngine` and `WeightsError`.
    """
    engine = get_engine(engine_id)
    if stand_in:
        return NearestNeighbour(scale=engine.scale).eval()
    state = load_state_dict(ensure_weights(engine_id, weights_directory), engine)
    network = network_for_state({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert network is not None, "verified by load_state_dict"
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def read_properties(
    engine_id: str, *, weights_directory: str | Path, stand_in: bool = False
) -> NetworkProperties:
    """Returns what the dimensions of the network that `load_network` would give tell, without loading its weights.

    Raises as `load_network`.
    """
    if stand_in:
        return NearestNeighbour(scale=get_engine(engine_id).scale).properties
    return read_network(ensure_weights(engine_id, weights_directory)).properties
