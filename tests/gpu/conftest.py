import os

import pytest
import torch

from worker.inference.devices import choose_device


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("FAIL_WITHOUT_CUDA=1, and there is no CUDA device")
        pytest.skip("there is no CUDA device")
    return choose_device("cuda")
