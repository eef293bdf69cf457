"""Raw planes to RGB and back, on the device of the tensors, in float32.

Sources: R'G'B' <-> Y'CbCr from Kr and Kb, ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance),
SMPTE 240M, FCC Title 47 73.682 (as ITU-T H.273, MatrixCoefficients 4); limited and full range at any bit
depth, ITU-T H.273 (07/2021) equations 20 to 28; chroma sample locations, H.273 figure 1.

Chroma is interpolated linearly at its true phase. Subsampling takes the average of the two values beside a chroma
sample that is located between them, and the filter (1, 2, 1)/4 for one that is co-sited; both preserve a linear ramp.
Edges are replicated.
"""

import torch
import torch.nn.functional as F

from worker.inference.cpu.kernels import Kernels, Yuv420Conversion, find_kernels
from worker.inference.frames import CHROMA_OFFSETS, FrameFormat

# Kr and Kb.
_LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020nc": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
    # Y'D'zD'x is of this form but for factors within 1.4 % of 1.
    "smpte2085": (0.0, 0.0),
}
# Not of that form: Cg in the place of Cb and Co in that of Cr (H.273, MatrixCoefficients 8).
YCGCO = "ycgco"

_ACROSS, _DOWN = 3, 2


def planes_to_rgb(frames: torch.Tensor, source: FrameFormat) -> torch.Tensor:
    """N x frame_bytes uint8 -> N x 3 x H x W float32 in [0, 1], on the device of `frames`.

    Codes beyond the nominal range (head- and footroom) and colours outside RGB are clipped to [0, 1].
    """
    if (kernels := _kernels_for(frames, source)) is not None:
        return _read_compiled(_checked(frames, source), source, kernels)
    planes = _read_planes(frames, source)
    if source.layout == "gray":
        return _from_codes(planes[0], source).clamp_(0, 1).expand(-1, 3, -1, -1)
    if source.layout == "gbr":
        green, blue, red = (_from_codes(plane, source) for plane in planes[:3])
        return torch.cat((red, green, blue), dim=1).clamp_(0, 1)
    luma = _from_codes(planes[0], source)
    blue_difference, red_difference = (
        _enlarge_chroma(_from_codes(plane, source, chroma=True), source) for plane in planes[1:3]
    )
    if source.matrix == YCGCO:
        magenta = luma - blue_difference
        rgb = (magenta + red_difference, luma + blue_difference, magenta - red_difference)
        return torch.cat(rgb, dim=1).clamp_(0, 1)
    kr, kb = _LUMA_WEIGHTS[source.matrix]
    kg = 1 - kr - kb
    red = luma + red_difference * (2 * (1 - kr))
    blue = luma + blue_difference * (2 * (1 - kb))
    green = (luma - red * kr - blue * kb) / kg
    return torch.cat((red, green, blue), dim=1).clamp_(0, 1)


def planes_to_alpha(frames: torch.Tensor, source: FrameFormat) -> torch.Tensor:
    """N x frame_bytes uint8 -> N x 1 x H x W float32 in [0, 1], 1 opaque, on the device of `frames`.

    Raises `ValueError` for a format without alpha.
    """
    if not source.has_alpha:
        raise ValueError(f"{source.pix_fmt} has no alpha.")
    return _read_planes(frames, source)[3].div_(source.max_code)


def rgb_to_planes(rgb: torch.Tensor, target: FrameFormat, alpha: torch.Tensor | None = None) -> torch.Tensor:
    """N x 3 x H x W floats (clipped to [0, 1]), and N x 1 x H x W of alpha for a target that has it -> N x frame_bytes
    uint8, on the device of `rgb`.

    Codes are rounded to nearest and clipped to the range of the bit depth. Raises `ValueError` for another size.
    """
    if rgb.shape[1:] != (3, target.height, target.width):
        raise ValueError(f"RGB of shape {tuple(rgb.shape)} is not {target.width}x{target.height}.")

    # One channel and one plane at a time: at 16384x9216 each is 600 MB.
    def channel(index: int) -> torch.Tensor:
        return rgb[:, index : index + 1].to(torch.float32).clamp(0, 1)

    red, green, blue = 0, 1, 2
    result = torch.empty((rgb.shape[0], target.frame_bytes), dtype=torch.uint8, device=rgb.device)
    _write_alpha(result, alpha, target)
    if (kernels := _kernels_for(rgb, target)) is not None:
        _write_compiled(rgb, result, target, kernels)
        return result
    if target.layout == "gbr":
        for index, colour in enumerate((green, blue, red)):
            _write_plane(result, _to_codes(channel(colour), target), target, index)
        return result
    is_ycgco = target.matrix == YCGCO
    kr, kb = (0.25, 0.25) if is_ycgco else _LUMA_WEIGHTS[target.matrix]
    luma = channel(red).mul_(kr)
    luma += channel(green).mul_(1 - kr - kb)
    luma += channel(blue).mul_(kb)
    _write_plane(result, _to_codes(luma, target), target, 0)
    if target.layout != "gray":
        for index, colour, weight in ((1, blue, kb), (2, red, kr)):
            if is_ycgco:
                whole = channel(green).sub_(luma) if index == 1 else channel(red).sub_(channel(blue)).div_(2)
            else:
                whole = channel(colour).sub_(luma).div_(2 * (1 - weight))
            difference = _reduce_chroma(whole, target)
            _write_plane(result, _to_codes(difference, target, chroma=True), target, index)
    return result


