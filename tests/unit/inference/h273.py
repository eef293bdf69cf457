"""Colour by the book, written a second time: ITU-T H.273 (07/2021) in float64 numpy, a matrix for every step.

Nothing of it is shared with `worker.inference.colour`. Equations 20 to 28 give the codes, Kr and Kb of its table 4 the
matrix, its figure 1 the places of chroma samples. How samples are made at other places it leaves open: here chroma is
interpolated linearly, and reduced by (1, 1)/2 between two luma samples, by (1, 2, 1)/4 on one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float64]

# By ffmpeg's names of the tag.
KR_KB = {
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt2020nc": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
# Of the first chroma sample from the first luma sample: across, down.
PLACES = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
    # Of pictures that were turned.
    "right": (1.0, 0.5),
    "topright": (1.0, 0.0),
    "bottomright": (1.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How a picture's codes are meant. `chroma` is "420", "422" or "444"."""

    matrix: str
    full_range: bool
    bits: int
    chroma: str = "420"
    place: str = "left"

    @property
    def largest(self) -> int:
        return 2**self.bits - 1


def rgb_of(planes: list[NDArray[np.generic]], coding: Coding) -> Picture:
    """Codes of Y, Cb, Cr -> height x width x 3, R'G'B' in [0, 1]."""
    luma, *chroma = (plane.astype(np.float64) for plane in planes)
    rows, columns = luma.shape
    down = _raising(rows, chroma[0].shape[0], PLACES[coding.place][1])
    across = _raising(columns, chroma[0].shape[1], PLACES[coding.place][0])
    samples = np.stack([luma, *(down @ plane @ across.T for plane in chroma)], axis=-1)
    scale, offset = _codes(coding)
    return np.clip((samples - offset) / scale @ np.linalg.inv(_ycc(coding.matrix)).T, 0, 1)


def codes_of(rgb: Picture, coding: Coding) -> list[Picture]:
    """The way back, to codes that are clipped but not yet rounded."""
    scale, offset = _codes(coding)
    samples = np.clip(rgb, 0, 1) @ _ycc(coding.matrix).T * scale + offset
    rows, columns = rgb.shape[:2]
    down, across = np.eye(rows), np.eye(columns)
    if coding.chroma == "420":
        down = _lowering(rows, PLACES[coding.place][1])
    if coding.chroma != "444":
        across = _lowering(columns, PLACES[coding.place][0])
    planes = [samples[:, :, 0], *(down @ samples[:, :, index] @ across.T for index in (1, 2))]
    return [np.clip(plane, 0, coding.largest) for plane in planes]


def _ycc(matrix: str) -> Picture:
    kr, kb = KR_KB[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue, red = np.array([0, 0, 1]), np.array([1, 0, 0])
    return np.stack([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])


def _codes(coding: Coding) -> tuple[Picture, Picture]:
    """Scale and offset of Y, Cb, Cr."""
    unit, middle = 2.0 ** (coding.bits - 8), 2.0 ** (coding.bits - 1)
    if coding.full_range:
        return np.full(3, float(coding.largest)), np.array([0, middle, middle])
    return unit * np.array([219.0, 224.0, 224.0]), np.array([16 * unit, middle, middle])


def _raising(luma: int, chroma: int, place: float) -> Picture:
    """luma x chroma: the weights that interpolate, borders repeated."""
    if luma == chroma:
        return np.eye(luma)
    places = 2 * np.arange(chroma) + place
    return np.stack([np.interp(np.arange(luma), places, one) for one in np.eye(chroma)], axis=1)


def _lowering(luma: int, place: float) -> Picture:
    """chroma x luma: the weights that reduce, borders repeated."""
    weights = np.zeros(((luma + 1) // 2, luma))
    taps = {0: 0.5, 1: 0.5} if place == 0.5 else {int(place) - 1: 0.25, int(place): 0.5, int(place) + 1: 0.25}
    for row in range(weights.shape[0]):
        for step, weight in taps.items():
            weights[row, min(max(2 * row + step, 0), luma - 1)] += weight
    return weights
