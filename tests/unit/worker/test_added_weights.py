"""Engines that an operator adds: any 4x network, from a file that no one vouches for."""

import hashlib
import math
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import checkpoints
from models.added import added_engines, find_engine
from models.architectures import RRDBNet, SRVGGNetCompact
from models.architectures.foreign import import_spandrel
from models.catalog import ENGINES, UnknownEngine
from models.errors import WeightsCorrupt, WeightsError
from models.loader import load_network, read_properties
from models.weights import ensure_weights, load_state_dict, weights_path
from worker.added_weights import add_engine
from worker.inference.devices import CpuDevice
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import make_upscaler

OWN = {"features": 8, "convolutions": 2}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A fine-tuned network of an architecture of ours."""
    torch.manual_seed(0)
    path = tmp_path / "own.pth"
    torch.save({"params": SRVGGNetCompact(**OWN).state_dict(), "license": "CC-BY-4.0"}, path)
    return path


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Any]:
    def run(source: Path | str, engine_id: str = "own-net", **options: Any) -> Any:
        options = {"sha256": None, "cost_multiplier": 1.5, **options}
        return add_engine(engine_id, str(source), directory=tmp_path / "weights", **options)

    return run


def frames_of(engine_id: str, directory: Path, **options: Any) -> np.ndarray:
    source = FrameFormat(width=53, height=37, layout="gbr", full_range=True)
    upscaler = make_upscaler(
        engine_id=engine_id,
        source=source,
        target=source.enlarged(4),
        weights_directory=directory,
        device="cpu",
        **options,
    )
    frame = np.random.default_rng(0).integers(0, 256, source.frame_bytes, np.uint8)
    return upscaler.upscale([frame])[0]


def test_a_network_of_our_own_architectures_is_an_engine_at_once(own, add, tmp_path):
    engine = add(own, description="Mine.\n")
    directory = tmp_path / "weights"
    assert (engine.id, engine.name, engine.cost_multiplier) == ("own-net", "SRVGGNetCompact", 1.5)
    assert (engine.licence, engine.description, engine.scale) == ("CC-BY-4.0", "Mine.", 4)
    assert added_engines(directory) == {"own-net": engine} == {"own-net": find_engine("own-net", directory)}
    # Its class is what the compiled kernels recognize.
    network = load_network("own-net", weights_directory=directory)
    assert isinstance(network, SRVGGNetCompact)
    assert torch.equal(network.body[0].weight, torch.load(own)["params"]["body.0.weight"])
    assert read_properties("own-net", weights_directory=directory) == network.properties
    assert frames_of("own-net", directory).size == 3 * 16 * 53 * 37
    # The file is all there is of it.
    shutil.copytree(directory, tmp_path / "another machine")
    assert added_engines(tmp_path / "another machine") == {"own-net": engine}


def test_a_precision_that_is_not_exact_is_never_used(tmp_path, add):
    """Weights whose sums cancel need more bits than bfloat16 has, whatever an operator sets."""
    torch.manual_seed(0)
    network = SRVGGNetCompact(**OWN)
    with torch.no_grad():
        network.body[2].weight.mul_(10)
        network.body[2].bias.add_(2000)
        network.body[4].weight.copy_(torch.tensor([0.01, -0.01]).repeat(4)[None, :, None, None])
    path = tmp_path / "rough.pth"
    torch.save(network.state_dict(), path)
    add(path)
    properties = read_properties("own-net", weights_directory=tmp_path / "weights")
    assert "fp32" in properties.exact_precisions
    assert "bf16" not in properties.exact_precisions
    assert CpuDevice().possible_precisions("bf16", properties) == ["fp32"]
    plain, asked = (
        frames_of("own-net", tmp_path / "weights", precision=precision) for precision in ("fp32", "bf16")
    )
    assert np.array_equal(plain, asked)


needs_spandrel = pytest.mark.skipif(find_spec("spandrel") is None, reason="spandrel is not installed")


def foreign(name: str) -> torch.nn.Module:
    import_spandrel()
    torch.manual_seed(0)
    if name == "SPAN":
        from spandrel.architectures.SPAN import SPAN

        return SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4)
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        **{"upscale": 4, "in_chans": 3, "img_size": 64, "window_size": 8, "depths": [2], "embed_dim": 8},
        **{"num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect", "resi_connection": "1conv"},
    )


@needs_spandrel
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", ["SPAN", "SwinIR"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_network_that_spandrel_knows_gives_what_spandrel_gives(name, kind, add, tmp_path):
    """A convolutional network, and one with attention in windows, of a size that is no multiple of them."""
    spandrel = import_spandrel()
    state, path = foreign(name).state_dict(), tmp_path / f"net.{kind}"
    if kind == "pth":
        torch.save({"params_ema": state}, path)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, path, {"license": "MIT"})
    engine = add(path)
    assert (engine.name, engine.licence) == (name, "unknown" if kind == "pth" else "MIT")
    network = load_network("own-net", weights_directory=tmp_path / "weights")
    picture = torch.rand(2, 3, 21, 30, generator=torch.Generator().manual_seed(1))
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(state)).eval()
    with torch.inference_mode():
        ours = network(picture)
    assert torch.equal(ours, torch.cat([theirs(one[None]) for one in picture]))
    assert network.properties == read_properties("own-net", weights_directory=tmp_path / "weights")
    assert network.properties.mflop_per_input_pixel > 0
    assert frames_of("own-net", tmp_path / "weights").size == 3 * 16 * 53 * 37


@needs_spandrel
def test_tiles_of_the_measured_overlap_equal_the_whole(add, tmp_path):
    from worker.inference.runtime import Runtime
    from worker.inference.tiles import TiledNetwork, smallest_tile_pixels

    path = tmp_path / "net.pth"
    torch.save(foreign("SPAN").state_dict(), path)
    add(path)
    network = load_network("own-net", weights_directory=tmp_path / "weights")
    overlap = network.properties.tile_overlap
    assert overlap <= 32
    picture = torch.rand(1, 3, 60, 130, generator=torch.Generator().manual_seed(1))
    runtime = Runtime(network=network, memory_format=torch.contiguous_format, reach_pixels=0)
    size = {"width": 130, "height": 60, "overlap": overlap}
    tiled = TiledNetwork(runtime, **size, scale=4, tile_pixels=smallest_tile_pixels(**size))
    assert tiled.count > 1
    with torch.inference_mode():
        assert (tiled(picture) - network(picture)).abs().max().item() < 0.5 / 255


class Exploding:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint ran')",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: {"params": Exploding()}, "not a checkpoint of only weights"),
        (lambda: SRVGGNetCompact(**OWN, scale=2).state_dict(), "scale of 2"),
        (lambda: {"w": torch.full((2,), math.nan)}, "not finite"),
        (lambda: {"w": "text"}, "not a tensor"),
        (lambda: [1, 2], "no state dict"),
        (lambda: {"w": torch.zeros(1).expand(10**7, 10**6)}, "not finite numbers"),
        (lambda: {"w": torch.zeros(3)}, "spandrel"),
    ],
)
def test_what_is_no_network_for_an_engine_is_refused(content, sentence, add, tmp_path):
    path = tmp_path / "bad.pth"
    torch.save(content(), path)
    with pytest.raises(WeightsError, match=sentence):
        add(path)
    assert not list(tmp_path.glob("weights/*"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"PK\x03\x04 no zip", b"\x80\x02."])
def test_no_file_is_more_than_a_sentence(content, add, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt):
        add(path)


def test_names_digests_and_sizes_are_checked_first(own, add, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="built in"):
        add(own, next(iter(ENGINES)))
    for name in ("../up", "Upper", "", "a" * 41, "-a"):
        with pytest.raises(WeightsError, match="lower-case"):
            add(own, name)
    with pytest.raises(WeightsError, match="needs --sha256"):
        add("https://example.com/net.pth")
    with pytest.raises(WeightsCorrupt, match="is expected"):
        add(own, sha256="0" * 64)
    add(own, sha256=hashlib.sha256(own.read_bytes()).hexdigest().upper())
    with pytest.raises(WeightsError, match="--replace"):
        add(own)
    assert add(own, replaces=True, licence="mine").licence == "mine"
    monkeypatch.setattr(checkpoints, "MAX_CHECKPOINT_BYTES", 100)
    with pytest.raises(WeightsCorrupt, match="larger"):
        add(own, "another")


def test_a_damaged_engine_is_found_out_and_an_undescribed_one_is_none(own, add, tmp_path):
    engine = add(own)
    path = weights_path(engine.id, tmp_path / "weights")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match="damaged"):
        load_state_dict(path, engine)
    path.write_bytes(path.read_bytes().replace(b'"cost_multiplier":"1.5"', b'"cost_multiplier":"nan"'))
    assert added_engines(path.parent) == {}
    with pytest.raises(WeightsCorrupt, match="add it again"):
        find_engine(engine.id, path.parent)
    with pytest.raises(UnknownEngine):
        find_engine("absent", path.parent)


@pytest.mark.parametrize("engine_id", ENGINES)
@pytest.mark.slow
def test_fine_tuned_weights_replace_those_of_a_built_in_engine(engine_id, tmp_path):
    """From a safetensors file of the same shape; the picture is that of the fine-tuned network."""
    shape = {"regen-4x": {"blocks": 23}, "regen-4x-anime": {"blocks": 6}}.get(engine_id)
    torch.manual_seed(0)
    network = SRVGGNetCompact() if shape is None else RRDBNet(**shape)
    path = tmp_path / "tuned.safetensors"
    save_file(network.state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    ensure_weights(engine_id, tmp_path / "weights", source=path, sha256=sha256)
    picture = torch.rand(1, 3, 9, 12)
    with torch.inference_mode():
        assert torch.equal(
            load_network(engine_id, weights_directory=tmp_path / "weights")(picture), network.eval()(picture)
        )
