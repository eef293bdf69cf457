"""The network's pictures averaged over time: the half of `stabilise` that looks at the network's output.

Each picture is averaged with those of the frames around it, moved along the motion between the input frames and
weighted by how well these agree (`worker.video.alignment`): on the device of the network, in float32, at the network's
size, before grain is added and samples are rounded. What agrees with the picture to the last bit leaves it as it is.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from worker.inference.aligned_frames import (
    STABILISED_RADIUS,
    AlignedFrame,
    Alignment,
    AveragedLuma,
    AveragingObserver,
)
from worker.inference.frames import Frame
from worker.inference.grain import FrameNoise
from worker.inference.transparency import Visible

# Pictures in float32 that averaging holds at once beside the window: the sum, the one that is moved, where it is
# sampled, the difference, and what is made of the result.
WORKING_PICTURES = 6
# ITU-R BT.709-6.
LUMA = (0.2126, 0.7152, 0.0722)


class NetworkPicture(NamedTuple):
    """The network's picture of a frame: `values`, 1 x 3 x rows x columns floats on the device, premultiplied with what
    is `visible` if the frame has alpha."""

    values: torch.Tensor
    visible: Visible | None


class PictureMaker(Protocol):
    """The two halves of an `Upscaler`: what is said there holds."""

    def enlarge(self, frames: Sequence[Frame]) -> list[NetworkPicture]: ...

    def noise_of(self, *frames: Frame) -> Sequence[FrameNoise]: ...

    def luma(self, make: Callable[[], torch.Tensor], *, most_pixels: int) -> NDArray[np.float32]: ...

    def finish(
        self, make: Callable[[], torch.Tensor], noise: Sequence[FrameNoise], visible: Visible | None
    ) -> Frame: ...


class _Enlarged(NamedTuple):
    """A frame of the window. `observed`: the input frame, if an observer wants it."""

    picture: NetworkPicture
    repeats: int
    alignments: Sequence[Alignment]
    noise: Sequence[FrameNoise]
    observed: Frame | None


class StabilisedFrames:
    """Upscales consecutive frames of one run, each averaged with those around it. Not thread-safe."""

    def __init__(self, upscaler: PictureMaker, observer: AveragingObserver | None = None) -> None:
        self._upscaler = upscaler
        self._observer = observer
        self._window: deque[_Enlarged] = deque(maxlen=2 * STABILISED_RADIUS + 1)
        self._count = 0
        self._last: Frame | None = None

    def upscale(self, frames: Sequence[AlignedFrame]) -> list[tuple[Frame, int]]:
        """Returns the results that are complete by now, each with its frame's number of repeats, in order: those of
        the frames up to STABILISED_RADIUS before the last. Frames without repeats have none.

        frames: 1-D uint8 of `source.frame_bytes`, which may change afterwards. Raises what `Upscaler.upscale` does.
        """
        done: list[tuple[Frame, int]] = []
        for one, picture in zip(frames, self._pictures([one.frame for one in frames]), strict=True):
            noise = self._upscaler.noise_of(one.frame) if one.repeats else ()
            is_observed = self._observer is not None and self._count in self._observer.positions
            observed = one.frame.copy() if is_observed else None
            self._window.append(_Enlarged(picture, one.repeats, one.alignments, noise, observed))
            self._count += 1
            if self._count > STABILISED_RADIUS:
                done += self._result(self._count - 1 - STABILISED_RADIUS)
        return done

    def finish(self) -> list[tuple[Frame, int]]:
        """Returns the results that remain after the last frame of the run."""
        return [
            result
            for position in range(max(0, self._count - STABILISED_RADIUS), self._count)
            for result in self._result(position)
        ]

    def _pictures(self, frames: Sequence[Frame]) -> Iterator[NetworkPicture]:
        """The network's pictures; a frame that equals the one before has the same one."""
        distinct: list[Frame] = []
        is_new: list[bool] = []
        for frame in frames:
            is_new.append(self._last is None or not np.array_equal(frame, self._last))
            if is_new[-1]:
                distinct.append(frame)
                self._last = frame.copy()
        pictures = iter(self._upscaler.enlarge(distinct))
        picture = self._window[-1].picture if self._window else None
        for new in is_new:
            picture = next(pictures) if new or picture is None else picture
            yield picture

    def _result(self, position: int) -> Iterator[tuple[Frame, int]]:
        at = position - (self._count - len(self._window))
        here = self._window[at]
        around = [(self._window[at + one.offset].picture.values, one.field) for one in here.alignments]
        steady = partial(average, here.picture.values, around)
        if self._observer is not None and here.observed is not None:
            read = partial(self._upscaler.luma, most_pixels=self._observer.most_pixels)
            lumas = AveragedLuma(read(lambda: here.picture.values), read(steady))
            self._observer.add(position, here.observed, lumas)
        if here.repeats:
            yield self._upscaler.finish(steady, here.noise, here.picture.visible), here.repeats


