from pathlib import Path

import pytest

# As a project gets them that has the package installed.
from pytest_regen import regen_mock

__all__ = ["regen_mock"]


@pytest.fixture(scope="session")
def clip() -> Path:
    """240 x 136, 25 frames a second, 50 frames, with sound."""
    return Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"
