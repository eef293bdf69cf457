"""Crops of real films."""

from pathlib import Path

import numpy as np
import pytest

CROPS = Path(__file__).parent / "models" / "crops"


@pytest.fixture(scope="session", params=["bunny-64x48", "webb-47x35"])
def crop_pixels(request):
    """rows x columns x 3 uint8, RGB, from a real film."""
    return np.load(CROPS / f"{request.param}.npy")
