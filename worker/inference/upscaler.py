"""Upscales raw frames: planes to RGB, through the network, and back to planes, all on one device."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.added import find_engine
from models.architectures import NetworkProperties, UpscalingNetwork
from models.catalog import Engine
from models.loader import load_network
from worker.inference.aligned_frames import STABILISED_RADIUS, AveragingObserver
from worker.inference.batching import run_in_batches
from worker.inference.colour import planes_to_alpha, planes_to_rgb, rgb_to_planes
from worker.inference.devices import CudaDevice, Device, choose_device
from worker.inference.devices.cuda import FusedKernels
from worker.inference.errors import InsufficientMemory
from worker.inference.fastest_precision import choose_precision
from worker.inference.frames import Frame, FrameFormat
from worker.inference.grain import FrameNoise, add_grain, measure_noise
from worker.inference.memory import is_out_of_memory
from worker.inference.mixing import AS_IT_IS, PictureOptions, mix
from worker.inference.precision import Precision
from worker.inference.reduction import AreaReduction
from worker.inference.result_reuse import FrameReuse
from worker.inference.stabilising import WORKING_PICTURES, NetworkPicture, StabilisedFrames, reduced_luma
from worker.inference.tiles import TiledNetwork
from worker.inference.transfers import PendingFrames
from worker.inference.transparency import Visible, reduce_visible

Result = TypeVar("Result")


class Upscaler:
    """One network on one device, for frames of one format. Not thread-safe.

    When memory runs out it takes fewer frames at once, then smaller tiles, and tries the same frames again; it keeps
    the sizes that fitted. Pixels that equal those of the frame before are not computed again (`reuse`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        engine: Engine,
        source: FrameFormat,
        target: FrameFormat,
        device: Device,
        precision: Precision,
        properties: NetworkProperties | None = None,
        tile_pixels: int | None = None,
        batch_size: int | None = None,
        memory_share: float = 1.0,
        picture: PictureOptions = AS_IT_IS,
    ) -> None:
        """`network` is copied. `target` may be up to `engine.scale` times as wide and as high as `source`
        (`ValueError`); a smaller one is reduced from that, before its samples are rounded. Both have alpha or neither.

        `properties` are those of the network by default. `tile_pixels` bounds the input pixels of a tile, padding
        included; `batch_size` is the number of frames taken at once. By default both follow from the memory that is
        free now, or this share of it.
        """
        full = source.enlarged(engine.scale)
        if target.width > full.width or target.height > full.height:
            raise ValueError(
                f"{source.width}x{source.height} becomes {full.width}x{full.height} at most, "
                f"not {target.width}x{target.height}."
            )
        if source.has_alpha != target.has_alpha:
            raise ValueError("Alpha is in the source and in the target, or in neither.")
        if (tile_pixels is not None and tile_pixels < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError("tile_pixels and batch_size are at least 1.")
        if properties is None:
            if not isinstance(network, UpscalingNetwork):
                raise TypeError(f"A {type(network).__name__} needs its properties stated.")
            properties = network.properties
        self.engine = engine
        self.source = source
        self.target = target
        self.device = device
        self.precision = precision
        self.properties = properties
        self._runtime = device.make_runtime(network, properties=properties, precision=precision)
        memory_bytes = int(device.available_bytes() * memory_share)
        if picture.is_stabilised:
            pictures = 2 * STABILISED_RADIUS + 1 + WORKING_PICTURES
            memory_bytes = max(0, memory_bytes - pictures * 3 * 4 * full.width * full.height)
        workload = device.plan_workload(
            properties=properties, precision=precision, source=source, memory_bytes=memory_bytes
        )
        self._tiled = TiledNetwork(
            self._runtime,
            width=source.width,
            height=source.height,
            scale=engine.scale,
            overlap=properties.tile_overlap,
            tile_pixels=tile_pixels or workload.tile_pixels,
        )
        self._reduction = AreaReduction(
            width=full.width, height=full.height, target_width=target.width, target_height=target.height
        )
        self._picture = picture
        self._is_unchanged = (target.width, target.height) == (
            full.width,
            full.height,
        ) and picture == AS_IT_IS
        self._noise: FrameNoise | None = None
        self._reuse = FrameReuse(self._runtime, source=source, target=target)
        self._transfers = device.make_transfers()
        self._batch_size = batch_size or workload.batch_size

    @property
    def batch_size(self) -> int:
        """The number of frames taken at once, and so the number to pass to `upscale`. 1 on a CPU. It may shrink."""
        return self._batch_size

    @property
    def tile_count(self) -> int:
        """The number of tiles in which a frame goes through the network; 1 means untiled."""
        return self._tiled.count

    @property
    def processor_threads(self) -> int | None:
        """The number of processor threads that compute; None on a GPU."""
        return self.device.threads

    def upscale(self, frames: Sequence[Frame], *, noise: FrameNoise | None = None) -> list[Frame]:
        """Upscales any number of frames, with grain of `noise` if they are parts of a larger frame, else of their own.

        frames: each 1-D uint8 of `source.frame_bytes` (`ValueError` otherwise). Returns as many, in the same order,
        each 1-D uint8 of `target.frame_bytes`; equal frames in a row may share one array, which must not be written
        to. Raises `InsufficientMemory` if one frame fails in the smallest tiles; other errors of torch pass through.
        """
        self._check(frames)
        self._noise = noise
        if noise is not None:
            self._reuse.forget()
        distinct, previous, indexes = self._reuse.distinct(frames)
        results = run_in_batches(distinct, size=self._batch_size, start=self._start, shrink=self._shrink)
        if results and not self._reuses_regions:
            self._reuse.remember(distinct[-1], results[-1])
        return [previous if index < 0 and previous is not None else results[index] for index in indexes]

    def stabilised(
        self, observer: AveragingObserver | None = None, *, noise: FrameNoise | None = None
    ) -> StabilisedFrames:
        """Returns what upscales one run of consecutive frames, each averaged with those around it. `noise` is as for
        `upscale`."""
        self._noise = noise
        return StabilisedFrames(self, observer)

    def enlarge(self, frames: Sequence[Frame]) -> list[NetworkPicture]:
        """Returns the network's picture of each frame, mixed by `strength`. Takes and raises what `upscale` does."""
        self._check(frames)

        def start(batch: Sequence[Frame]) -> Callable[[], list[NetworkPicture]]:
            with self.device.computing():
                rgb, visible = self._colours(batch)
                mixed = self._mixed(rgb)
                pictures = [
                    # The network's next call overwrites them.
                    NetworkPicture(mixed[at : at + 1].clone(), visible and visible.of_frame(at))
                    for at in range(len(batch))
                ]
            return lambda: pictures

        return run_in_batches(frames, size=self._batch_size, start=start, shrink=self._shrink)

    def finish(
        self, make: Callable[[], torch.Tensor], noise: Sequence[FrameNoise], visible: Visible | None
    ) -> Frame:
        """Returns the frame of the values that `make` makes of those of `enlarge`, 1-D uint8 of `target.frame_bytes`,
        with grain of `noise_of` its input frame and what is `visible` of it. Raises as `upscale` does."""
        return self._as_memory_allows(
            lambda: self._transfers.start_download(self._finished(make(), noise, visible))()[0]
        )

    def luma(self, make: Callable[[], torch.Tensor], *, most_pixels: int) -> NDArray[np.float32]:
        """Returns the luma of the values that `make` makes of those of `enlarge`, see `reduced_luma`. Raises as
        `upscale` does."""
        return self._as_memory_allows(lambda: reduced_luma(make(), most_pixels=most_pixels).cpu().numpy())

    def _as_memory_allows(self, compute: Callable[[], Result]) -> Result:
        """Computes on the device, again with less memory for the network when it runs out."""
        while True:
            try:
                with self.device.computing():
                    return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._shrink(1)

    def noise_of(self, *frames: Frame) -> Sequence[FrameNoise]:
        """Returns the noise of frames from which grain is made; empty without grain."""
        if not self._picture.grain:
            return ()
        return [self._noise or measure_noise(frame, self.source) for frame in frames]

    def _check(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.dtype != np.uint8 or frame.shape != (self.source.frame_bytes,):
                raise ValueError(
                    f"A frame is {self.source.frame_bytes} bytes, not {frame.dtype} of shape {frame.shape}."
                )

    @property
    def _reuses_regions(self) -> bool:
        is_whole = self.tile_count == 1 and self._batch_size == 1 and self._is_unchanged
        return self.device.reuses_regions and is_whole and not self.source.has_alpha

    def _colours(self, batch: Sequence[Frame]) -> tuple[torch.Tensor, Visible | None]:
        """What the network is given, N x 3 x H x W, and with alpha what of it is visible."""
        planes = self._transfers.upload(batch)
        rgb = planes_to_rgb(planes, self.source)
        visible = None
        if self.source.has_alpha:
            visible = Visible.of(rgb, planes_to_alpha(planes, self.source))
            rgb = visible.colours
        return rgb.contiguous(memory_format=self._runtime.memory_format), visible

    def _start(self, batch: Sequence[Frame]) -> PendingFrames:
        with self.device.computing():
            rgb, visible = self._colours(batch)
            if self._reuses_regions:
                result = self._reuse.upscale(
                    batch[0], rgb, lambda whole: self._finished(self._mixed(whole), ())
                )
                return lambda: [result]
            noise = self.noise_of(*batch)
            return self._transfers.start_download(self._finished(self._mixed(rgb), noise, visible))

    def _mixed(self, rgb: torch.Tensor) -> torch.Tensor:
        """N x 3 x H x W -> N x 3 x scale*H x scale*W."""
        return mix(self._tiled(rgb), rgb, strength=self._picture.strength, scale=self.engine.scale)

    def _finished(
        self, enlarged: torch.Tensor, noise: Sequence[FrameNoise], visible: Visible | None = None
    ) -> torch.Tensor:
        """N x 3 x scale*H x scale*W, premultiplied if some is not `visible` -> N x `target.frame_bytes` uint8."""
        scale, alpha = self.engine.scale, None
        if visible is not None:
            alpha = visible.enlarged_alpha(scale)
            enlarged = visible.straighten(enlarged, alpha, scale=scale)
        if noise:
            enlarged = add_grain(enlarged, noise, grain=self._picture.grain, scale=scale)
        if alpha is None:
            return rgb_to_planes(self._reduction(enlarged), self.target)
        enlarged, alpha = reduce_visible(self._reduction, enlarged, alpha)
        return rgb_to_planes(enlarged, self.target, alpha)

    def _shrink(self, frames: int) -> int:
        """Makes the next attempt smaller after so many frames did not fit, and returns the size of batches.

        Raises `InsufficientMemory`.
        """
        self._reuse.forget()
        self._runtime.release()
        self.device.release_cached_memory()
        if frames > 1:
            self._batch_size = frames // 2
        elif not self._tiled.shrink():
            raise InsufficientMemory(
                f"{self.device} lacks the memory for a frame of {self.source.width}x{self.source.height} "
                f"with {self.engine.id}, even in {self.tile_count} tiles."
            )
        return self._batch_size


def make_upscaler(
    *,
    engine_id: str,
    source: FrameFormat,
    target: FrameFormat,
    weights_directory: str | Path,
    device: str = "auto",
    precision: str = "auto",
    stand_in: bool = False,
    fused_kernels: FusedKernels = "off",
    memory_share: float = 1.0,
    measurements_directory: str | Path | None = None,
    picture: PictureOptions = AS_IT_IS,
) -> Upscaler:
    """Returns an upscaler ready to run.

    `device` is as for `choose_device`, `precision` as for `choose_precision`, `memory_share` and `picture` as for
    `Upscaler`, `fused_kernels` as for `CudaDevice` (other devices have none), `weights_directory` and `stand_in` as for
    `models.loader.load_network`; each raises what is said there. What `choose_precision` measures is kept beside the
    weights, or in `measurements_directory` if their folder cannot be written.
    """
    engine = find_engine(engine_id, weights_directory)
    chosen = choose_device(device)
    if isinstance(chosen, CudaDevice):
        chosen = replace(chosen, fused_kernels=fused_kernels)
    chosen.check_precision(precision)
    network = load_network(engine_id, weights_directory=weights_directory, stand_in=stand_in)
    return Upscaler(
        network,
        engine=engine,
        source=source,
        target=target,
        device=chosen,
        precision=choose_precision(
            chosen,
            precision,
            network,
            engine_id=engine_id,
            kept_in=[Path(one) for one in (weights_directory, measurements_directory) if one is not None],
        ),
        memory_share=memory_share,
        picture=picture,
    )
