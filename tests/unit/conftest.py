"""The engines' weights, converted once, and crops of real films."""

from pathlib import Path

import numpy as np
import pytest

from models.catalog import ENGINES
from models.weights import ensure_weights

CROPS = Path(__file__).parent / "models" / "crops"


@pytest.fixture(scope="session")
def weights_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("weights")
    for engine_id in ENGINES:
        ensure_weights(engine_id, directory)
    return directory


@pytest.fixture(scope="session", params=["bunny-64x48", "webb-47x35"])
def crop_pixels(request):
    """rows x columns x 3 uint8, RGB, from a real film."""
    return np.load(CROPS / f"{request.param}.npy")
