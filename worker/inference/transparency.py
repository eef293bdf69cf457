"""Transparent pictures through a network of opaque ones, on the device of the tensors, in float32.

The network is given premultiplied colours: what is invisible is black, whatever was stored there, and no colour of it
reaches what is visible. Alpha is enlarged plainly. The two meet in `straighten`.

Dividing the network's picture by alpha is right wherever alpha is even. At an edge of alpha it is not: the network
draws the edge of the colours sharper than the plain enlargement draws that of alpha, and the quotient is a bright line
inside the edge and a dark one outside. So the more alpha changes from pixel to pixel of the input, the more the colours
are those of the plain enlargement of both, whose quotient is the mean of the input's colours by visibility; and near an
edge they stay between the colours of the neighbouring visible pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from worker.inference.mixing import enlarge_plainly
from worker.inference.reduction import AreaReduction

# Below every code of alpha of 16 bits.
_LEAST_ALPHA = 1e-6
# Sides of squares in input pixels: neighbours, and what is near an edge.
_NEIGHBOURS, _NEAR = 3, 5


@dataclass(frozen=True, kw_only=True)
class Visible:
    """A picture before it is enlarged: `colours`, premultiplied (N x 3 x H x W), and `alpha` (N x 1 x H x W), float32.

    `is_opaque`: throughout.
    """

    colours: torch.Tensor
    alpha: torch.Tensor
    is_opaque: bool

    @classmethod
    def of(cls, rgb: torch.Tensor, alpha: torch.Tensor) -> "Visible":
        """`rgb`: straight colours. Opaque ones remain as they are, to the last bit."""
        is_opaque = bool((alpha == 1).all())
        return cls(colours=rgb if is_opaque else rgb * alpha, alpha=alpha, is_opaque=is_opaque)

    def of_frame(self, index: int) -> "Visible":
        """One of the N pictures."""
        part = slice(index, index + 1)
        return Visible(colours=self.colours[part], alpha=self.alpha[part], is_opaque=self.is_opaque)

    def enlarged_alpha(self, scale: int) -> torch.Tensor:
        """N x 1 x scale*H x scale*W in [0, 1]: 1 and 0 wherever the pixels around are all opaque or all transparent."""
        if self.is_opaque:
            return _repeated(self.alpha, scale)
        plain = enlarge_plainly(self.alpha, scale=scale).clamp_(0, 1)
        # Weights do not sum to 1 to the last bit.
        return plain.masked_fill_(_repeated(_least(self.alpha, _NEAR), scale) == 1, 1)

    def straighten(self, enlarged: torch.Tensor, alpha: torch.Tensor, *, scale: int) -> torch.Tensor:
        """The network's premultiplied picture and `enlarged_alpha` -> straight colours, N x 3 x scale*H x scale*W.

        Pixels far from any transparent one are the network's. Invisible pixels have the colours of visible ones nearby,
        for whoever mixes them, as the subsampling of chroma does; far from any they are black.
        """
        if self.is_opaque:
            return enlarged
        is_visible = self.alpha > 0
        straight = self.colours / self.alpha.clamp_min(_LEAST_ALPHA)
        lowest = _least(straight.masked_fill(~is_visible, torch.inf), _NEIGHBOURS)
        highest = _most(straight.masked_fill(~is_visible, -torch.inf), _NEIGHBOURS)
        around = _mean(self.colours, _NEAR) / _mean(self.alpha, _NEAR).clamp_min(_LEAST_ALPHA)
        has_none = highest == -torch.inf
        lowest, highest = lowest.where(~has_none, around), highest.where(~has_none, around)
        change = _repeated(_most(self.alpha, _NEIGHBOURS) - _least(self.alpha, _NEIGHBOURS), scale)
        is_near = _repeated(_least(self.alpha, _NEAR) < 1, scale)
        is_shown = alpha > 0
        divisor = alpha.clamp_min(_LEAST_ALPHA)
        plain_alpha = enlarge_plainly(self.alpha, scale=scale).clamp_min_(_LEAST_ALPHA)
        result = torch.empty(enlarged.shape, dtype=torch.float32, device=enlarged.device)
        # One channel at a time: at 16384x9216 each is 600 MB.
        for index in range(3):
            part = slice(index, index + 1)
            own = enlarged[:, part].to(torch.float32)
            plain = enlarge_plainly(self.colours[:, part], scale=scale).div_(plain_alpha)
            colours = torch.lerp(own / divisor, plain, change)
            colours = colours.where(is_shown, _repeated(around[:, part], scale))
            colours = colours.maximum(_repeated(lowest[:, part], scale))
            colours = colours.minimum(_repeated(highest[:, part], scale))
            result[:, part] = colours.where(is_near, own)
        return result


def reduce_visible(
    reduction: AreaReduction, colours: torch.Tensor, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Straight colours and alpha, reduced: a pixel has the mean of what is visible in it, and its share of the area."""
    small = reduction(alpha)
    if small.shape == alpha.shape:
        return colours, alpha
    # Opaque pixels are those of an opaque picture, to the last bit.
    is_mixed = (small > 0) & (small < 1 - _LEAST_ALPHA)
    channels = []
    for index in range(3):
        channel = colours[:, index : index + 1]
        visible = reduction(channel * alpha).div_(small.clamp_min(_LEAST_ALPHA))
        channels.append(visible.where(is_mixed, reduction(channel)))
    return torch.cat(channels, dim=1), small


def _least(values: torch.Tensor, side: int) -> torch.Tensor:
    """The least value in the square of that side around each pixel."""
    return -_most(-values, side)


def _most(values: torch.Tensor, side: int) -> torch.Tensor:
    return F.max_pool2d(values, side, stride=1, padding=side // 2)


def _mean(values: torch.Tensor, side: int) -> torch.Tensor:
    return F.avg_pool2d(values, side, stride=1, padding=side // 2)


def _repeated(values: torch.Tensor, scale: int) -> torch.Tensor:
    return values.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
