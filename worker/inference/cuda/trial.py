"""Tries the ways to run a network in a process of its own: kernels that crash or hang take nothing else along.

    python -m worker.inference.cuda.trial '{"architecture": "srvgg", "features": 64}' cuda:0

prints as JSON which ways are right on small pictures, and why the others are not. Triton's cache on disk passes what
was compiled there on to the process that asked.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

import torch
from torch import nn

from models.architectures import ARCHITECTURES, UpscalingNetwork
from worker.inference.cuda.candidates import make_candidates
from worker.inference.cuda.choice import Choice, choose
from worker.inference.cuda.layers import Autotuner
from worker.inference.precision import place_network

# Compiling all kernels takes a minute or two the first time.
LIMIT_SECONDS = 600.0
# Odd sizes, smaller and larger than what one program computes, with several images.
_SHAPES = ((2, 3, 45, 71), (1, 3, 136, 240))
_ROOT = Path(__file__).parents[3]


class Trial:
    """A child process that tries the candidates. `dropped` says why a candidate must not be used."""

    def __init__(self, command: list[str], *, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._ends_at = time.monotonic() + limit_seconds
        self._limit_seconds = limit_seconds
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the trial's end
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        self._lock = threading.Lock()
        self._passed: frozenset[str] | None = None
        self.dropped: dict[str, str] = {}

    def passed(self) -> frozenset[str] | None:
        """Returns the names of the right candidates, or None while the child runs. Does not wait."""
        with self._lock:
            if self._passed is None:
                if self._process.poll() is not None:
                    self._read()
                elif time.monotonic() > self._ends_at:
                    self._stop()
                    self._fail(f"the trial took longer than {self._limit_seconds:g} s")
            return self._passed

    def stop(self) -> None:
        """Ends the child if it still runs; no candidate has passed then."""
        with self._lock:
            if self._passed is None:
                self._stop()
                self._fail("the trial was called off")

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _fail(self, reason: str) -> None:
        self._passed = frozenset()
        self.dropped = {"all": reason}
        self._output.close()

    def _read(self) -> None:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else ""
        try:
            answer = json.loads(last)
            self._passed, self.dropped = frozenset(answer["passed"]), dict(answer["dropped"])
            self._output.close()
        except (ValueError, KeyError, TypeError):
            self._fail(f"the trial ended with {self._process.returncode}: {last[:300]}")


_trials: dict[tuple[str, str], Trial] = {}
_trials_lock = threading.Lock()


def trial_of(network: nn.Module, device: torch.device) -> Trial:
    """Returns this process's trial for networks of that shape on a device; the first call starts it."""
    shape = shape_as_json(network)
    with _trials_lock:
        key = (shape, str(device))
        if not _trials:
            atexit.register(stop_trials)
        if key not in _trials:
            _trials[key] = Trial([sys.executable, "-m", "worker.inference.cuda.trial", shape, str(device)])
        return _trials[key]


def stop_trials() -> None:
    """Ends all running trials."""
    with _trials_lock:
        for trial in _trials.values():
            trial.stop()
        _trials.clear()


def run_trial(network: nn.Module, device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Returns the names of the right candidates, and the reasons why the others are not."""
    modules = place_network(network, device=device, precision="fp16")
    exact = place_network(network, device=device, precision="fp32")
    candidates = make_candidates(network, modules=modules, device=device, tuner=Autotuner())
    dropped: dict[str, str] = {}
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
    with torch.cuda.device(device), torch.inference_mode(), flags:
        for shape in _SHAPES:
            found: Choice = choose(candidates, modules=modules, exact=exact, shape=shape, device=device)
            dropped = found.dropped | dropped
    return [one.name for one in candidates if one.name not in dropped], dropped


def random_network(architecture: str, **dimensions: int) -> UpscalingNetwork:
    """Returns a network with random weights under which activations neither vanish nor overflow."""
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**dimensions).requires_grad_(False).eval()
    last: nn.Module = network
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            last = module
    # The output should have about the range of a picture.
    spread: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, __, found: spread.append(found.std()))
    network(torch.rand(1, 3, 12, 12))
    hook.remove()
    for parameter in last.parameters():
        parameter.mul_(0.2 / spread[0])
    return network


def shape_as_json(network: nn.Module) -> str:
    """Returns the arguments that make `random_network` return a network of that shape. Raises TypeError."""
    if not isinstance(network, UpscalingNetwork):
        raise TypeError(f"A {type(network).__name__} tells no dimensions.")
    return json.dumps({"architecture": network.architecture, **network.dimensions}, sort_keys=True)


def _exit_with_owner(owner: int) -> None:
    """Ends this process when its owner is gone or the time is up: a GPU that hangs ends nothing by itself."""
    ends_at = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < ends_at and os.getppid() == owner:
        time.sleep(0.5)
    os._exit(1)


def main() -> int:
    network, device = random_network(**json.loads(sys.argv[1])), torch.device(sys.argv[2])
    threading.Thread(target=_exit_with_owner, args=(os.getppid(),), daemon=True).start()
    passed, dropped = run_trial(network, device)
    sys.stdout.write(json.dumps({"passed": passed, "dropped": dropped}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
