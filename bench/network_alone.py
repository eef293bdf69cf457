"""A network alone on the frames of a clip, as the upscaler runs it: nothing is decoded, converted or encoded meanwhile.

    python -m bench.network_alone CLIP --engine ENGINE --weights DIRECTORY [--device cpu] [--precision auto]

Prints as JSON the seconds of every frame, and on a CPU its ceiling in GFLOP/s, measured right after. A program of its
own for `end_to_end`, which starts it afresh each time.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.ceiling import ceiling_gflops
from bench.clips import Frame, decode
from models.loader import load_network, read_properties
from worker.inference.colour import planes_to_rgb
from worker.inference.devices import choose_device
from worker.inference.frames import FrameFormat


def seconds_of_frames(
    frames: Sequence[Frame],
    source: FrameFormat,
    *,
    engine_id: str,
    weights: Path,
    device: str,
    precision: str,
) -> list[float]:
    """What each frame takes, once the network has run."""
    chosen = choose_device(device)
    plain = load_network(engine_id, weights_directory=weights)
    network = chosen.make_runtime(
        plain, properties=plain.properties, precision=chosen.choose_precision(precision, plain.properties)
    )
    taken = []
    with torch.inference_mode():
        pictures = [
            planes_to_rgb(torch.from_numpy(frame[None]).to(chosen.torch_device), source).contiguous(
                memory_format=network.memory_format
            )
            for frame in frames
        ]
        network(pictures[0])
        for picture in pictures:
            started = time.perf_counter()
            network(picture)
            chosen.synchronize()
            taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="A network alone on a clip's frames.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    source, frames = decode(arguments.clip, frames=arguments.frames)
    taken = seconds_of_frames(
        frames,
        source,
        engine_id=arguments.engine,
        weights=arguments.weights,
        device=arguments.device,
        precision=arguments.precision,
    )
    device = choose_device(arguments.device)
    properties = read_properties(arguments.engine, weights_directory=arguments.weights)
    precision = device.choose_precision(arguments.precision, properties)
    ceiling = None if device.is_accelerator else ceiling_gflops(precision)
    print(json.dumps({"seconds": taken, "ceiling_gflops": ceiling}))


if __name__ == "__main__":
    main()
