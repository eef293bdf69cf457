"""The safetensors format, read and written without the library.

Source: https://github.com/huggingface/safetensors#format. Eight bytes (little-endian) give the length of a
JSON header, padded with spaces; then the tensors' bytes, without gaps. The header maps a name to its dtype,
shape and offsets, and `__metadata__` to strings.

Ours, because the catalog states the sha256 of what is written: the library orders metadata by a hash that
changes from run to run, and is free to order tensors otherwise in its next version. And because a machine
with nothing but torch and numpy can then load weights.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit


@dataclass(frozen=True, kw_only=True)
class SafetensorsFile:
    """A parsed file. `data` is everything behind the header, `tensors` views into it (read them, do not
    write).
    """

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]
    data: memoryview

    @property
    def data_sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def serialize(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: the same for the same tensors and metadata, on any machine.

    Adds `data_sha256` to the metadata: the digest of everything behind the header, by which a file whose own
    digest nobody knows can still be verified. Wider dtypes come first, so that every tensor is aligned.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    blobs = [_bytes_of(tensors[name]) for name in names]
    data = b"".join(blobs)
    header: dict[str, object] = {
        "__metadata__": {**dict(sorted(metadata.items())), "data_sha256": hashlib.sha256(data).hexdigest()}
    }
    offset = 0
    for name, blob in zip(names, blobs, strict=True):
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def parse(content: bytes) -> SafetensorsFile:
    """Parses a file's bytes. Raises `ValueError` where they are not the format or hold another dtype than
    floats.
    """
    try:
        return _parse(content)
    except (KeyError, TypeError, AttributeError, RuntimeError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a safetensors file: {error}") from error


def _parse(content: bytes) -> SafetensorsFile:
    (length,) = struct.unpack_from("<Q", content)
    if length > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError("the header is longer than the file")
    header = json.loads(content[8 : 8 + length])
    data = memoryview(content)[8 + length :]
    metadata = header.pop("__metadata__", {})
    tensors: dict[str, torch.Tensor] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        shape = [int(size) for size in entry["shape"]]
        count = torch.Size(shape).numel()
        if not 0 <= begin <= end <= len(data) or end - begin != count * dtype.itemsize:
            raise ValueError(f"the offsets of {name} do not fit")
        if count == 0:
            tensors[name] = torch.empty(shape, dtype=dtype)
            continue
        # A bytearray, since torch warns about memory that it could not write.
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
    return SafetensorsFile(tensors=tensors, metadata=metadata, data=data)


def _bytes_of(tensor: torch.Tensor) -> bytes:
    if tensor.dtype not in _NAMES:
        raise ValueError(f"dtype {tensor.dtype} is not stored")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
