"""The engines that an operator added to a folder of weights. Needs the standard library alone.

An added engine is one file, `<engine id>.safetensors`, whose metadata describes the engine and holds what was measured
when it was added (`worker.added_weights`). So the file can be copied to other machines as it is.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from models.catalog import ENGINES, AddedWeights, Engine, UnknownEngine
from models.errors import WeightsCorrupt

FROM_ADDED = "added"
ENGINE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
MOST_MULTIPLIER = 1000
_MOST_HEADER_BYTES = 16 * 1024**2


def header_of(file: IO[bytes], size_bytes: int) -> Mapping[str, str] | None:
    """Returns the metadata of a safetensors file, None for another file. Reads no tensor and verifies nothing."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_MOST_HEADER_BYTES, size_bytes - 8):
        return None
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    metadata = header.get("__metadata__") or {}
    if not isinstance(metadata, dict):
        return None
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def added_engine(engine_id: str, directory: str | Path) -> Engine | None:
    """Returns the engine that was added to the folder of weights under this id; None if there is none.

    Raises `WeightsCorrupt` for a file that says it is one and does not describe it.
    """
    path = Path(directory) / f"{engine_id}.safetensors"
    if engine_id in ENGINES or not ENGINE_ID.fullmatch(engine_id):
        return None
    try:
        with path.open("rb") as file:
            metadata = header_of(file, path.stat().st_size)
    except OSError:
        return None
    if metadata is None or metadata.get("source_format") != FROM_ADDED or metadata.get("engine") != engine_id:
        return None
    try:
        multiplier = parse_multiplier(metadata["cost_multiplier"])
        measured = json.loads(metadata["properties"])
        return Engine(
            id=engine_id,
            name=metadata["architecture"],
            description=metadata["description"],
            cost_multiplier=multiplier,
            source=AddedWeights(data_sha256=metadata["data_sha256"], measured=measured),
            licence=metadata["licence"],
            provenance=metadata["source"],
        )
    except (KeyError, ValueError) as error:
        raise WeightsCorrupt(f"{path} does not describe its engine: add it again.") from error


def added_engines(directory: str | Path) -> Mapping[str, Engine]:
    """Returns the engines that were added to the folder, by id. A damaged file is none."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        try:
            engine = added_engine(path.stem, directory)
        except WeightsCorrupt:
            continue
        if engine is not None:
            found[engine.id] = engine
    return found


def find_engine(engine_id: str, directory: str | Path) -> Engine:
    """Returns the engine of that id: of the catalogue, or added to the folder of weights.

    Raises `UnknownEngine` (a `KeyError`), and `WeightsCorrupt` as `added_engine` does.
    """
    engine = ENGINES.get(engine_id) or added_engine(engine_id, directory)
    if engine is None:
        raise UnknownEngine(engine_id)
    return engine


def parse_multiplier(text: str) -> float:
    """Returns the cost multiplier, an int if it is whole. Raises `ValueError` below 0 and above MOST_MULTIPLIER."""
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= MOST_MULTIPLIER:
        raise ValueError(f"A multiplier is a number from 0 to {MOST_MULTIPLIER}.")
    return int(value) if value.is_integer() else value


def measured_properties(engine: Engine) -> Mapping[str, Any]:
    """Returns what was measured when the engine was added; nothing for an engine of the catalogue."""
    return engine.source.measured if isinstance(engine.source, AddedWeights) else {}
