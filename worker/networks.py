"""The upscaler in a worker's memory: made for one engine and one shape of video, kept while the next segment fits."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.platform.errors import ConfigurationError, TransientError
from app.platform.settings import Settings
from models.catalog import ENGINES
from models.errors import WeightsError
from models.weights import ensure_weights
from worker.inference.errors import InferenceError, InsufficientMemory
from worker.inference.frames import FrameFormat
from worker.inference.memory import release_cached
from worker.inference.precision import choose_device, choose_precision, describe_device
from worker.inference.upscaler import Frame, Upscaler, make_upscaler

# Half a percent of a data-centre GPU; a twentieth of two cores of a server's CPU.
SLOWEST_GPU_MFLOP_PER_SECOND = 1e6
SLOWEST_CPU_MFLOP_PER_SECOND = 1e4


class Networks:
    """Holds one upscaler: a device's memory is for one network at a time.

    `memory_share` is how much of what is free it may plan with: little, where it is not the only one on its device.
    """

    def __init__(self, settings: Settings, *, memory_share: float = 1.0) -> None:
        self._settings = settings
        self._memory_share = memory_share
        self._device: str | None = None
        self._made_for: tuple[str, FrameFormat, FrameFormat] | None = None
        self._upscaler: Upscaler | None = None

    @property
    def device(self) -> str:
        """The device that computes, by torch's name for it. Raises ConfigurationError when it is missing."""
        if self._device is None:
            with _typed_errors():
                self._device = str(choose_device(self._settings.device))
        return self._device

    @property
    def device_name(self) -> str:
        """What the speed of this device is known by: its make, the same for every device of that kind.

        A stand-in has a name of its own: its speed is none of a network. Raises ConfigurationError as `device` does.
        """
        with _typed_errors():
            name = describe_device(self.device)
        return f"stand-in network, {name}" if self._settings.stand_in_network else name

    def check(self) -> None:
        """Raise ConfigurationError when this machine cannot run every engine as the settings ask.

        A worker finds out before it claims work: attempts must not be spent on a machine that is set up wrong.
        """
        with _typed_errors():
            device = choose_device(self._settings.device)
            for engine in ENGINES.values():
                choose_precision(self._settings.precision, device=device, engine=engine)
                if not self._settings.stand_in_network:
                    ensure_weights(engine.id, self._settings.weights_dir)

    def upscaler(self, *, engine_id: str, source: FrameFormat, target: FrameFormat) -> "TypedUpscaler":
        """Raises ConfigurationError when weights or device are missing."""
        wanted = (engine_id, source, target)
        if self._upscaler is None or self._made_for != wanted:
            self._upscaler = None  # freed before the next is made
            with _typed_errors():
                self._upscaler = make_upscaler(
                    engine_id=engine_id,
                    source=source,
                    target=target,
                    weights_directory=self._settings.weights_dir,
                    device=self._settings.device,
                    precision=self._settings.precision,
                    stand_in=self._settings.stand_in_network,
                    memory_share=self._memory_share,
                )
            self._made_for = wanted
        stand_in = self._settings.stand_in_network
        pause_seconds = self._settings.stand_in_seconds_per_frame if stand_in else 0.0
        return TypedUpscaler(self._upscaler, pause_seconds=pause_seconds)

    def release(self) -> None:
        """Give the upscaler's memory back, the device's too."""
        if self._upscaler is not None:
            device = self._upscaler.device
            self._upscaler = None
            release_cached(device)


class TypedUpscaler:
    """An upscaler whose errors are of our tree. For measurements it may sleep `pause_seconds` for every frame."""

    def __init__(self, upscaler: Upscaler, *, pause_seconds: float = 0.0) -> None:
        self._upscaler = upscaler
        self._pause_seconds = pause_seconds

    @property
    def batch_size(self) -> int:
        return self._upscaler.batch_size

    @property
    def longest_batch_seconds(self) -> float:
        """What one batch takes on a machine slower than any that is worth waiting for."""
        upscaler = self._upscaler
        pixels = upscaler.source.width * upscaler.source.height * upscaler.batch_size
        on_cpu = upscaler.device.type == "cpu"
        slowest = SLOWEST_CPU_MFLOP_PER_SECOND if on_cpu else SLOWEST_GPU_MFLOP_PER_SECOND
        return pixels * upscaler.engine.mflop_per_input_pixel / slowest

    @property
    def processor_threads(self) -> int | None:
        return self._upscaler.processor_threads

    def upscale(self, frames: Sequence[Frame]) -> list[Frame]:
        """As Upscaler.upscale. Raises TransientError when memory ran out for good."""
        time.sleep(self._pause_seconds * len(frames))
        with _typed_errors():
            return self._upscaler.upscale(frames)


@contextmanager
def _typed_errors() -> Iterator[None]:
    """`models` and `worker.inference` know no errors of ours: they run where there is nothing but torch."""
    try:
        yield
    except InsufficientMemory as error:
        raise TransientError("The device's memory did not suffice.", detail=str(error)) from error
    except (WeightsError, InferenceError) as error:
        raise ConfigurationError(str(error)) from error
