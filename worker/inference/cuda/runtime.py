"""The network that the upscaler calls on a GPU: torch's modules until a candidate is known to be right and faster."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from worker.inference.cuda.candidates import make_candidates
from worker.inference.cuda.choice import MODULES, Candidate, Choice, choose
from worker.inference.cuda.layers import Autotuner
from worker.inference.cuda.trial import trial_of
from worker.inference.precision import place_network

logger = logging.getLogger(__name__)

# One call is a preview, two are a clip of a second: choosing would cost more than it saves.
CALLS_BEFORE_CHOOSING = 2
# After memory ran out this often with a choice in place, the modules remain: they take the least memory.
CHANCES = 2


class TrialResult(Protocol):
    """What a trial found out about the candidates."""

    @property
    def dropped(self) -> dict[str, str]: ...

    def passed(self) -> frozenset[str] | None: ...


class CudaRuntime:
    """Has the contract of the network. Not thread-safe.

    torch's modules compute the first calls and pictures of other sizes than that of the choice. The chosen run also
    takes fewer images than it was chosen for. The next call overwrites the result.

    Candidates differ by no more than the rounding that `choice` allows. Once one is chosen, equal images give equal
    results, independent of the other images of the call.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        trial: Callable[[], TrialResult] | None = None,
        choose_among: Callable[[Sequence[Candidate], tuple[int, int, int, int]], Choice] | None = None,
    ) -> None:
        """Runs the network in 16-bit floats; `network` is only read. `trial` and `choose_among` are for tests."""
        self._network = network
        self._device = device
        self._modules = place_network(network, device=device, precision="fp16")
        self._candidates = make_candidates(network, modules=self._modules, device=device, tuner=Autotuner())
        self._trial = trial or (lambda: trial_of(network, device))
        # No bound method: a reference cycle would delay freeing the device's memory.
        self._choose_among = choose_among
        self._calls = 0
        self._chances = CHANCES
        self._shape: tuple[int, ...] | None = None
        self.choice: Choice | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W float32 in [0, 1] -> N x 3 x 4H x 4W float32."""
        self._calls += 1
        if self._wants_choice(x):
            self._make_choice(x)
        run = None if self.choice is None else self.choice.run
        if run is None or not self._fits(x):
            enlarged: torch.Tensor = self._modules(x)
            return enlarged
        with _current(self._device):
            run.input[: x.shape[0]].copy_(x)
            run.run()
            return run.output[: x.shape[0]]

    def release(self) -> None:
        """Frees the memory of the choice, after memory ran out."""
        if self.choice is not None:
            self._chances -= 1
        self.choice = self._shape = None

    def _fits(self, x: torch.Tensor) -> bool:
        return (
            self._shape is not None and self._shape[1:] == tuple(x.shape[1:]) and x.shape[0] <= self._shape[0]
        )

    def _wants_choice(self, x: torch.Tensor) -> bool:
        if self._calls <= CALLS_BEFORE_CHOOSING or self._chances < 1 or not self._candidates:
            return False
        if self._shape is None:
            return True
        # The first batch may have been smaller than the later ones.
        return self._shape[1:] == tuple(x.shape[1:]) and x.shape[0] > self._shape[0]

    def _make_choice(self, x: torch.Tensor) -> None:
        tried = self._trial()
        passed = tried.passed()
        if passed is None:
            return
        images, colours, height, width = x.shape
        shape = (images, colours, height, width)
        allowed = [one for one in self._candidates if one.name in passed]
        self.choice = self._shape = None
        if allowed:
            self.choice = (self._choose_among or self._choose)(allowed, shape)
        else:
            logger.warning("network_runners_failed_their_trial reasons=%s", tried.dropped)
            self.choice = Choice(name=MODULES, run=None, seconds={}, dropped=dict(tried.dropped))
        self._shape = shape

    def _choose(self, candidates: Sequence[Candidate], shape: tuple[int, int, int, int]) -> Choice:
        exact = place_network(self._network, device=self._device, precision="fp32")
        with _current(self._device), _CHOOSING:
            return choose(candidates, modules=self._modules, exact=exact, shape=shape, device=self._device)


def _current(device: torch.device) -> torch.cuda.device:
    """Makes the device current: Triton launches on the current device."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


# torch keeps state for captures that two threads must not share.
_CHOOSING = threading.Lock()
