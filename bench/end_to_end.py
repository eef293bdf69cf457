"""From file to file: `regen upscale` beside Real-ESRGAN's usual way, and beside framelift.

    .venv/bin/python -m bench.end_to_end [--engine regen-4x-lite] [--clip CLIP] [--frames 60] [--rounds 3]
        [--framelift DIRECTORY] [--openvino DIRECTORY]

Every run is a process of its own, from its start to its end; the sides take turns. All have the same weights, clip and
settings of x264. Each clip is measured at two lengths: what the frames in between take is what a frame takes, without
starting and ending. Of us the median counts, of the others the fastest run. The network alone is timed in a process of
its own in each round, on the same frames. Frames and pictures that come out are compared with ours.

`peers_usual.py` is the usual way. `--framelift` names a directory with the packages framelift-video and tqdm, unpacked;
it is run unchanged and without tiles. `--openvino` names one with the package openvino, by which framelift can compute.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from bench.ceiling import roofline
from bench.clips import PHOTOGRAPHS, Size, cut, decode, parse_size
from bench.machine import heading, table
from bench.processes import Took, run
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine, get_engine
from models.loader import load_network
from models.weights import ensure_weights
from worker.video.encoder import QUALITIES

HIGH = QUALITIES["h264"]["high"]
FRAMELIFT_MODELS = {"regen-4x-lite": "realesr-animevideov3", "regen-4x": "realesrgan-x4plus"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """`command` is completed by the input's and the output's path. `matrix`: of the output, where it is not tagged."""

    name: str
    command: tuple[str, ...]
    names: tuple[str, str] = ("", "")
    matrix: str = "auto"
    environment: Mapping[str, str] = field(default_factory=dict)

    def take(self, source: Path, destination: Path, log: Path) -> Took:
        destination.unlink(missing_ok=True)
        own = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
        paths = [
            word
            for name, path in zip(self.names, (source, destination), strict=True)
            for word in (name, str(path))
        ]
        return run([*self.command, *filter(None, paths)], environment=own | dict(self.environment), log=log)


def make_sides(arguments: argparse.Namespace, engine: Engine, directory: Path) -> list[Side]:
    """Ours first. Writes the weights that they need."""
    weights = directory / "weights"
    ensure_weights(engine.id, weights)
    python, crf = sys.executable, str(HIGH.crf)
    ours = Side(
        name="regen upscale",
        command=(
            *(python, "-m", "app.cli", "upscale", "--engine", engine.id, "--output-quality", "high"),
            *("--device", arguments.device, "--data-dir", str(directory / "data")),
        ),
        environment={"REGEN_WEIGHTS_DIR": str(weights)},
    )
    usual = Side(
        name="Real-ESRGAN's usual way",
        command=(
            *(python, "-m", "bench.peers_usual", "--engine", engine.id, "--weights", str(weights)),
            *("--crf", crf, "--preset", HIGH.preset),
        ),
        matrix="bt601",
        environment={} if arguments.device != "cpu" else {"CUDA_VISIBLE_DEVICES": ""},
    )
    sides = [ours, usual]
    if arguments.framelift is not None:
        for backend in ("torch", *(("openvino",) if arguments.openvino is not None else ())):
            sides.append(_framelift(arguments, engine, directory, backend))
    return sides


def _framelift(arguments: argparse.Namespace, engine: Engine, directory: Path, backend: str) -> Side:
    own = directory / f"framelift-{backend}"
    own.mkdir()
    state = load_network(engine.id, weights_directory=directory / "weights").state_dict()
    assert engine.checkpoint is not None
    torch.save({"params": state}, own / Path(engine.checkpoint.location).name)
    path = [arguments.framelift.resolve(), *([arguments.openvino.resolve()] if backend == "openvino" else [])]
    return Side(
        name="framelift" if backend == "torch" else "framelift with OpenVINO",
        command=(
            *(
                sys.executable,
                "-m",
                "framelift",
                "--model",
                FRAMELIFT_MODELS[engine.id],
                "--weights-dir",
                str(own),
            ),
            *("--scale", "4", "--ai-strength", "1", "--tile", "0", "--device", arguments.device),
            *("--backend", backend, "--crf", str(HIGH.crf), "--x264-preset", HIGH.preset),
        ),
        names=("--input", "--output"),
        matrix="bt601",
        environment={"PYTHONPATH": os.pathsep.join(map(str, path))},
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one side: its runs of the short and the long clip, and what its output of the long one is."""

    side: Side
    short: list[Took]
    long: list[Took]
    frames: int = 0
    decibels: float | None = None


@dataclass(frozen=True, kw_only=True)
class Alone:
    """The network alone, a frame, and the machine's ceiling right after; None where that is not a CPU's."""

    seconds: float
    ceiling_gflops: float | None


