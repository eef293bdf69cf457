import pytest
import torch


@pytest.fixture(scope="session")
def crop(crop_pixels):
    """1 x 3 x H x W float32 in [0, 1], from a real film."""
    return torch.from_numpy(crop_pixels).permute(2, 0, 1)[None].float() / 255
