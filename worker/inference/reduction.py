"""Reduces enlarged pictures to a smaller size, on the device of the tensors, in float32.

Each pixel of the result is the mean of the area that it covers. Of filters that let no detail fold back into coarser
patterns this one invents nothing: no ringing, no value beyond those of the pixels that it averages. For whole factors
it is exact: a picture enlarged by repeating its pixels becomes itself again.
"""

import torch


class AreaReduction:
    """Reduces pictures of one size to another, each side to at most as many pixels."""

    def __init__(self, *, width: int, height: int, target_width: int, target_height: int) -> None:
        self._axes = [
            (axis, *_taps(before, after))
            for axis, before, after in ((2, height, target_height), (3, width, target_width))
            if before != after
        ]

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor:
        """N x 3 x height x width floats -> N x 3 x target height x target width; float32 if anything changes."""
        for axis, indexes, weights in self._axes:
            shape = [-1 if dimension == axis else 1 for dimension in range(4)]
            parts = (
                rgb.index_select(axis, index).to(torch.float32).mul_(weight.view(shape))
                for index, weight in zip(indexes.to(rgb.device), weights.to(rgb.device), strict=True)
            )
            reduced = next(parts)
            for part in parts:
                reduced += part
            rgb = reduced
        return rgb


def _taps(before: int, after: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each tap and each pixel of the result, the pixel that is read and its weight: taps x `after` each."""
    rows = []
    for place in range(after):
        first, last = place * before, (place + 1) * before  # in pixels / `after`
        start, stop = first // after, -(-last // after)
        rows.append(
            [
                (at, (min(last, (at + 1) * after) - max(first, at * after)) / before)
                for at in range(start, stop)
            ]
        )
    count = max(map(len, rows))
    filled = [[*row, *[(row[-1][0], 0.0)] * (count - len(row))] for row in rows]
    indexes = torch.tensor([[row[tap][0] for row in filled] for tap in range(count)])
    weights = torch.tensor([[row[tap][1] for row in filled] for tap in range(count)], dtype=torch.float32)
    return indexes, weights
