"""A network for one input shape, captured as a CUDA graph: no launch waits for Python."""

from typing import Protocol

import torch
from torch import nn


class StaticRun(Protocol):
    """A network for one input shape: `run` reads `input` (N x 3 x H x W), writes `output` (N x 3 x 4H x 4W); float32.

    A run may move `output` until the run is captured.
    """

    @property
    def input(self) -> torch.Tensor: ...

    @property
    def output(self) -> torch.Tensor: ...

    def run(self) -> None: ...


class ModulesRun:
    """torch's modules for one input shape."""

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
    """Replays another run by a single launch.

    Capturing allows other threads to use the device. cuDNN's settings are those at the time of capture. Intermediate
    results keep their memory until this object is freed.
    """

    def __init__(self, static: StaticRun) -> None:
        """Captures on the current device. Raises what the run raises, and torch's error if memory runs out."""
        self._static = static
        # Warm up on a stream of its own, as for the capture: kernels cannot be loaded and chosen while capturing.
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
