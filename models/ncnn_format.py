"""Reads weights out of ncnn's two files, `.param` (text) and `.bin`.

Source: ncnn, docs/developer-guide/param-and-model-file-structure.md and src/modelbin.cpp. After the magic
number and the counts, `.param` has a layer a line: type, name, number of inputs and outputs, their names,
then `key=value` pairs. `.bin` holds the weights of the layers in that order without any header: for a
convolution a 32-bit tag, the weights (with tag 0x01306B47 as 16-bit floats, padded to 4 bytes), then the
biases as 32-bit floats; for a PReLU its slopes as 32-bit floats. All little-endian. A convolution's weights
lie as PyTorch lays them out: output channel, input channel, row, column.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from models.errors import WeightsCorrupt

_PARAM_MAGIC = "7767517"
_FP16_TAG = 0x01306B47

_CONVOLUTION_OUTPUTS = "0"
_CONVOLUTION_WEIGHTS = "6"
_PRELU_SLOPES = "0"


def read_state_dict(param: str, binary: bytes, *, network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of `network` from the content of the two files.

    `network` (which may be on the meta device) gives names and shapes: its convolutions and PReLUs must be
    registered in the order of the file. Convolution weights come as float16, which is what is stored, biases
    and slopes as float32. Raises `WeightsCorrupt` where file and network disagree.
    """
    reader = _BinReader(binary)
    layers = _weighted_layers(param)
    state: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            _expect(
                next(layers, None),
                "Convolution",
                {_CONVOLUTION_OUTPUTS: module.out_channels, _CONVOLUTION_WEIGHTS: module.weight.numel()},
                name,
            )
            state[f"{name}.weight"] = reader.read_fp16_tagged(module.weight.numel()).reshape(
                module.weight.shape
            )
            state[f"{name}.bias"] = reader.read_fp32(module.out_channels)
        elif isinstance(module, nn.PReLU):
            _expect(next(layers, None), "PReLU", {_PRELU_SLOPES: module.num_parameters}, name)
            state[f"{name}.weight"] = reader.read_fp32(module.num_parameters)
    if next(layers, None) is not None or reader.remaining:
        raise WeightsCorrupt("The ncnn files hold more layers than the network.")
    return state


def _weighted_layers(param: str) -> Iterator[tuple[str, dict[str, str]]]:
    lines = param.splitlines()
    if not lines or lines[0].strip() != _PARAM_MAGIC:
        raise WeightsCorrupt("The .param file does not begin with ncnn's magic number.")
    for line in lines[2:]:
        fields = line.split()
        if fields and fields[0] in ("Convolution", "PReLU"):
            yield fields[0], dict(pair.split("=", 1) for pair in fields[1:] if "=" in pair)


def _expect(layer: tuple[str, dict[str, str]] | None, kind: str, sizes: dict[str, int], name: str) -> None:
    if layer is None or layer[0] != kind or any(layer[1].get(key) != str(n) for key, n in sizes.items()):
        raise WeightsCorrupt(f"The .param file's layers do not match the network at {name}: found {layer}.")


class _BinReader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0

    @property
    def remaining(self) -> int:
        return len(self._content) - self._offset

    def read_fp32(self, count: int) -> torch.Tensor:
        return torch.from_numpy(self._take(count, "<f4").astype(np.float32))

    def read_fp16_tagged(self, count: int) -> torch.Tensor:
        tag = int(self._take(1, "<u4")[0])
        if tag != _FP16_TAG:
            raise WeightsCorrupt(f"The .bin file has tag {tag:#010x} where 16-bit weights are expected.")
        values = self._take(count, "<f2").astype(np.float16)
        self._offset += -self._offset % 4
        return torch.from_numpy(values)

    def _take(self, count: int, dtype: str) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
        size = count * np.dtype(dtype).itemsize
        if self.remaining < size:
            raise WeightsCorrupt("The .bin file ends too early.")
        values = np.frombuffer(self._content, dtype, count, self._offset)
        self._offset += size
        return values
