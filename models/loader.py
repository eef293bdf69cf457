"""From an engine's id to a network ready to run."""

from pathlib import Path

import torch
from torch import nn

from models.architectures import NearestNeighbour, build_network
from models.catalog import get_engine
from models.weights import ensure_weights, load_state_dict


def load_network(engine_id: str, *, weights_directory: str | Path, stand_in: bool = False) -> nn.Module:
    """The engine's network: float32, on the CPU, in evaluation mode, no parameter requiring a gradient.

    It takes N x 3 x H x W (RGB, 0 to 1) and gives N x 3 x 4H x 4W. Weights that are not in
    `weights_directory` are converted into it first. `stand_in` gives a network of the same contract without
    weights instead, which enlarges by nearest neighbour exactly; the folder is then not looked at. Raises
    `UnknownEngine` and `WeightsError`.
    """
    engine = get_engine(engine_id)
    if stand_in:
        return NearestNeighbour(scale=engine.scale).eval()
    state = load_state_dict(ensure_weights(engine_id, weights_directory), engine)
    with torch.device("meta"):  # no time lost on random weights
        network = build_network(engine)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()
