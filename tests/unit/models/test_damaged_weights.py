"""Weights of which a part was changed: the reader gives what they say, or refuses them with a sentence."""

import hashlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import RRDBNet, SRVGGNetCompact, network_for_state
from models.catalog import get_engine
from models.ncnn_format import read_state_dict
from models.weights import WeightsCorrupt, WeightsError, ensure_weights, load_state_dict, read_network

ENGINE = "regen-4x-lite"
SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 4, 9, 12, 48, 64, 147, 2**16, 2**31, 2**63, 10**30])
# Where the bytes are changed, as a share of the whole, and into what.
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@cache
def small_state() -> Mapping[str, torch.Tensor]:
    torch.manual_seed(0)
    return SRVGGNetCompact(features=4, convolutions=1, scale=4).state_dict()


@cache
def names_of_states() -> tuple[str, ...]:
    with torch.device("meta"):
        larger = RRDBNet(features=4, growth=2, blocks=1).state_dict()
    return (*small_state(), *larger, "", "body.1.weight.weight", "conv_first")


def changed(content: bytes, changes: list[tuple[float, int]], length: float = 1.0) -> bytes:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * len(content))] = value
    return bytes(damaged[: round(length * len(content))])


def convert(directory: Path, content: bytes) -> Path:
    source = directory / "own.pth"
    source.write_bytes(content)
    return ensure_weights(
        ENGINE, directory / "weights", source=source, sha256=hashlib.sha256(content).hexdigest()
    )


def saved(checkpoint: object) -> bytes:
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


@st.composite
def states_of_shapes(draw: st.DrawFn) -> dict[str, tuple[int, ...]]:
    """Those of a network, with some changed, left out or added."""
    shapes = {name: tuple(tensor.shape) for name, tensor in small_state().items()}
    others = st.lists(SIZES, max_size=5).map(tuple)
    changes = draw(st.dictionaries(st.sampled_from(names_of_states()), others | st.none(), max_size=4))
    return {name: shape for name, shape in {**shapes, **changes}.items() if shape is not None}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(max_examples=80)
@given(shapes=states_of_shapes() | st.dictionaries(st.text(max_size=5), st.tuples(SIZES), max_size=3))
def test_shapes_are_those_of_a_network_or_of_none(shapes):
    network = network_for_state(shapes)
    if network is not None:
        assert {name: tuple(one.shape) for name, one in network.state_dict().items()} == shapes


values = st.sampled_from(
    [
        *(torch.zeros(4), torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.bfloat16)),
        *(torch.zeros(0), torch.zeros(()), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int64)),
        *(torch.full((4,), float("nan")), torch.zeros(48, 4, 3, 3).transpose(0, 1), torch.zeros(1).expand(4)),
        *(None, 1, "text", b"bytes", [torch.zeros(4)], {"weight": torch.zeros(4)}),
    ]
)
names = st.sampled_from((*names_of_states(), 0, None)) | st.text(max_size=3)


@settings(max_examples=60)
@given(
    changes=st.dictionaries(names, values, max_size=2),
    left_out=st.sets(names, max_size=1),
    wrapped=st.sampled_from([None, "params", "params_ema", "state_dict", "other"]),
)
def test_a_state_dict_is_kept_as_it_is_or_refused(tmp_path_factory, changes, left_out, wrapped):
    state: dict[Any, Any] = {**small_state(), **changes}
    state = {name: value for name, value in state.items() if name not in left_out}
    directory = tmp_path_factory.getbasetemp() / "state-dicts"
    directory.mkdir(exist_ok=True)
    try:
        path = convert(directory, saved(state if wrapped is None else {wrapped: state}))
    except WeightsCorrupt as error:
        assert "own.pth" in str(error)
        return
    kept = load_state_dict(path, get_engine(ENGINE))
    assert kept.keys() == {str(name) for name in state}
    assert all(torch.equal(kept[str(name)], value.to(torch.float32)) for name, value in state.items())


@settings(max_examples=60)
@given(changes=CHANGES, length=st.just(1.0) | st.floats(0, 1))
def test_a_damaged_checkpoint_is_read_or_refused(tmp_path_factory, changes, length):
    directory = tmp_path_factory.getbasetemp() / "checkpoints"
    directory.mkdir(exist_ok=True)
    try:
        path = convert(directory, changed(saved({"params": dict(small_state())}), changes, length))
    except WeightsCorrupt as error:
        assert "own.pth" in str(error)
    else:
        assert load_state_dict(path, get_engine(ENGINE)).keys() == small_state().keys()


@settings(max_examples=60)
@given(changes=CHANGES, length=st.just(1.0) | st.floats(0, 1))
def test_damaged_converted_weights_are_those_that_were_written_or_refused(tmp_path_factory, changes, length):
    directory = tmp_path_factory.getbasetemp() / "converted"
    directory.mkdir(exist_ok=True)
    content = convert(directory, saved(dict(small_state()))).read_bytes()
    path = directory / "damaged.safetensors"
    path.write_bytes(changed(content, changes, length))
    try:
        state = load_state_dict(path, get_engine(ENGINE))
    except WeightsError:
        pass
    else:
        assert all(torch.equal(state[name], tensor) for name, tensor in small_state().items())
    try:
        read_network(path)
    except WeightsError as error:
        assert str(path) in str(error)


@cache
def ncnn_files() -> tuple[str, bytes]:
    """The small network in ncnn's two files."""
    lines, binary = ["7767517", "5 5"], b""
    for name, tensor in small_state().items():
        if tensor.dim() == 4:
            lines.append(f"Convolution c 1 1 a b 0={tensor.shape[0]} 1=3 6={tensor.numel()}")
            weights = tensor.numpy().astype("<f2").tobytes()
            binary += np.uint32(0x01306B47).tobytes() + weights + bytes(-len(weights) % 4)
        else:
            if name.endswith("weight"):
                lines.append(f"PReLU p 1 1 a b 0={tensor.numel()}")
            binary += tensor.numpy().astype("<f4").tobytes()
    return "\n".join(lines), binary


@settings(max_examples=80)
@given(of_param=CHANGES, of_binary=CHANGES, length=st.just(1.0) | st.floats(0, 1))
def test_damaged_files_of_ncnn_are_read_or_refused(of_param, of_binary, length):
    param, binary = ncnn_files()
    text = changed(param.encode(), of_param).decode("latin-1")
    try:
        state = read_state_dict(text, changed(binary, of_binary, length))
    except WeightsCorrupt as error:
        assert "file" in str(error)
    else:
        assert {name: one.shape for name, one in state.items()} == {
            name: one.shape for name, one in small_state().items()
        }


def test_undamaged_files_of_ncnn_are_read() -> None:
    state = read_state_dict(*ncnn_files())
    for name, tensor in small_state().items():
        assert torch.allclose(state[name].float(), tensor, atol=1e-3), name
