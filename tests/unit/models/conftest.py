from pathlib import Path

import numpy as np
import pytest
import torch

from models.catalog import ENGINES
from models.weights import ensure_weights

CROPS = Path(__file__).parent / "crops"


@pytest.fixture(scope="session")
def weights_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("weights")
    for engine_id in ENGINES:
        ensure_weights(engine_id, directory)
    return directory


@pytest.fixture(scope="session", params=["bunny-64x48", "webb-47x35"])
def crop(request):
    """1 x 3 x H x W float32 in [0, 1], from a real film."""
    pixels = np.load(CROPS / f"{request.param}.npy")
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
