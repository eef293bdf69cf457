"""Whatever a weights file says: it is read, or refused with a sentence."""

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import SRVGGNetCompact
from models.catalog import get_engine
from models.checkpoints import read_checkpoint
from models.ncnn_format import read_state_dict
from models.weights import WeightsCorrupt, WeightsError, ensure_weights, load_state_dict, read_network

LITE = "regen-4x-lite"
NETWORK = {"features": 4, "convolutions": 1, "scale": 4}
NUMBERS = st.sampled_from(
    [-(2**63), -64, -1, 0, 1, 3, 4, 48, 108, 144, 1728, 2**16, 2**31, 2**63, 2**64, 10**30]
)
DTYPES = ["F4", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F16", "BF16", "F32", "F64", "C64", "BOOL", "I8", "U8", "X7"]


def ncnn_layer(name: str, *, outputs: object, weights: object = None) -> str:
    tail = "" if weights is None else f" 6={weights}"
    return f"{name} a 1 1 a b 0={outputs}{tail}"


ncnn_layers = st.one_of(
    st.builds(lambda outputs: ncnn_layer("PReLU", outputs=outputs), NUMBERS),
    st.builds(
        lambda outputs, inputs: ncnn_layer("Convolution", outputs=outputs, weights=inputs), NUMBERS, NUMBERS
    ),
    st.builds(
        lambda outputs, inputs: ncnn_layer("Convolution", outputs=outputs, weights=9 * outputs * inputs),
        NUMBERS,
        NUMBERS,
    ),
    st.text(max_size=20),
)


@settings(max_examples=60)
@given(layers=st.lists(ncnn_layers, max_size=6), binary=st.binary(max_size=64))
def test_no_param_file_breaks_the_reader_of_ncnn(layers, binary):
    with pytest.raises(WeightsCorrupt, match="file"):
        read_state_dict("\n".join(["7767517", "1 1", *layers]), binary)


@pytest.mark.parametrize("outputs", [10**20, -64])
def test_layers_of_impossible_sizes_are_no_network(outputs):
    layers = [
        ncnn_layer("Convolution", outputs=outputs, weights=27 * outputs),
        ncnn_layer("PReLU", outputs=outputs),
        ncnn_layer("Convolution", outputs=48, weights=9 * 48 * outputs),
    ]
    with pytest.raises(WeightsCorrupt, match="no known architecture"):
        read_state_dict("\n".join(["7767517", "1 1", *layers]), b"")


@st.composite
def safetensors_files(draw: st.DrawFn) -> bytes:
    sizes = NUMBERS | st.sampled_from([1.5, None, "Infinity", float("inf"), float("nan")])
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(DTYPES),
            "shape": st.lists(sizes, max_size=4),
            "data_offsets": st.lists(st.sampled_from([0, 1, 4, 16, 64, -1, 2**63, 2**64]), max_size=3),
        }
    )
    names = st.sampled_from(
        ["body.0.weight", "body.0.bias", "conv_first.weight", "__metadata__", "", "\ud800"]
    )
    header = json.dumps(draw(st.dictionaries(names, tensor, max_size=3))).encode()
    length = draw(
        st.sampled_from([len(header), len(header) - 1, len(header) + 1, 0, 2**31, 2**63, 2**64 - 1])
    )
    return struct.pack("<Q", max(0, length)) + header + draw(st.binary(max_size=64))


@settings(max_examples=60)
@given(content=safetensors_files() | st.binary(max_size=40))
def test_no_file_breaks_the_reader_of_safetensors(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "hostile.safetensors"
    path.write_bytes(content)
    for read in (lambda: load_state_dict(path, get_engine(LITE)), lambda: read_network(path)):
        with pytest.raises(WeightsError, match=r"damaged|architecture|not for"):
            read()


Convert = Callable[[dict[str, Any]], Path]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    def run(changes: dict[str, Any]) -> Path:
        path = tmp_path / "own.pth"
        torch.save({"params": SRVGGNetCompact(**NETWORK).state_dict() | changes}, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return ensure_weights(LITE, tmp_path / "weights", source=path, sha256=sha256)

    return run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(4).to(torch.float8_e4m3fn),
        lambda: torch.zeros(4).to(torch.float8_e5m2),
        lambda: torch.zeros(4, dtype=torch.int8),
        lambda: torch.zeros(4, dtype=torch.complex64),
        lambda: torch.zeros(4, device="meta"),
        lambda: torch.zeros(4).to_sparse(),
        lambda: torch.zeros(4, 4).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.quint8),
        lambda: torch.zeros(1).expand(10**7, 10**6),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: torch.full((4,), float("nan")),
        lambda: torch.full((4,), float("inf")),
    ],
)
def test_tensors_of_unusual_kinds_are_refused(convert: Convert, make: Callable[[], torch.Tensor]) -> None:
    with pytest.raises(WeightsCorrupt, match=r"in body\.0\.bias that are not finite numbers"):
        convert({"body.0.bias": make()})


def test_tensors_that_share_memory_are_kept(convert: Convert) -> None:
    shared = torch.arange(4, dtype=torch.float32)
    path = convert({"body.0.bias": shared, "body.1.weight": shared})
    state = load_state_dict(path, get_engine(LITE))
    assert torch.equal(state["body.0.bias"], shared)
    assert torch.equal(state["body.1.weight"], shared)


class Command:
    """What a pickle runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_bare_pickle_is_refused_without_running_and_in_one_sentence(tmp_path, recwarn):
    source, mark = tmp_path / "evil.pth", tmp_path / "mark"
    source.write_bytes(pickle.dumps(Command(mark)))
    with pytest.raises(WeightsCorrupt, match="not a checkpoint of only weights"):
        read_checkpoint(str(source), tmp_path, sha256=None)
    assert not mark.exists()
    assert [*recwarn] == []