def _write_alpha(result: torch.Tensor, alpha: torch.Tensor | None, target: FrameFormat) -> None:
    if (alpha is None) == target.has_alpha:
        raise ValueError(f"{target.pix_fmt} {'needs' if target.has_alpha else 'has no'} alpha.")
    if alpha is not None:
        codes = (alpha.to(torch.float32) * target.max_code).round_().clamp_(0, target.max_code)
        _write_plane(result, codes, target, 3)


def _kernels_for(values: torch.Tensor, frame_format: FrameFormat) -> Kernels | None:
    """Returns the compiled kernels for the commonest format on the CPU: one pass over memory instead of two dozen, and
    without torch's threads, which spin while idle and take the processor from the network's."""
    is_common = frame_format.layout == "yuv420" and frame_format.bit_depth == 8
    is_common = is_common and frame_format.chroma_location in ("left", "center")
    is_common = is_common and frame_format.matrix != YCGCO
    return find_kernels() if values.is_cpu and is_common else None


def _read_compiled(frames: torch.Tensor, source: FrameFormat, kernels: Kernels) -> torch.Tensor:
    rgb = torch.empty((frames.shape[0], 3, source.height, source.width))
    for planes, image in zip(frames.contiguous(), rgb, strict=True):
        kernels.read_yuv420(_conversion(image, planes, source), threads=torch.get_num_threads())
    return rgb


def _write_compiled(rgb: torch.Tensor, result: torch.Tensor, target: FrameFormat, kernels: Kernels) -> None:
    for image, planes in zip(rgb.to(torch.float32).contiguous(), result, strict=True):
        kernels.write_yuv420(_conversion(image, planes, target), threads=torch.get_num_threads())


def _conversion(image: torch.Tensor, planes: torch.Tensor, frame_format: FrameFormat) -> Yuv420Conversion:
    kr, kb = _LUMA_WEIGHTS[frame_format.matrix]
    luma_scale, luma_offset = _scale_and_offset(frame_format, chroma=False)
    chroma_scale, chroma_offset = _scale_and_offset(frame_format, chroma=True)
    return Yuv420Conversion(
        rgb=image.data_ptr(),
        planes=planes.data_ptr(),
        height=frame_format.height,
        width=frame_format.width,
        red_weight=kr,
        green_weight=1 - kr - kb,
        blue_weight=kb,
        luma_scale=luma_scale,
        luma_offset=luma_offset,
        blue_scale=chroma_scale / (2 * (1 - kb)),
        red_scale=chroma_scale / (2 * (1 - kr)),
        chroma_offset=chroma_offset,
        is_centred=CHROMA_OFFSETS[frame_format.chroma_location][0] == 0.5,
    )


def _scale_and_offset(frame_format: FrameFormat, *, chroma: bool) -> tuple[float, float]:
    """Returns scale and offset: codes are value * scale + offset."""
    if frame_format.full_range:
        return float(frame_format.max_code), float(2 ** (frame_format.bit_depth - 1) if chroma else 0)
    step = 2 ** (frame_format.bit_depth - 8)
    return (224.0 * step, 128.0 * step) if chroma else (219.0 * step, 16.0 * step)


def _from_codes(codes: torch.Tensor, source: FrameFormat, *, chroma: bool = False) -> torch.Tensor:
    scale, offset = _scale_and_offset(source, chroma=chroma)
    return (codes - offset) / scale


