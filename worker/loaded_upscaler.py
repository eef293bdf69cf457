"""The upscaler in a worker's memory: loaded for one engine and one format of video, kept while segments need it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from app.platform.errors import ConfigurationError, TransientError
from app.platform.settings import Settings
from models.added import added_engines, find_engine
from models.catalog import ENGINES, Engine, UnknownEngine
from models.errors import WeightsError
from models.loader import can_run, load_network, read_properties
from models.weights import ensure_weights
from worker.inference.aligned_frames import AlignedFrame, AveragingObserver
from worker.inference.devices import Device, choose_device
from worker.inference.errors import InferenceError, InsufficientMemory
from worker.inference.fastest_precision import choose_precision
from worker.inference.frames import Frame, FrameFormat
from worker.inference.grain import FrameNoise
from worker.inference.mixing import AS_IT_IS, PictureOptions
from worker.inference.precision import Precision
from worker.inference.stabilising import StabilisedFrames
from worker.inference.upscaler import Upscaler, make_upscaler


@dataclass(frozen=True, kw_only=True)
class UpscalerKey:
    """What an upscaler is made for. `precision` is one of `Networks.precisions`; None: by the settings."""

    engine_id: str
    source: FrameFormat
    target: FrameFormat
    picture: PictureOptions = AS_IT_IS
    precision: str | None = None


# An engine, and the file of its weights: its number and the time of its last change. None: there is none.
_Weights = tuple[str, tuple[int, int] | None]


class Networks:
    """Holds one upscaler, because a device's memory is for one network at a time.

    `memory_share`, from 0 to 1, is the share of the free memory that it plans with.
    """

    def __init__(self, settings: Settings, *, memory_share: float = 1.0) -> None:
        self._settings = settings
        self._memory_share = memory_share
        self._device: Device | None = None
        self._tile_overlaps: dict[_Weights, int] = {}
        self._own_precisions: dict[_Weights, str] = {}
        self._made_for: tuple[UpscalerKey, _Weights] | None = None
        self._upscaler: Upscaler | None = None

    @property
    def device(self) -> str:
        """torch's name of the device. Raises ConfigurationError when the device is missing."""
        return str(self._chosen_device())

    @property
    def is_accelerated(self) -> bool:
        """Whether a GPU computes. Raises ConfigurationError as `device` does."""
        return self._chosen_device().is_accelerator

    def tile_overlap(self, engine_id: str) -> int:
        """Returns how many pixels around a part of a frame the engine must see for the same result as in the whole.

        Raises ConfigurationError when weights are missing.
        """
        weights = self._weights(engine_id)
        if weights not in self._tile_overlaps:
            with _typed_errors():
                properties = read_properties(
                    engine_id,
                    weights_directory=self._settings.weights_dir,
                    stand_in=self._settings.stand_in_network,
                )
            self._tile_overlaps[weights] = properties.tile_overlap
        return self._tile_overlaps[weights]

    @property
    def device_name(self) -> str:
        """The name under which this device's speed is kept: its model, the same for all devices of that model.

        The stand-in network has a name of its own. Raises ConfigurationError as `device` does.
        """
        name = self._chosen_device().model
        return f"stand-in network, {name}" if self._settings.stand_in_network else name

    @property
    def precisions(self) -> Mapping[str, Precision]:
        """Those in which it upscales, by the names of their results (`Device.numerics`): what the device computes in
        hardware, or fp32 and the one that the settings name.

        Raises ConfigurationError as `device` does.
        """
        choice, device = self._settings.precision, self._chosen_device()
        named = device.native_precisions() if choice == "auto" else ("fp32", choice)
        return {device.numerics(one): one for one in get_args(Precision) if one in named}

    def knows_own_precision(self, engine_id: str) -> bool:
        """Whether `own_precision` answers at once, without using the device."""
        return self._weights(engine_id) in self._own_precisions

    def own_precision(self, engine_id: str) -> str:
        """Returns the name of the precision in which it begins renders, which it may have to measure. Raises
        ConfigurationError as `upscaler` does."""
        weights = self._weights(engine_id)
        if weights not in self._own_precisions:
            settings = self._settings
            with _typed_errors():
                network = load_network(
                    engine_id, weights_directory=settings.weights_dir, stand_in=settings.stand_in_network
                )
                device = self._chosen_device()
                own = choose_precision(
                    device,
                    settings.precision,
                    network,
                    engine_id=engine_id,
                    kept_in=[settings.weights_dir, settings.data_dir],
                )
            self._own_precisions[weights] = device.numerics(own)
        return self._own_precisions[weights]

    @property
    def engines(self) -> tuple[str, ...]:
        """Its engines: all that are here now, unless the settings name some."""
        return self._settings.engines or (*ENGINES, *self.added_engines)

    def engine(self, engine_id: str) -> Engine:
        """Raises TransientError for one that this machine no longer has."""
        with _typed_errors():
            return find_engine(engine_id, self._settings.weights_dir)

    @property
    def added_engines(self) -> Mapping[str, Engine]:
        """The engines that an operator added on this machine, as far as it can run them, by id."""
        found = added_engines(self._settings.weights_dir)
        named = self._settings.engines or found.keys()
        return {one: engine for one, engine in found.items() if one in named and can_run(engine)}

    def check(self) -> None:
        """Raises ConfigurationError when this machine cannot run every one of its engines as configured.

        Called before the first claim: a misconfigured machine must not spend attempts.
        """
        there = (*ENGINES, *self.added_engines)
        for engine_id in self.engines:
            if engine_id not in there:
                raise ConfigurationError(
                    f"REGEN_ENGINES or --engines names {engine_id!r}; there are only {', '.join(there)}."
                )
        with _typed_errors():
            choose_device(self._settings.device).check_precision(self._settings.precision)
            if not self._settings.stand_in_network:
                for engine_id in self.engines:
                    ensure_weights(engine_id, self._settings.weights_dir)

    def has(self, wanted: UpscalerKey) -> bool:
        """Whether `upscaler` would return the loaded one, rather than replace it."""
        return self._upscaler is not None and self._made_for == (wanted, self._weights(wanted.engine_id))

    def upscaler(self, wanted: UpscalerKey) -> "TypedUpscaler":
        """Raises ConfigurationError when weights or device are missing."""
        if self._upscaler is None or not self.has(wanted):
            # Looked at before they are read: weights that are replaced meanwhile are read again.
            weights = self._weights(wanted.engine_id)
            self._upscaler = None  # freed before the next is made
            with _typed_errors():
                self._upscaler = make_upscaler(
                    engine_id=wanted.engine_id,
                    source=wanted.source,
                    target=wanted.target,
                    weights_directory=self._settings.weights_dir,
                    device=self._settings.device,
                    precision=(
                        self._settings.precision
                        if wanted.precision is None
                        else self.precisions[wanted.precision]
                    ),
                    stand_in=self._settings.stand_in_network,
                    fused_kernels=self._settings.fused_kernels,
                    memory_share=self._memory_share,
                    measurements_directory=self._settings.data_dir,
                    picture=wanted.picture,
                )
            self._made_for = wanted, weights
        stand_in = self._settings.stand_in_network
        pause_seconds = self._settings.stand_in_seconds_per_frame if stand_in else 0.0
        return TypedUpscaler(self._upscaler, pause_seconds=pause_seconds)

    def release(self) -> None:
        """Frees the upscaler's memory, including that of the device."""
        if self._upscaler is not None:
            device = self._upscaler.device
            self._upscaler = None
            device.release_cached_memory()

    def _weights(self, engine_id: str) -> _Weights:
        """Which weights the engine has now: an operator may replace them."""
        try:
            found = (self._settings.weights_dir / f"{engine_id}.safetensors").stat()
        except OSError:
            return engine_id, None
        return engine_id, (found.st_ino, found.st_mtime_ns)

    def _chosen_device(self) -> Device:
        if self._device is None:
            with _typed_errors():
                self._device = choose_device(self._settings.device)
        return self._device


