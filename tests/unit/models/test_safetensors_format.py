"""Our reader and writer against the library's."""

import json
import struct

import pytest
import safetensors
import safetensors.torch
import torch

from models.safetensors_format import parse, serialize

TENSORS = {
    "b": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "a": torch.tensor([0.1, float("-inf")]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_library_reads_what_we_write(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(serialize(TENSORS, {"licence": "ä"}))
    same(safetensors.torch.load_file(path), TENSORS)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["licence"] == "ä"


def test_we_read_what_the_library_writes():
    file = parse(safetensors.torch.save(TENSORS, {"licence": "MIT"}))
    same(file.tensors, TENSORS)
    assert file.metadata == {"licence": "MIT"}


def test_the_same_content_gives_the_same_bytes_in_whatever_order_it_comes():
    metadata = {"x": "1", "y": "2"}
    backwards = dict(reversed(TENSORS.items()))
    assert serialize(TENSORS, metadata) == serialize(backwards, dict(reversed(metadata.items())))


def test_the_digest_of_the_data_is_kept_and_tells_a_change():
    content = bytearray(serialize(TENSORS, {}))
    assert parse(bytes(content)).metadata["data_sha256"] == parse(bytes(content)).data_sha256
    content[-1] ^= 1
    assert parse(bytes(content)).metadata["data_sha256"] != parse(bytes(content)).data_sha256


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        "not an object",
    ],
)
def test_headers_that_do_not_fit_the_data_are_refused(entry):
    header = json.dumps({"t": entry}).encode()
    with pytest.raises(ValueError):
        parse(struct.pack("<Q", len(header)) + header + b"\0" * 8)
