"""Adds an engine to a folder of weights: reads an untrusted file, measures its network, and describes the engine."""

import dataclasses
import json
import re
from pathlib import Path

from models.added import ENGINE_ID, FROM_ADDED, added_engine, find_engine
from models.architectures import NearestNeighbour
from models.architectures.foreign import ForeignNetwork
from models.catalog import ENGINES, SCALE, Engine
from models.checkpoints import read_checkpoint
from models.errors import WeightsCorrupt, WeightsError
from models.loader import network_of
from models.weights import serialize, write_file
from worker.inference.measuring import measure

_MOST_WORDS = 300


def add_engine(
    engine_id: str,
    location: str,
    *,
    directory: Path,
    sha256: str | None,
    cost_multiplier: float,
    description: str = "",
    licence: str | None = None,
    replaces: bool = False,
) -> Engine:
    """Adds the network at a path or http(s) URL as an engine, and returns it. A URL needs its file's SHA-256.

    `licence` overrides what the file says. Raises `WeightsError` for an id that cannot be used or is taken, and for a
    file that is not a network which enlarges RGB pictures four times.
    """
    if not ENGINE_ID.fullmatch(engine_id):
        raise WeightsError("A name has up to 40 lower-case letters, digits and hyphens.")
    if engine_id in ENGINES:
        raise WeightsError(
            f"{engine_id} is built in. `regen weights convert --engine {engine_id} --source ...` replaces its weights."
        )
    path = directory / f"{engine_id}.safetensors"
    if path.exists() and not (replaces and added_engine(engine_id, directory)):
        raise WeightsError(f"{path} exists. Give --replace to replace an engine that was added.")
    if sha256 is None and location.lower().startswith(("http://", "https://")):
        raise WeightsError("A URL needs --sha256, the digest of the file that you mean.")
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.lower()):
        raise WeightsError("A sha256 has 64 hexadecimal digits.")
    checkpoint = read_checkpoint(location, directory, sha256=sha256)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    network = network_of(tensors, checkpoint.origin)
    if network.scale != SCALE or isinstance(network, NearestNeighbour):
        raise WeightsCorrupt(
            f"{checkpoint.origin} is for a scale of {network.scale}: an engine enlarges {SCALE} times."
        )
    try:
        properties = measure(network)
    except (ValueError, RuntimeError) as error:
        raise WeightsCorrupt(f"{checkpoint.origin} does not run: {error}") from error
    name = network.architecture_name if isinstance(network, ForeignNetwork) else type(network).__name__
    content = serialize(
        checkpoint.tensors,
        engine=engine_id,
        source_format=FROM_ADDED,
        source=Path(location).name,
        source_sha256=checkpoint.sha256,
        architecture=name,
        description=" ".join(description.split())[:_MOST_WORDS] or f"Added: {name}.",
        licence=licence or checkpoint.licence or "unknown",
        cost_multiplier=str(cost_multiplier),
        properties=json.dumps(dataclasses.asdict(properties)),
    )
    write_file(path, content)
    return find_engine(engine_id, directory)