def average(
    picture: torch.Tensor, around: Sequence[tuple[torch.Tensor, NDArray[np.float32] | None]]
) -> torch.Tensor:
    """The weighted mean of a picture (weight 1) and the moved ones around it, each with the `field` of its Alignment.

    All pictures are 1 x 3 x rows x columns, of any float type; the mean is float32, the picture itself if all is equal.
    """
    middle = picture.to(torch.float32)
    rows, columns = middle.shape[2:]
    total = torch.zeros_like(middle)
    weights = torch.ones((rows, columns), device=middle.device)
    for other, field in around:
        if field is None:
            weights += 1
            continue
        spread = F.interpolate(
            torch.from_numpy(field)[None].to(middle.device),
            size=(rows, columns),
            mode="bilinear",
            align_corners=False,
        )[0]
        right, down, weight = spread[0] * columns, spread[1] * rows, spread[2]
        total += (moved(other.to(torch.float32), right, down) - middle).mul_(weight)
        weights += weight
    return middle + total.div_(weights)


def reduced_luma(picture: torch.Tensor, *, most_pixels: int) -> torch.Tensor:
    """1 x 3 x rows x columns of R, G, B from 0 to 1 -> luma (BT.709) from 0 to 255, 2-D float32: averaged over squares
    of 2, 4, ... pixels until there are no more than `most_pixels`."""
    weights = picture.new_tensor(LUMA, dtype=torch.float32)[:, None, None]
    luma = (picture.to(torch.float32).clamp(0, 1) * weights).sum(dim=1, keepdim=True) * 255
    side = 1
    while luma.numel() > most_pixels * side**2:
        side *= 2
    if side > 1:
        luma = F.avg_pool2d(luma, side, ceil_mode=True, count_include_pad=False)
    return luma[0, 0]


def moved(picture: torch.Tensor, right: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """The picture sampled at each pixel's position plus its displacement, by cubic convolution; edges are replicated.

    picture: 1 x 3 x rows x columns float32; displacements: rows x columns. Pixels without displacement are unchanged.
    """
    if picture.device.type != "cuda":
        # OpenCV is ten times as fast as torch on a processor; torch's for Apple's GPUs has no cubic convolution.
        return _moved_by_opencv(picture, right, down)
    rows, columns = right.shape
    x = torch.arange(columns, device=right.device) + 0.5 + right
    y = torch.arange(rows, device=right.device)[:, None] + 0.5 + down
    places = torch.stack((x * (2 / columns) - 1, y * (2 / rows) - 1), dim=2)[None]
    sampled = F.grid_sample(
        picture.contiguous(), places, mode="bicubic", padding_mode="border", align_corners=False
    )
    # The places are shares of the picture, which are not exact.
    return torch.where((right == 0) & (down == 0), picture, sampled)


def _moved_by_opencv(picture: torch.Tensor, right: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    # Few segments need it.
    import cv2

    rows, columns = right.shape
    x = np.arange(columns, dtype=np.float32) + right.cpu().numpy()
    y = np.arange(rows, dtype=np.float32)[:, None] + down.cpu().numpy()
    planes = [
        cv2.remap(plane, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for plane in picture[0].contiguous().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(planes))[None].to(picture.device)
