"""What `auto` means on a device with several candidates: the fastest precision of those that are right there.

It is measured once for each machine, engine and version, on a small picture, and kept in a file. One answer serves
frames of every size, so that previews, tiles and parts of a frame equal the whole frame.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from models.architectures import UpscalingNetwork
from worker.inference.devices.device import Device
from worker.inference.precision import Precision

logger = logging.getLogger(__name__)

# What a candidate must save to replace a more exact one: otherwise chance decides between two that are about as fast,
# differently on equal machines.
_LEAST_GAIN = 0.1
# A candidate that takes so many times as long as the best one in its first pass is not measured further.
_HOPELESS = 2.5
_ROUNDS = 4
_BUDGET_SECONDS = 3.0
# As long as another process may need to measure.
_PATIENCE_SECONDS = 10.0
# Of a pass: a tenth of a second on two cores of a server.
_MOST_MFLOP = 47_000
_FOLDER = "fastest-precision"
_SIZES = ((240, 135), (160, 90), (48, 27), (32, 18))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate on the picture: its PSNR from the most exact one, None if its first pass did not end in time, and the
    time of its fastest pass, None also if it was wrong."""

    precision: Precision
    decibels: float | None
    seconds: float | None

    def __str__(self) -> str:
        if self.decibels is None:
            return f"{self.precision} too slow"
        speed = "wrong" if self.seconds is None else f"{1e3 * self.seconds:.0f} ms"
        return f"{self.precision} {speed} ({self.decibels:.0f} dB)"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured for one engine: `trials`, most exact candidate first, and the chosen `precision`."""

    engine_id: str
    traits: dict[str, str]
    precision: Precision
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        return f"{self.precision}, of {', '.join(map(str, self.trials))}"


def choose_precision(
    device: Device,
    choice: str,
    network: UpscalingNetwork,
    *,
    engine_id: str,
    kept_in: Sequence[Path] = (),
) -> Precision:
    """Returns the choice itself, or for `auto` the fastest precision that is right here.

    `kept_in` are the folders where measurements are looked for, the preferred one first; a new one is kept in the
    first of them that can be written. Where none can, the most exact candidate is returned without measuring, because
    each process might find another one the fastest. An empty `kept_in` measures each time. Raises
    `PrecisionUnsupported`.
    """
    candidates = device.possible_precisions(choice, network.properties)
    if len(candidates) == 1 or network.properties.parameters == 0:
        return candidates[0]
    traits = {**device.traits, "candidates": " ".join(candidates), "weights": _digest_of(network)}
    if not kept_in:
        return measure(device, network, candidates, engine_id=engine_id, traits=traits).precision
    name = f"{engine_id}-{_digest(traits)}.json"
    if (kept := _find(kept_in, name)) is not None:
        return kept.precision
    for folder in kept_in:
        try:
            with _alone(folder / _FOLDER / f".{name}.lock"):
                if (kept := _find(kept_in, name)) is None:
                    kept = measure(device, network, candidates, engine_id=engine_id, traits=traits)
                    logger.info("precision_measured engine=%s chosen=%s", engine_id, kept)
                    kept = _keep(folder / _FOLDER / name, kept)
        except OSError as error:
            logger.warning("precision_not_kept folder=%s reason=%s", folder, error.strerror or error)
        else:
            return kept.precision
    return candidates[0]


def measurements(device: Device, kept_in: Sequence[Path]) -> list[Measurement]:
    """Returns what was measured on this device, as it is now."""
    found = [_read(path) for folder in kept_in for path in sorted((folder / _FOLDER).glob("*.json"))]
    return [one for one in found if one is not None and device.traits.items() <= one.traits.items()]


def measure(
    device: Device,
    network: UpscalingNetwork,
    candidates: Sequence[Precision],
    *,
    engine_id: str,
    traits: dict[str, str],
) -> Measurement:
    """Compares the candidates, the most exact first, then runs them by turns: `_BUDGET_SECONDS` and a pass at most."""
    properties = network.properties
    picture = sample_picture(*_size(properties.mflop_per_input_pixel)).to(device.torch_device)
    decibels: dict[Precision, float] = {}
    seconds: dict[Precision, float] = {}
    runs: dict[Precision, Callable[[], torch.Tensor]] = {}
    # Of passes alone: preparing a network's weights may take as long.
    budget = _BUDGET_SECONDS

    def timed(precision: Precision) -> torch.Tensor:
        nonlocal budget
        began = perf_counter()
        made = runs[precision]()
        device.synchronize()
        taken = perf_counter() - began
        budget -= taken
        seconds[precision] = min(seconds.get(precision, math.inf), taken)
        return made.clamp(0, 1)

    with device.computing():
        exact = None
        for precision in candidates:
            runtime = device.make_runtime(network, properties=properties, precision=precision)
            x = picture.contiguous(memory_format=runtime.memory_format)
            runs[precision] = lambda runtime=runtime, x=x: runtime(x)  # type: ignore[misc]
            try:
                with _deadline(runtime.network, math.inf if exact is None else perf_counter() + budget):
                    made = timed(precision)
            except TimeoutError:
                # The next candidate has as long again.
                del runs[precision]
                continue
            exact = made.double() if exact is None else exact
            decibels[precision] = _decibels(made, exact)
            if decibels[precision] < properties.least_decibels:
                del runs[precision], seconds[precision]
        for _ in range(_ROUNDS):
            for precision in list(runs):
                is_hopeless = seconds[precision] > _HOPELESS * min(seconds.values())
                if not is_hopeless and budget > 0:
                    timed(precision)
    return Measurement(
        engine_id=engine_id,
        traits=traits,
        precision=_fastest(candidates, seconds),
        trials=tuple(
            Trial(precision=one, decibels=decibels.get(one), seconds=seconds.get(one)) for one in candidates
        ),
    )


def sample_picture(width: int, height: int) -> torch.Tensor:
    """Returns 1 x 3 x height x width in [0, 1], the same each time: its detail falls with frequency, as a photo's."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    falling = 1 / (y.square() + x.square()).sqrt().clamp_min(1 / max(width, height)) ** 1.7
    noise = torch.randn(3, height, width // 2 + 1, 2, generator=generator)
    # The planes of a photograph are alike.
    spectrum = torch.view_as_complex(noise[:1] + 0.3 * noise) * falling
    planes: torch.Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return (0.5 + 0.2 * planes / planes.std()).clamp(0, 1)[None]


def _size(mflop_per_pixel: float) -> tuple[int, int]:
    fitting = (size for size in _SIZES if size[0] * size[1] * mflop_per_pixel <= _MOST_MFLOP)
    return next(fitting, _SIZES[-1])


def _fastest(candidates: Sequence[Precision], seconds: dict[Precision, float]) -> Precision:
    right = [one for one in candidates if one in seconds]
    best = right[0] if right else candidates[0]
    for one in right[1:]:
        if seconds[one] < (1 - _LEAST_GAIN) * seconds[best]:
            best = one
    return best


@contextlib.contextmanager
def _deadline(network: object, at: float) -> Iterator[None]:
    """Lets torch's modules raise TimeoutError between two layers after that time: on a busy machine their threads wait
    for each other at each layer, which may take a minute."""

    def check(*_: object) -> None:
        if perf_counter() > at:
            raise TimeoutError

    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    hooks = [module.register_forward_pre_hook(check) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _decibels(made: torch.Tensor, exact: torch.Tensor) -> float:
    error = (made.double() - exact).square().mean().item()
    # What is not a number is as wrong as can be.
    return -10 * math.log10(max(error, 1e-20)) if error < math.inf else -math.inf


def _digest(values: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _digest_of(network: UpscalingNetwork) -> str:
    """Returns a digest of all weights, which decide how exact a precision is."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _find(folders: Sequence[Path], name: str) -> Measurement | None:
    found = (_read(folder / _FOLDER / name) for folder in folders)
    return next((one for one in found if one is not None), None)


def _read(path: Path) -> Measurement | None:
    """Returns what a file says; None if there is none, or a damaged one."""
    try:
        stored = json.loads(path.read_text())
        return Measurement(**{**stored, "trials": tuple(Trial(**one) for one in stored["trials"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, made: Measurement) -> Measurement:
    """Writes the file, whole or not at all. Returns what it says: another process may have been first."""
    fresh = path.with_name(f".{secrets.token_hex(8)}")
    try:
        fresh.write_text(json.dumps(asdict(made), indent=1))
        if _read(path) is None:
            path.unlink(missing_ok=True)  # a damaged one
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        return _read(path) or made
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process measure at a time: they would slow each other down. After `_PATIENCE_SECONDS` the others measure
    too. Raises OSError if the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
