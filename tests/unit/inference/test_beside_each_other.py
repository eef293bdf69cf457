"""Two upscalers in one process: a preview's beside that of the segment in hand."""

import pytest
import torch

from models.architectures.nearest import NearestNeighbour
from models.catalog import ENGINES
from worker.inference.devices import CpuDevice, cuda
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler


def test_cudnn_stays_exact_until_the_last_one_is_done() -> None:
    settings = cuda._ExactCudnn()
    before = torch.backends.cudnn.allow_tf32
    segment, preview = settings.held(), settings.held()
    preview.__enter__()
    segment.__enter__()
    preview.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    segment.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32 == before


def test_one_may_plan_with_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuDevice, "available_bytes", lambda self: 3 * 850 * 128 * 128)
    source = FrameFormat(width=128, height=128)

    def tiles(**options: float) -> int:
        return Upscaler(
            NearestNeighbour(),
            engine=ENGINES["regen-4x-lite"],
            source=source,
            target=source.enlarged(4),
            device=CpuDevice(),
            precision="fp32",
            **options,  # type: ignore[arg-type]
        ).tile_count

    assert tiles() == 1
    assert tiles(memory_share=0.25) > 1
