"""The upscaler in a worker's memory: made for one engine and one shape of video, kept while the next segment fits."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.platform.errors import ConfigurationError, TransientError
from app.platform.settings import Settings
from models.catalog import ENGINES
from models.errors import WeightsError
from models.loader import read_properties
from models.weights import ensure_weights
from worker.inference.devices import Device, choose_device
from worker.inference.errors import InferenceError, InsufficientMemory
from worker.inference.frames import Frame, FrameFormat
from worker.inference.upscaler import Upscaler, make_upscaler


class Networks:
    """Holds one upscaler: a device's memory is for one network at a time.

    `memory_share` is how much of what is free it may plan with: little, where it is not the only one on its device.
    """

    def __init__(self, settings: Settings, *, memory_share: float = 1.0) -> None:
        self._settings = settings
        self._memory_share = memory_share
        self._device: Device | None = None
        self._tile_overlaps: dict[str, int] = {}
        self._made_for: tuple[str, FrameFormat, FrameFormat] | None = None
        self._upscaler: Upscaler | None = None

    @property
    def device(self) -> str:
        """The device that computes, by torch's name for it. Raises ConfigurationError when it is missing."""
        return str(self._chosen_device())

    @property
    def is_accelerated(self) -> bool:
        """Whether a GPU computes. Raises ConfigurationError as `device` does."""
        return self._chosen_device().is_accelerator

    def tile_overlap(self, engine_id: str) -> int:
        """Returns how many pixels around a part of a frame the engine must see for the same result as in the whole.

        Raises ConfigurationError when weights are missing.
        """
        if engine_id not in self._tile_overlaps:
            with _typed_errors():
                properties = read_properties(
                    engine_id,
                    weights_directory=self._settings.weights_dir,
                    stand_in=self._settings.stand_in_network,
                )
            self._tile_overlaps[engine_id] = properties.tile_overlap
        return self._tile_overlaps[engine_id]

    @property
    def device_name(self) -> str:
        """What the speed of this device is known by: its make, the same for every device of that kind.

        A stand-in has a name of its own: its speed is none of a network. Raises ConfigurationError as `device` does.
        """
        name = self._chosen_device().model
        return f"stand-in network, {name}" if self._settings.stand_in_network else name

    def check(self) -> None:
        """Raise ConfigurationError when this machine cannot run every engine as the settings ask.

        A worker finds out before it claims work: attempts must not be spent on a machine that is set up wrong.
        """
        with _typed_errors():
            choose_device(self._settings.device).check_precision(self._settings.precision)
            if not self._settings.stand_in_network:
                for engine_id in ENGINES:
                    ensure_weights(engine_id, self._settings.weights_dir)

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
            device.release_cached_memory()

    def _chosen_device(self) -> Device:
        if self._device is None:
            with _typed_errors():
                self._device = choose_device(self._settings.device)
        return self._device


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
        return pixels * upscaler.properties.mflop_per_input_pixel / upscaler.device.slowest_mflop_per_second

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
