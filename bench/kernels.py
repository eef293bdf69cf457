"""Every fast body of the compiled kernels beside plain computation: the same results, and how fast.

    .venv/bin/python -m bench.kernels [--trials N] [--seed N] [--seconds S]

Random shapes and hostile ones: pictures of a pixel, a row or a column, sizes just below, at and above whole matrices,
infinities and numbers that are none, tiny, subnormal and huge ones. Convolutions by Winograd are compared with torch in
64 bits and with the other instruction sets; direct ones by every body with the plain body for this processor, to the
last bit. Exit status 1 if one disagrees.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from bench.machine import heading, table
from worker.inference.cpu.direct_trial import DirectTrial, random_trial
from worker.inference.cpu.huge_pages import allocate_in_huge_pages
from worker.inference.cpu.kernels import (
    BLOCK,
    ConvolutionStep,
    Kernels,
    find_kernels,
    find_matrix_unit,
    weight_floats,
)
from worker.inference.cpu.network import PackedConvolution, PixelPointer, StepList, padded_to_blocks

# A processor that has the first also has the rest.
SETS = {"avx512": ("avx512", "avx2"), "avx2": ("avx2",), "neon": ("neon",)}
EDGES = (1, 2, 3, 4, 5, 15, 16, 17, 18, 31, 32, 33, 34, 47, 48, 49)
HOSTILE = (torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e-40, -3e-39, 1e-30, 3e38, -3e38)
TIMED = (64, 320, 64, 64)
# Of the largest result; F(4x4, 3x3) and sums in another order.
WINOGRAD_TOLERANCE = 1e-5

DIRECT, WINOGRAD = "direct", "Winograd"

Shape = tuple[int, int, int, int]


@dataclass
class Tally:
    """How often a body agreed, to the last bit and within the tolerance, and how far it was off at worst."""

    name: str
    trials: int = 0
    equal: int = 0
    wrong: int = 0
    worst: float = 0.0
    gflops: float = 0.0

    def note(self, found: torch.Tensor, expected: torch.Tensor, *, tolerance: float) -> None:
        self.trials += 1
        same_kind = torch.equal(found.isnan(), expected.isnan())
        found, expected = found.double().nan_to_num(), expected.double().nan_to_num()
        self.equal += same_kind and torch.equal(found, expected)
        error = float(((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item())
        self.worst = max(self.worst, error)
        self.wrong += not same_kind or error > tolerance

    def row(self) -> Sequence[str]:
        verdict = f"{self.wrong} WRONG" if self.wrong else "agrees"
        equal = f"{self.equal} of {self.trials}"
        return (self.name, equal, f"{self.worst:.1e}", verdict, f"{self.gflops:.0f}")


def shapes(trials: int, chosen: random.Random) -> list[Shape]:
    """Rows, columns, inputs in whole chunks, outputs."""
    return [
        (
            chosen.choice(EDGES[:8]),
            chosen.choice(EDGES),
            32 * chosen.randint(1, 6),
            chosen.choice((3, 16, 32, 48, 64, 80)),
        )
        for _ in range(trials)
    ]


def made_hostile(trial: DirectTrial, seed: int) -> DirectTrial:
    generator = torch.Generator().manual_seed(seed)
    odd = torch.tensor(HOSTILE)

    def spoiled(values: torch.Tensor) -> torch.Tensor:
        flat = values.float().flatten().clone()
        places = torch.randint(flat.numel(), (flat.numel() // 300 + 2,), generator=generator)
        flat[places] = odd[torch.randint(len(odd), places.shape, generator=generator)]
        return flat.view(values.shape)

    return DirectTrial(spoiled(trial.values), spoiled(trial.weights), trial.bias)


class WinogradTrial:
    """A trial's convolution by Winograd."""

    def __init__(self, trial: DirectTrial, kernels: Kernels) -> None:
        (inputs, height, width), self._outputs = trial.values.shape, trial.weights.shape[0]
        columns = -(-self._outputs // BLOCK) * BLOCK
        self._kernels = kernels
        self._weights = allocate_in_huge_pages(weight_floats(inputs, self._outputs))
        kernels.prepare_weights(trial.weights, self._weights)
        packed = PackedConvolution(inputs, self._outputs, self._weights, padded_to_blocks(trial.bias), None)
        self._source = trial.values.float().permute(1, 2, 0).contiguous()
        self._made = torch.empty(height, width, columns)
        steps = StepList(kernels, height=height, width=width)
        target = PixelPointer(self._made.data_ptr(), columns)
        steps.add(packed, PixelPointer(self._source.data_ptr(), inputs), target)
        self._packed, self._steps = packed, (ConvolutionStep * 1)(*steps.listed)
        self._scratch = allocate_in_huge_pages(kernels.scratch_floats(self._steps))

    def run(self) -> torch.Tensor:
        """Returns H x W x outputs."""
        self._kernels.run(self._steps, self._scratch, threads=1)
        return self._made[..., : self._outputs]


def exact(trial: DirectTrial) -> torch.Tensor:
    """By torch in 64 bits, H x W x outputs."""
    x, weights = trial.values.double()[None], trial.weights.double()
    return F.conv2d(x, weights, trial.bias.double(), padding=1)[0].permute(1, 2, 0)


def compare(trials: int, seed: int, bodies: dict[str, Kernels]) -> list[Tally]:
    names = list(bodies)
    plain = names[1] if names[0] == "amx" else names[0]
    direct = {name: Tally(f"{DIRECT}, {name}") for name in names}
    by_winograd = {name: Tally(f"{WINOGRAD}, {name}") for name in names if name != "amx"}
    for number, shape in enumerate(shapes(trials, random.Random(seed))):
        ordinary = random_trial(*shape, seed=seed + number)
        for trial in (ordinary, made_hostile(ordinary, seed + number)):
            expected = trial.run(bodies[plain])
            for name, tally in direct.items():
                for one, other in zip(trial.run(bodies[name], threads=2), expected, strict=True):
                    tally.note(one, other, tolerance=0)
        truth = exact(ordinary)
        for name, tally in by_winograd.items():
            tally.note(WinogradTrial(ordinary, bodies[name]).run(), truth, tolerance=WINOGRAD_TOLERANCE)
    return [*direct.values(), *by_winograd.values()]


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def time_them(tallies: Sequence[Tally], seconds: float, bodies: dict[str, Kernels]) -> None:
    """Measures one thread of each body by turns, on a convolution of 64 to 64 channels."""
    height, width, inputs, outputs = TIMED
    trial = random_trial(*TIMED)
    runs: list[Callable[[], float]] = []
    for tally in tallies:
        kind, _, name = tally.name.partition(", ")
        prepared = trial.prepared(bodies[name]) if kind == DIRECT else WinogradTrial(trial, bodies[name])
        runs.append(partial(timed, prepared.run))
    best = [float("inf")] * len(runs)
    until = time.monotonic() + seconds * len(runs)
    while time.monotonic() < until:
        best = [min(one, run()) for one, run in zip(best, runs, strict=True)]
    for tally, one in zip(tallies, best, strict=True):
        tally.gflops = 18e-9 * height * width * inputs * outputs / one


def main() -> None:
    parser = argparse.ArgumentParser(description="Compiled kernels beside plain computation.")
    parser.add_argument(
        "--trials", type=int, default=60, help="shapes, each with ordinary and hostile values"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure each body")
    arguments = parser.parse_args()
    best, unit = find_kernels(), find_matrix_unit()
    if best is None:
        raise SystemExit("No kernels were compiled, or none for this processor.")
    names = ([unit.instructions] if unit else []) + list(SETS[best.instructions])
    bodies = {name: found for name in names if (found := find_kernels(name)) is not None}
    tallies = compare(arguments.trials, arguments.seed, bodies)
    time_them(tallies, arguments.seconds, bodies)
    print(f"{heading()} Matrix unit: {unit.instructions if unit else 'none, so its body was not run'}.\n")
    head = ("body", "equal to the last bit", "worst, of the largest", "", "GFLOP/s, one thread")
    print(table(head, [tally.row() for tally in tallies]))
    if any(tally.wrong for tally in tallies):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