class TypedUpscaler:
    """An upscaler that raises errors of our tree. For measurements it sleeps `pause_seconds` for each frame."""

    def __init__(self, upscaler: Upscaler, *, pause_seconds: float = 0.0) -> None:
        self._upscaler = upscaler
        self._pause_seconds = pause_seconds

    @property
    def batch_size(self) -> int:
        return self._upscaler.batch_size

    @property
    def longest_batch_seconds(self) -> float:
        """The time of one batch on a device so slow that waiting longer is pointless."""
        upscaler = self._upscaler
        pixels = upscaler.source.width * upscaler.source.height * upscaler.batch_size
        return pixels * upscaler.properties.mflop_per_input_pixel / upscaler.device.slowest_mflop_per_second

    @property
    def processor_threads(self) -> int | None:
        return self._upscaler.processor_threads

    def upscale(self, frames: Sequence[Frame], *, noise: FrameNoise | None = None) -> list[Frame]:
        """As Upscaler.upscale. Raises TransientError when memory does not suffice for the smallest batch and tile."""
        time.sleep(self._pause_seconds * len(frames))
        with _typed_errors():
            return self._upscaler.upscale(frames, noise=noise)

    def stabilised(
        self, observer: AveragingObserver | None = None, *, noise: FrameNoise | None = None
    ) -> "TypedStabilisedFrames":
        """As Upscaler.stabilised; what it returns raises as `upscale` does."""
        return TypedStabilisedFrames(
            self._upscaler.stabilised(observer, noise=noise), pause_seconds=self._pause_seconds
        )


class TypedStabilisedFrames:
    """StabilisedFrames that raise errors of our tree."""

    def __init__(self, frames: StabilisedFrames, *, pause_seconds: float) -> None:
        self._frames = frames
        self._pause_seconds = pause_seconds

    def upscale(self, frames: Sequence[AlignedFrame]) -> list[tuple[Frame, int]]:
        time.sleep(self._pause_seconds * len(frames))
        with _typed_errors():
            return self._frames.upscale(frames)

    def finish(self) -> list[tuple[Frame, int]]:
        with _typed_errors():
            return self._frames.finish()


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Translates errors of `models` and `worker.inference`, which do not import ours."""
    try:
        yield
    except InsufficientMemory as error:
        raise TransientError("The device's memory did not suffice.", detail=str(error)) from error
    except UnknownEngine as error:
        # An added engine whose file was removed a moment ago: the machine is fine, and soon claims no more of it.
        raise TransientError("This worker no longer has the engine.", detail=str(error)) from error
    except (WeightsError, InferenceError) as error:
        raise ConfigurationError(str(error)) from error