def _to_codes(values: torch.Tensor, target: FrameFormat, *, chroma: bool = False) -> torch.Tensor:
    scale, offset = _scale_and_offset(target, chroma=chroma)
    return (values * scale).add_(offset).round_().clamp_(0, target.max_code)


def _checked(frames: torch.Tensor, source: FrameFormat) -> torch.Tensor:
    if frames.dtype != torch.uint8 or frames.dim() != 2 or frames.shape[1] != source.frame_bytes:
        raise ValueError(f"Frames of {source.pix_fmt} are N x {source.frame_bytes} uint8.")
    return frames


def _read_planes(frames: torch.Tensor, source: FrameFormat) -> list[torch.Tensor]:
    """Returns N x 1 x rows x columns float32 codes for each plane."""
    frames = _checked(frames, source)
    if source.bit_depth > 8:
        # int16 and a mask: torch's uint16 lacks most operations.
        samples = frames.contiguous().view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)
    else:
        samples = frames
    counts = [rows * columns for rows, columns in source.plane_shapes]
    return [
        plane.to(torch.float32).reshape(-1, 1, rows, columns)
        for plane, (rows, columns) in zip(
            torch.split(samples, counts, dim=1), source.plane_shapes, strict=True
        )
    ]


def _write_plane(result: torch.Tensor, codes: torch.Tensor, target: FrameFormat, index: int) -> None:
    begin = sum(target.plane_bytes[:index])
    flat = codes.reshape(codes.shape[0], -1)
    if target.bit_depth > 8:
        # Through int32, whose low 16 bits int16 keeps: 65535 does not fit an int16 directly.
        flat = flat.to(torch.int32).to(torch.int16).view(torch.uint8)
    result[:, begin : begin + target.plane_bytes[index]] = flat


def _subsampled_axes(frame_format: FrameFormat) -> list[tuple[int, float]]:
    across, down = CHROMA_OFFSETS[frame_format.chroma_location]
    if frame_format.layout == "yuv420":
        return [(_ACROSS, across), (_DOWN, down)]
    return [(_ACROSS, across)] if frame_format.layout == "yuv422" else []


def _enlarge_chroma(plane: torch.Tensor, source: FrameFormat) -> torch.Tensor:
    for axis, offset in _subsampled_axes(source):
        plane = _double(plane, axis=axis, offset=offset)
        size = source.width if axis == _ACROSS else source.height
        plane = plane.narrow(axis, 0, size)
    return plane


def _reduce_chroma(plane: torch.Tensor, target: FrameFormat) -> torch.Tensor:
    for axis, offset in _subsampled_axes(target):
        plane = _halve(plane, axis=axis, offset=offset)
    return plane


def _pad(plane: torch.Tensor, *, axis: int, before: int, after: int) -> torch.Tensor:
    amounts = (before, after, 0, 0) if axis == _ACROSS else (0, 0, before, after)
    return F.pad(plane, amounts, mode="replicate")


def _double(plane: torch.Tensor, *, axis: int, offset: float) -> torch.Tensor:
    """Interpolates linearly: sample i of `plane` is at 2i + `offset`, those of the result are at 0, 1, 2, ..."""
    count = plane.shape[axis]
    padded = _pad(plane, axis=axis, before=1, after=1)
    previous, this, following = (padded.narrow(axis, start, count) for start in range(3))
    # Position 2k is offset/2 sample spacings before sample k, position 2k + 1 is (1 - offset)/2 after it.
    back, ahead = offset / 2, (1 - offset) / 2
    even = this * (1 - back) + previous * back if back else this
    odd = this * (1 - ahead) + following * ahead if ahead else this
    return torch.stack((even, odd), dim=axis + 1).flatten(axis, axis + 1)


def _halve(plane: torch.Tensor, *, axis: int, offset: float) -> torch.Tensor:
    """Returns the samples at 2i + `offset` of a plane with samples at 0, 1, 2, ...; an odd count rounds up."""
    count = (plane.shape[axis] + 1) // 2
    padded = _pad(plane, axis=axis, before=1, after=2)

    def every_second(first: int) -> torch.Tensor:
        # `first` is a position of `plane`; the padding shifts it by one.
        index = [slice(None)] * 4
        index[axis] = slice(first + 1, first + 2 * count, 2)
        return padded[tuple(index)]

    if offset == 0.5:
        return (every_second(0) + every_second(1)) / 2
    centre = int(offset)
    return (every_second(centre - 1) + every_second(centre) * 2 + every_second(centre + 1)) / 4
