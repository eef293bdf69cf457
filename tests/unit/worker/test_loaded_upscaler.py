"""The upscaler that a worker holds: made once for what follows each other, its errors of our tree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.platform.errors import ConfigurationError, TransientError
from app.platform.settings import Settings
from models.architectures import SRVGGNetCompact
from models.catalog import ENGINES
from worker.added_weights import add_engine
from worker.inference.devices import CpuDevice
from worker.inference.errors import InsufficientMemory
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.pipeline import encoder_threads

SMALL = FrameFormat(width=16, height=12)
LARGE = FrameFormat(width=4096, height=2304)


def networks(tmp_path: Path, **settings: object) -> Networks:
    return Networks(Settings(data_dir=tmp_path, device="cpu", stand_in_network=True, **settings))


def test_frames_are_enlarged(tmp_path: Path) -> None:
    upscaler = networks(tmp_path).upscaler(
        UpscalerKey(engine_id="regen-4x", source=SMALL, target=SMALL.enlarged(4))
    )
    frame = np.full(SMALL.frame_bytes, 128, np.uint8)
    (result,) = upscaler.upscale([frame])
    assert result.shape == (SMALL.enlarged(4).frame_bytes,)
    assert set(result) == {128}


@pytest.mark.parametrize("wrong", [{"device": "cuda:99"}, {"precision": "fp16"}])
def test_a_machine_that_cannot_do_as_set_is_found_out_before_any_work(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    settings = {"data_dir": tmp_path, "device": "cpu", "stand_in_network": True, **wrong}
    with pytest.raises(ConfigurationError):
        Networks(Settings(**settings)).check()


@pytest.mark.parametrize(
    ("choice", "native", "expected"),
    [
        ("auto", {"fp32"}, ["fp32"]),
        ("auto", {"bf16-direct", "mixed", "fp32"}, ["fp32", "mixed-cpu-1", "bf16-direct"]),
        ("bf16", {"fp32", "mixed"}, ["fp32", "bf16-cpu-1"]),
        ("fp32", {"fp32", "mixed"}, ["fp32"]),
    ],
)
def test_a_worker_goes_on_in_what_its_processor_computes_or_in_what_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, native: set[str], expected: list[str]
) -> None:
    monkeypatch.setattr(CpuDevice, "native_precisions", lambda _self: frozenset(native))
    monkeypatch.setattr("worker.inference.devices.cpu._bf16_instructions", lambda: "cpu")
    monkeypatch.setattr(torch, "__version__", "1+cpu")
    at = networks(tmp_path, precision=choice)
    assert list(at.precisions) == expected
    assert at.own_precision("regen-4x") == (expected[0] if choice == "auto" else expected[-1])
    for name in expected:
        key = UpscalerKey(engine_id="regen-4x", source=SMALL, target=SMALL.enlarged(4), precision=name)
        at.upscaler(key)
        assert at.has(key)
        assert not at.has(replace(key, precision=None))


def test_bf16_of_other_instructions_or_of_another_torch_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for instructions in ("amx", "avx512_bf16"):
        for version in ("2.13.0+cpu", "2.13.1"):
            monkeypatch.setattr("worker.inference.devices.cpu._bf16_instructions", lambda it=instructions: it)
            monkeypatch.setattr(torch, "__version__", version)
            found |= {CpuDevice().numerics(one) for one in ("fp32", "bf16", "mixed", "bf16-direct")}
    assert len(found) == 2 + 2 * 4 and {"fp32", "bf16-direct", "mixed-amx-2.13.0"} < found


def test_weights_that_cannot_be_used_are_found_out_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("not a folder")
    settings = Settings(data_dir=tmp_path, weights_dir=tmp_path / "weights", device="cpu")
    with pytest.raises(ConfigurationError):
        Networks(settings).check()


def add_own_net(tmp_path: Path) -> Path:
    """Adds an engine of random weights, or replaces it, and returns its file."""
    source = tmp_path / "own.pth"
    torch.save(SRVGGNetCompact(features=4, convolutions=1).state_dict(), source)
    directory = tmp_path / "weights"
    add_engine("own-net", str(source), directory=directory, sha256=None, cost_multiplier=1, replaces=True)
    return directory / "own-net.safetensors"


@pytest.fixture
def own_net(tmp_path: Path) -> Path:
    return add_own_net(tmp_path)


def test_engines_that_are_added_and_removed_meanwhile_are_known_at_once(
    tmp_path: Path, own_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = networks(tmp_path, weights_dir=own_net.parent)
    assert loaded.engines == (*ENGINES, "own-net")
    assert networks(tmp_path, weights_dir=own_net.parent, engines="regen-4x").added_engines == {}
    assert [*networks(tmp_path, weights_dir=own_net.parent, engines="own-net").added_engines] == ["own-net"]
    loaded.check()
    # A network of another architecture is no engine of a machine without spandrel.
    monkeypatch.setattr("worker.loaded_upscaler.can_run", lambda engine: False)
    assert loaded.engines == tuple(ENGINES)
    own_net.unlink()
    assert loaded.added_engines == {}
    # A segment that was claimed before is another worker's; the machine is not to blame.
    with pytest.raises(TransientError, match="no longer has"):
        loaded.upscaler(UpscalerKey(engine_id="own-net", source=SMALL, target=SMALL.enlarged(4)))


def test_weights_that_are_replaced_are_used_from_then_on(tmp_path: Path, own_net: Path) -> None:
    settings = Settings(data_dir=tmp_path, weights_dir=own_net.parent, device="cpu", precision="fp32")
    loaded, key = Networks(settings), UpscalerKey(engine_id="own-net", source=SMALL, target=SMALL.enlarged(4))
    frame = np.arange(SMALL.frame_bytes, dtype=np.uint8)
    (former,) = loaded.upscaler(key).upscale([frame])
    assert loaded.has(key)
    add_own_net(tmp_path)
    assert not loaded.has(key)
    (latter,) = loaded.upscaler(key).upscale([frame])
    assert loaded.has(key)
    assert not np.array_equal(former, latter)


def test_memory_that_does_not_suffice_is_worth_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: Upscaler, frames: object, **_options: object) -> list[object]:
        raise InsufficientMemory("no room")

    monkeypatch.setattr(Upscaler, "upscale", exhausted)
    upscaler = networks(tmp_path).upscaler(
        UpscalerKey(engine_id="regen-4x", source=SMALL, target=SMALL.enlarged(4))
    )
    with pytest.raises(TransientError):
        upscaler.upscale([np.zeros(SMALL.frame_bytes, np.uint8)])


@pytest.mark.parametrize(("threads", "of_the_encoder"), [(1, 1), (2, 1), (4, 2), (5, 3), (64, 32)])
def test_the_encoder_leaves_a_networks_processor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, of_the_encoder: int
) -> None:
    upscaler = networks(tmp_path).upscaler(
        UpscalerKey(engine_id="regen-4x-lite", source=SMALL, target=SMALL.enlarged(4))
    )
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert encoder_threads(upscaler) == of_the_encoder
    monkeypatch.setattr(Upscaler, "processor_threads", None)
    assert encoder_threads(upscaler) is None


def test_the_watchdog_waits_longer_for_more_work(tmp_path: Path) -> None:
    def patience(engine_id: str, source: FrameFormat) -> float:
        own = networks(tmp_path).upscaler(
            UpscalerKey(engine_id=engine_id, source=source, target=source.enlarged(4))
        )
        return own.longest_batch_seconds

    assert patience("regen-4x-lite", SMALL) < 1
    # At 10 GFLOP/s such a frame is 19 minutes' work for the network that the stand-in plans as.
    assert patience("regen-4x", LARGE) > 1000
