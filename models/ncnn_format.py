"""Reads weights from ncnn's two files, `.param` (text) and `.bin`.

Source: ncnn, docs/developer-guide/param-and-model-file-structure.md and src/modelbin.cpp. After the magic number and
the counts, `.param` has one layer per line: type, name, number of inputs and outputs, their names, then `key=value`
pairs. `.bin` holds the weights of the layers in that order, without a header: for a convolution a 32-bit tag, the
weights (with tag 0x01306B47 as 16-bit floats, padded to 4 bytes), then the biases as 32-bit floats; for a PReLU its
slopes as 32-bit floats. All are little-endian. A convolution's weights have PyTorch's order: output channel, input
channel, row, column.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.architectures import UpscalingNetwork, network_for_layers
from models.errors import WeightsCorrupt

_PARAM_MAGIC = "7767517"
_FP16_TAG = 0x01306B47
# The keys of a layer's output count (both kinds) and of a convolution's weight count.
_OUTPUTS, _WEIGHTS = "0", "6"
_KERNEL_VALUES = 9


def read_state_dict(param: str, binary: bytes) -> dict[str, torch.Tensor]:
    """Returns the state dict in the content of the two files, under the architecture's own parameter names.

    Convolution weights are float16, as they are stored; biases and slopes are float32. Raises `WeightsCorrupt` if the
    layers are those of no known architecture or the files disagree.
    """
    layers = _read_layers(param)
    network = _network_of(layers)
    reader = _BinReader(binary)
    state: dict[str, torch.Tensor] = {}
    modules = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.PReLU))]
    for (name, module), layer in zip(modules, layers, strict=True):
        outputs = module.out_channels if isinstance(module, nn.Conv2d) else module.num_parameters
        weights = module.weight.numel() if isinstance(module, nn.Conv2d) else 0
        if (layer.outputs, layer.weights) != (outputs, weights):
            raise WeightsCorrupt(
                f"The .param file's layers do not match the network at {name}: found {layer}."
            )
        if isinstance(module, nn.Conv2d):
            state[f"{name}.weight"] = reader.read_fp16_tagged(weights).reshape(module.weight.shape)
            state[f"{name}.bias"] = reader.read_fp32(outputs)
        else:
            state[f"{name}.weight"] = reader.read_fp32(outputs)
    if reader.remaining:
        raise WeightsCorrupt("The .bin file holds more than the layers of the .param file.")
    return state


@dataclass(frozen=True)
class _Layer:
    """A layer of the `.param` file that has weights; `weights` is 0 for a PReLU."""

    outputs: int
    weights: int


def _read_layers(param: str) -> list[_Layer]:
    lines = param.splitlines()
    if not lines or lines[0].strip() != _PARAM_MAGIC:
        raise WeightsCorrupt("The .param file does not begin with ncnn's magic number.")
    layers = []
    for line in lines[2:]:
        kind, *fields = line.split() or ("",)
        if kind in ("Convolution", "PReLU"):
            values = dict(pair.split("=", 1) for pair in fields if "=" in pair)
            try:
                weights = int(values[_WEIGHTS]) if kind == "Convolution" else 0
                layers.append(_Layer(int(values[_OUTPUTS]), weights))
            except (KeyError, ValueError):
                raise WeightsCorrupt(f"The .param file has a {kind} without its sizes.") from None
    return layers


def _network_of(layers: list[_Layer]) -> UpscalingNetwork:
    convolutions = [
        (layer.outputs, layer.weights // (_KERNEL_VALUES * max(1, layer.outputs)))
        for layer in layers
        if layer.weights
    ]
    network = network_for_layers(convolutions, len(layers) - len(convolutions))
    if network is None:
        raise WeightsCorrupt("The .param file's layers match no known architecture.")
    return network


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