def measure(
    sides: Sequence[Side], clips: Mapping[int, Path], directory: Path, *, rounds: int, network: Sequence[str]
) -> tuple[list[Measured], list[Alone]]:
    """The sides' runs, and in each round the network alone."""
    short, long = sorted(clips)
    outputs = {side.name: directory / f"out-{index}.mp4" for index, side in enumerate(sides)}
    runs: dict[str, dict[int, list[Took]]] = {side.name: {short: [], long: []} for side in sides}
    alone = []
    for _ in range(rounds):
        # The long one last: its output is what is looked at.
        for length in (short, long):
            for side in sides:
                took = side.take(clips[length], outputs[side.name], directory / "log")
                runs[side.name][length].append(took)
                print(f"{side.name}, {length} frames: {took.wall_seconds:.2f} s", file=sys.stderr, flush=True)
        log = directory / "log"
        run([*network, clips[long], "--frames", str(long)], environment=os.environ, log=log)
        answer = json.loads(log.read_text().splitlines()[-1])
        alone.append(Alone(seconds=median(answer["seconds"]), ceiling_gflops=answer["ceiling_gflops"]))
    ours = outputs[sides[0].name]
    return [
        Measured(
            side=side,
            short=runs[side.name][short],
            long=runs[side.name][long],
            frames=count_frames(outputs[side.name]),
            decibels=None if side is sides[0] else likeness(ours, outputs[side.name], matrix=side.matrix),
        )
        for side in sides
    ], alone


def count_frames(path: Path) -> int:
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets"]
    command += ["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().rstrip(","))


def likeness(ours: Path, other: Path, *, matrix: str) -> float:
    """PSNR in dB between the two in RGB, the mean over the frames' squared errors."""
    graph = "[0:v]setpts=N,scale,format=gbrp[a];"
    graph += f"[1:v]setpts=N,scale=in_color_matrix={matrix},format=gbrp[b];[a][b]psnr"
    command = ["ffmpeg", "-i", str(ours), "-i", str(other), "-filter_complex", graph, "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.findall(r"PSNR.* average:([\d.]+|inf)", said)[-1])


def report(
    found: Sequence[Measured], alone: Sequence[Alone], *, engine: Engine, size: Size, short: int, long: int
) -> str:
    ours = found[0]

    def counted(one: Measured, takes: Sequence[Took]) -> float:
        # Whatever else the machine did meanwhile shall not be to the others' disadvantage.
        return (median if one is ours else min)(took.wall_seconds for took in takes)

    def marginal(one: Measured) -> float:
        return (counted(one, one.long) - counted(one, one.short)) / (long - short)

    lines = []
    for one in found:
        whole, each = counted(one, one.long), marginal(one)
        processor = min(took.cpu_seconds for took in one.long) - min(took.cpu_seconds for took in one.short)
        walls = [took.wall_seconds for took in one.long]
        lines.append(
            (
                one.side.name,
                f"{whole:.2f} s",
                f"{min(walls):.2f} to {max(walls):.2f} s",
                f"{1000 * whole / long:.0f} ms",
                f"{1000 * each:.0f} ms",
                f"{whole - long * each:.2f} s",
                f"{1000 * processor / (long - short):.0f} ms",
                f"{whole / counted(ours, ours.long):.2f}",
                f"{each / marginal(ours):.2f}",
                str(one.frames),
                "" if one.decibels is None else f"{one.decibels:.1f} dB",
            )
        )
    head = (
        "side",
        f"{long} frames",
        "all runs",
        "a frame",
        "a further frame",
        "start and end",
        "processor, a further frame",
        "times ours, whole",
        "times ours, a further frame",
        "frames out",
        "PSNR beside ours",
    )
    network = median(one.seconds for one in alone)
    said = [
        table(head, lines),
        "",
        f"The network alone: {1000 * network:.0f} ms a frame; of a further frame from file to file of ours it is "
        f"{network / marginal(ours):.0%}, of the whole {network * long / counted(ours, ours.long):.0%}.",
    ]
    if ceilings := [one.ceiling_gflops for one in alone if one.ceiling_gflops is not None]:
        rates = {one.side.name.replace(" ", "_"): marginal(one) for one in found}
        said += ["", roofline(engine, size, ceiling=median(ceilings), network_alone=network, **rates)]
    return "\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description="From file to file, beside others.")
    parser.add_argument("--engine", choices=tuple(ENGINES), default=DEFAULT_ENGINE)
    parser.add_argument("--clip", type=Path, default=PHOTOGRAPHS)
    parser.add_argument(
        "--size", type=parse_size, help="columns x rows of its middle, such as 64x48; default: all"
    )
    parser.add_argument("--frames", type=int, default=60, help="of the longer; the shorter has a third")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--framelift", type=Path, help="where framelift-video and tqdm are unpacked")
    parser.add_argument("--openvino", type=Path, help="where openvino is unpacked, for framelift")
    arguments = parser.parse_args()
    engine = get_engine(arguments.engine)
    short, long = max(1, arguments.frames // 3), arguments.frames
    if long < 2:
        parser.error("two lengths need at least 2 frames")
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        directory = Path(name)
        sides = make_sides(arguments, engine, directory)
        clips = {length: directory / f"clip-{length}.mp4" for length in (short, long)}
        for length, path in clips.items():
            cut(arguments.clip, path, frames=length, size=arguments.size)
        source, frames = decode(clips[long], frames=long)
        repeated = sum((a == b).all() for a, b in zip(frames[1:], frames, strict=False))
        network = [sys.executable, "-m", "bench.network_alone", "--engine", engine.id]
        network += ["--weights", str(directory / "weights"), "--device", arguments.device]
        found, alone = measure(sides, clips, directory, rounds=arguments.rounds, network=network)
    print(heading(), end=" ")
    print(
        f"{engine.id}, {arguments.clip.name} at {source.width}x{source.height}, {short} and {long} frames, of which "
        f"{repeated} equal the one before; x264 {HIGH.preset}, CRF {HIGH.crf}; {arguments.rounds} rounds.\n"
    )
    size = source.width, source.height
    print(report(found, alone, engine=engine, size=size, short=short, long=long))


if __name__ == "__main__":
    main()
