"""A network for one shape of input, captured as a CUDA graph: no launch waits for Python."""

from typing import Protocol

import torch
from torch import nn


class StaticRun(Protocol):
    """A network for one shape: `run` reads `input` (N x 3 x H x W) and writes `output` (N x 3 x 4H x 4W), float32.

    Where `output` lies may change with a run until the run is captured; then never again.
    """

    @property
    def input(self) -> torch.Tensor: ...

    @property
    def output(self) -> torch.Tensor: ...

    def run(self) -> None: ...


class ModulesRun:
    """torch's modules for one shape."""

    def __init__(self, placed: nn.Module, *, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._placed = placed
        self.input = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        self._output: torch.Tensor | None = None

    @property
    def output(self) -> torch.Tensor:
        assert self._output is not None, "nothing has run"
        return self._output

    def run(self) -> None:
        self._output = self._placed(self.input)


class GraphedRun:
    """Runs what another does, by one launch.

    Other threads may go on using the device meanwhile. cuDNN's settings are those that hold when this is made. The
    memory of what is computed in between stays taken until this is freed.
    """

    def __init__(self, static: StaticRun) -> None:
        """On the current device. Raises what the run raises, and torch's own error where memory runs out."""
        self._static = static
        # Kernels are loaded and chosen before, which no capture allows; on a stream of its own, as the capture is.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                static.run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            static.run()
        self.input = static.input
        self.output = static.output

    def run(self) -> None:
        self._graph.replay()
