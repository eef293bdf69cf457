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
from models.loader import load_network
from worker.inference.colour import planes_to_rgb
from worker.inference.devices import Device, choose_device
from worker.inference.fastest_precision import choose_precision
from worker.inference.frames import FrameFormat
from worker.inference.runtime import Runtime


def seconds_of_frames(
    frames: Sequence[Frame],
    source: FrameFormat,
    *,
    network: Runtime,
    device: Device,
) -> list[float]:
    """What each frame takes, once the network has run."""
    taken = []
    with torch.inference_mode():
        pictures = [
            planes_to_rgb(torch.from_numpy(frame[None]).to(device.torch_device), source).contiguous(
                memory_format=network.memory_format
            )
            for frame in frames
        ]
        network(pictures[0])
        for picture in pictures:
            started = time.perf_counter()
            network(picture)
            device.synchronize()
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
    device = choose_device(arguments.device)
    plain = load_network(arguments.engine, weights_directory=arguments.weights)
    precision = choose_precision(
        device, arguments.precision, plain, engine_id=arguments.engine, kept_in=[arguments.weights]
    )
    network = device.make_runtime(plain, properties=plain.properties, precision=precision)
    taken = seconds_of_frames(frames, source, network=network, device=device)
    ceiling = None if device.is_accelerator else ceiling_gflops(precision)
    print(json.dumps({"seconds": taken, "ceiling_gflops": ceiling}))


if __name__ == "__main__":
    main()
