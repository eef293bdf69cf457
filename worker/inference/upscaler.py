"""Upscales raw frames: planes to RGB, through the network, and back to planes, all on one device."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.catalog import Engine, get_engine
from models.loader import load_network
from worker.inference.colour import planes_to_rgb, rgb_to_planes
from worker.inference.cuda.transfers import Download, Transfers
from worker.inference.errors import InsufficientMemory
from worker.inference.frames import FrameFormat
from worker.inference.memory import available_bytes, is_out_of_memory, plan_workload, release_cached
from worker.inference.precision import Precision, choose_device, choose_precision
from worker.inference.runtime import make_runtime, memory_format, reach_pixels, release_runtime
from worker.inference.still import Parts, Region, Remembered
from worker.inference.tiles import Tile, plan_tiles, smallest_tile_pixels

Frame = NDArray[np.uint8]

_WARM_UP_PIXELS = 32


class Upscaler:
    """One network on one device, for frames of one format. Not for use from several threads at once.

    When memory runs out it first takes fewer frames at once, then smaller tiles, and tries the same frames
    again; it remembers what fitted. Tiles are padded by the engine's `tile_overlap` (see
    `Engine.tiling_note`). Of a frame, what equals the frame before is not computed again (see `still`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        engine: Engine,
        source: FrameFormat,
        target: FrameFormat,
        device: torch.device,
        precision: Precision,
        tile_pixels: int | None = None,
        batch_size: int | None = None,
        memory_share: float = 1.0,
    ) -> None:
        """`network` is copied. `target` must be `engine.scale` times `source` in width and height
        (`ValueError`).

        `tile_pixels` bounds the input pixels of a tile, padding included; `batch_size` the frames taken at
        once. What is not given is chosen by the memory that is free now, or this share of it.
        """
        if (target.width, target.height) != (source.width * engine.scale, source.height * engine.scale):
            raise ValueError(
                f"{source.width}x{source.height} becomes {source.width * engine.scale}x"
                f"{source.height * engine.scale}, not {target.width}x{target.height}."
            )
        if (tile_pixels is not None and tile_pixels < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError("tile_pixels and batch_size are at least 1.")
        self.engine = engine
        self.source = source
        self.target = target
        self.device = device
        self.precision = precision
        self._network = make_runtime(network, engine=engine, device=device, precision=precision)
        self._memory_format = memory_format(self._network, device)
        workload = plan_workload(
            engine=engine,
            precision=precision,
            device_type=device.type,
            source=source,
            available_bytes=int(available_bytes(device) * memory_share),
        )
        self._batch_size = batch_size or workload.batch_size
        self._tiles = self._plan(tile_pixels or workload.tile_pixels)
        self._last: Remembered | None = None
        self._transfers = Transfers(device) if device.type == "cuda" else None
        self._parts = Parts(
            height=source.height, width=source.width, reach=reach_pixels(self._network, engine)
        )

    @property
    def batch_size(self) -> int:
        """How many frames are taken at once: the number to hand to `upscale`. 1 on a CPU. It may shrink."""
        return self._batch_size

    @property
    def tile_count(self) -> int:
        """In how many tiles a frame goes through the network; 1 is untiled."""
        return len(self._tiles)

    @property
    def processor_threads(self) -> int | None:
        """On a CPU: how many threads compute."""
        return torch.get_num_threads() if self.device.type == "cpu" else None

    def upscale(self, frames: Sequence[Frame]) -> list[Frame]:
        """Upscales any number of frames.

        frames: each 1-D uint8 of `source.frame_bytes` (`ValueError` otherwise). Returns as many, in the same
        order, each 1-D uint8 of `target.frame_bytes`; equal frames in a row may share one array, which is not to be
        written to. Raises `InsufficientMemory` when one frame fails in the
        smallest tiles; other errors of torch pass through.
        """
        for frame in frames:
            if frame.dtype != np.uint8 or frame.shape != (self.source.frame_bytes,):
                raise ValueError(
                    f"A frame is {self.source.frame_bytes} bytes, not {frame.dtype} of shape {frame.shape}."
                )
        last = self._last
        before = None if last is None else last.frame
        distinct: list[Frame] = []
        places: list[int] = []
        for frame in frames:
            if before is None or not np.array_equal(frame, before):
                distinct.append(frame)
            places.append(len(distinct) - 1)
            before = frame
        results = self._compute(distinct)
        return [last.result if place < 0 and last is not None else results[place] for place in places]

    def _compute(self, frames: Sequence[Frame]) -> list[Frame]:
        if self._transfers is not None:
            return self._compute_overlapped(frames, self._transfers)
        results: list[Frame] = []
        while len(results) < len(frames):
            group = frames[len(results) : len(results) + self._batch_size]
            # A group counts only once it is whole and on the host.
            done = self._try_group(group)
            if done is None:
                # Here, not in the handler: there the error's traceback still holds the tensors.
                self._last = None
                release_cached(self.device)
                self._take_less(len(group))
            else:
                results.extend(done)
        return results

    def _compute_overlapped(self, frames: Sequence[Frame], transfers: Transfers) -> list[Frame]:
        """On a CUDA device: while a group's results are copied back, the next is computed."""
        results: list[Frame] = []
        begun = 0
        pending: Download | None = None
        while begun < len(frames) or pending is not None:
            group = frames[begun : begun + self._batch_size]
            following = self._begin_group(group, transfers) if group else None
            if pending is not None:
                results.extend(pending.wait())
            pending = following
            if following is not None:
                begun += len(group)
            elif group:
                self._last = None
                release_runtime(self._network)
                release_cached(self.device)
                self._take_less(len(group))
        if results:
            self._last = Remembered(frame=frames[-1].copy(), rgb=None, result=results[-1])
        return results

    def _begin_group(self, group: Sequence[Frame], transfers: Transfers) -> Download | None:
        """The group's results on their way, or None where memory ran out."""
        try:
            with torch.inference_mode(), self._arithmetic():
                rgb = planes_to_rgb(transfers.upload(group), self.source)
                rgb = rgb.contiguous(memory_format=self._memory_format)
                return transfers.begin_download(rgb_to_planes(self._run_network(rgb), self.target))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def warm_up(self) -> None:
        """Does what the first frames would otherwise wait for: loads kernels; on a GPU, finds what fits."""
        if self.device.type == "cpu":
            with torch.inference_mode():
                self._network(torch.zeros(1, 3, _WARM_UP_PIXELS, _WARM_UP_PIXELS))
        else:
            self.upscale([np.zeros(self.source.frame_bytes, np.uint8)] * self._batch_size)

    def _try_group(self, group: Sequence[Frame]) -> list[Frame] | None:
        """The group upscaled, or None where memory ran out."""
        # Metal's command buffers are not for two threads at once.
        alone = _METAL if self.device.type == "mps" else nullcontext()
        try:
            with alone, torch.inference_mode():
                return self._upscale_group(group)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _upscale_group(self, group: Sequence[Frame]) -> list[Frame]:
        raw = torch.empty((len(group), self.source.frame_bytes), dtype=torch.uint8)
        for row, frame in zip(raw.numpy(), group, strict=True):
            row[:] = frame
        rgb = planes_to_rgb(raw.to(self.device), self.source).contiguous(memory_format=self._memory_format)
        with self._arithmetic():
            results = self._upscale_changes(rgb) or self._upscale_whole(rgb)
        self._last = Remembered(
            frame=group[-1].copy(), rgb=rgb if self._has_parts else None, result=results[-1]
        )
        return results

    @property
    def _has_parts(self) -> bool:
        # On a GPU kernels are chosen by speed, and small parts leave it idle.
        return self.device.type == "cpu" and len(self._tiles) == 1 and self._batch_size == 1

    def _upscale_whole(self, rgb: torch.Tensor) -> list[Frame]:
        return list(rgb_to_planes(self._run_network(rgb), self.target).cpu().numpy())

    def _upscale_changes(self, rgb: torch.Tensor) -> list[Frame] | None:
        """The frame before with its changed parts computed anew, or None where the whole is to be."""
        last = self._last
        if not self._has_parts or last is None or last.rgb is None:
            return None
        regions = self._parts.changed(last.rgb, rgb)
        if regions is None:
            return None
        if self._parts.are_proved(regions):
            result = last.result.copy()
            for region in regions:
                self._lay_over(result, region, rgb)
            self._parts.note_use(regions)
            return [result]
        if not (to_prove := self._parts.to_prove(regions)):
            return None
        whole = self._upscale_whole(rgb)
        for region in to_prove:
            tried = whole[0].copy()
            self._lay_over(tried, region, rgb)
            self._parts.note_proof(region, is_equal=np.array_equal(tried, whole[0]))
        return whole

    def _lay_over(self, result: Frame, region: Region, rgb: torch.Tensor) -> None:
        """Compute one part and write it into the frame."""
        read, scale = self._parts.read_by(region), self.engine.scale
        part = rgb[:, :, read.top : read.bottom, read.left : read.right]
        enlarged = self._network(part.contiguous(memory_format=self._memory_format))
        rows, columns = read.size
        part_format = replace(self.target, height=rows * scale, width=columns * scale)
        planes = part_format.split(rgb_to_planes(enlarged, part_format)[0].numpy())
        for whole, made in zip(self.target.split(result), planes, strict=True):
            # Samples of this plane to an input pixel: the scale, or half of it where chroma is subsampled.
            down, across = whole.shape[0] // self.source.height, whole.shape[1] // self.source.width
            top, left = (region.top - read.top) * down, (region.left - read.left) * across
            rows, columns = region.size[0] * down, region.size[1] * across
            whole[region.top * down : region.bottom * down, region.left * across : region.right * across] = (
                made[top : top + rows, left : left + columns]
            )

    def _run_network(self, rgb: torch.Tensor) -> torch.Tensor:
        if len(self._tiles) == 1:
            whole: torch.Tensor = self._network(rgb)
            return whole
        scale = self.engine.scale
        enlarged = rgb.new_empty((rgb.shape[0], 3, self.target.height, self.target.width))
        for tile in self._tiles:
            part = self._network(
                rgb[:, :, tile.padded_top : tile.padded_bottom, tile.padded_left : tile.padded_right]
            )
            top, left = (tile.top - tile.padded_top) * scale, (tile.left - tile.padded_left) * scale
            rows, columns = (tile.bottom - tile.top) * scale, (tile.right - tile.left) * scale
            enlarged[:, :, tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale] = (
                part[:, :, top : top + rows, left : left + columns]
            )
        return enlarged

    def _arithmetic(self) -> AbstractContextManager[None]:
        # By default cuDNN computes fp32 convolutions in TF32, with 10 bits of mantissa: neither those of fp32
        # nor those that bf16 and mixed leave in 32 bits are to be.
        return _EXACT_CUDNN.held() if self.device.type == "cuda" else nullcontext()

    def _plan(self, tile_pixels: int) -> list[Tile]:
        return plan_tiles(
            width=self.source.width,
            height=self.source.height,
            tile_pixels=max(tile_pixels, self._smallest_tile_pixels()),
            overlap=self.engine.tile_overlap,
        )

    def _smallest_tile_pixels(self) -> int:
        return smallest_tile_pixels(
            width=self.source.width, height=self.source.height, overlap=self.engine.tile_overlap
        )

    def _take_less(self, frames: int) -> None:
        """After `frames` at once did not fit."""
        if frames > 1:
            self._batch_size = frames // 2
            return
        largest = max(tile.padded_pixels for tile in self._tiles)
        if largest <= self._smallest_tile_pixels():
            raise InsufficientMemory(
                f"{self.device} lacks the memory for a frame of {self.source.width}x{self.source.height} "
                f"with {self.engine.id}, even in {len(self._tiles)} tiles."
            )
        self._tiles = self._plan(largest // 2)


class _ExactCudnn:
    """cuDNN's settings are the process's, not a thread's: they are as they must be until the last thread that computes
    has left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._flags: AbstractContextManager[None] = nullcontext()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self._holders == 0:
                self._flags = torch.backends.cudnn.flags(
                    enabled=True, benchmark=True, deterministic=False, allow_tf32=False
                )
                self._flags.__enter__()
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._flags.__exit__(None, None, None)


_EXACT_CUDNN = _ExactCudnn()
_METAL = threading.Lock()


def make_upscaler(
    *,
    engine_id: str,
    source: FrameFormat,
    target: FrameFormat,
    weights_directory: str | Path,
    device: str = "auto",
    precision: str = "auto",
    stand_in: bool = False,
    memory_share: float = 1.0,
) -> Upscaler:
    """An upscaler ready to run.

    `device` is as for `choose_device`, `precision` as for `choose_precision`, `memory_share` as for `Upscaler`,
    `weights_directory` and `stand_in` as for `models.loader.load_network`; each raises what is said there.
    """
    engine = get_engine(engine_id)
    chosen = choose_device(device)
    return Upscaler(
        load_network(engine_id, weights_directory=weights_directory, stand_in=stand_in),
        engine=engine,
        source=source,
        target=target,
        device=chosen,
        precision=choose_precision(precision, device=chosen, engine=engine),
        memory_share=memory_share,
    )
