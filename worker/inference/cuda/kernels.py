"""A fused 3x3 convolution for feature maps in `buffers.FeatureMap`'s layout.

One program computes ROWS x COLUMNS pixels of all N outputs, with one accumulator for each row. Each input row that it
loads serves up to three output rows, which keeps the tensor cores busy: a third of the loads of one dot product per
tap. Loads need no masks: maps have a border of zeros, and slack behind their last pixel for programs that cross it.

The module imports without Triton; `AVAILABLE` tells whether kernels can be launched.
"""
# Triton compiles the kernel's source: it is no ordinary Python.
# mypy: ignore-errors
# ruff: noqa: N803, RUF005

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without CUDA does not bring it
    triton, tl = None, None

AVAILABLE: bool = triton is not None


def _compiled(function: Any) -> Any:
    # Specializing on the picture's size would compile another kernel for each, which takes seconds, and would unroll
    # the loop over steps, for which the registers do not suffice.
    return triton.jit(function, do_not_specialize=["height", "width", "steps"]) if AVAILABLE else function


@_compiled
def convolve(  # noqa: C901, PLR0913 - a Triton kernel: its variants are compile-time arguments
    source,
    weights,
    bias,
    slopes,
    out,
    before,
    residual,
    second,
    enlarged,
    height,
    width,
    steps,
    scale,
    second_scale,
    SOURCE_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    BEFORE_STRIDE: tl.constexpr,
    RESIDUAL_STRIDE: tl.constexpr,
    SECOND_STRIDE: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    DOUBLES: tl.constexpr,
    SHUFFLE: tl.constexpr,
):
    """Computes act(conv(source) + bias + before) [* scale + residual [* second_scale + second]].

    height, width: of the output in pixels, before a shuffle. source, before, residual, second, out: the first channel
    to read or write in maps with *_STRIDE channels per pixel; a stride of 0 omits before, residual or second.
    weights: [tap across][tap down][steps * CHUNK][N]. bias, slopes (of act, for negative values): N float32 each.

    DOUBLES: the source has half the height and width and is read as if enlarged by nearest neighbour.
    SHUFFLE: 0 writes a map of N channels. Otherwise `out` is images x 3 x SHUFFLE*height x SHUFFLE*width float32 and
    receives the first 3 * SHUFFLE**2 outputs by a pixel shuffle; with 4 the sum includes `enlarged` (images x 3 x
    height x width float32), enlarged by nearest neighbour.
    """
    left = tl.program_id(0) * COLUMNS
    top = tl.program_id(1) * ROWS
    # Offsets within a map may need more than 32 bits; those within a program's pixels do not.
    image = tl.program_id(2).to(tl.int64)
    across = tl.arange(0, COLUMNS)
    channels = tl.arange(0, CHUNK)
    outputs = tl.arange(0, N)
    if DOUBLES:
        line_stride = (width // 2 + 2) * SOURCE_STRIDE
        start = source + image * (height // 2 + 2) * line_stride
    else:
        line_stride = (width + 2) * SOURCE_STRIDE
        start = source + image * (height + 2) * line_stride
    weight_block = channels[:, None] * N + outputs[None, :]
    tap = steps * CHUNK * N

    accumulators = ()
    for _ in tl.static_range(ROWS):
        accumulators = accumulators + (tl.zeros((COLUMNS, N), tl.float32),)
    for step in tl.range(0, steps * 3, num_stages=STAGES):
        shift = step % 3
        first = step // 3 * CHUNK
        weight_start = weights + shift * 3 * tap + first * N
        upper = tl.load(weight_start + weight_block)
        middle = tl.load(weight_start + tap + weight_block)
        lower = tl.load(weight_start + 2 * tap + weight_block)
        if DOUBLES:
            block = ((left + across + shift + 1) // 2)[:, None] * SOURCE_STRIDE + channels[None, :]
        else:
            block = (left + across + shift)[:, None] * SOURCE_STRIDE + channels[None, :]
        for line in tl.static_range(ROWS + 2):
            # Line 0 of a map is the border above the picture.
            if DOUBLES:
                line_start = start + ((top + line + 1) // 2).to(tl.int64) * line_stride
            else:
                line_start = start + (top + line).to(tl.int64) * line_stride
            pixels = tl.load(line_start + first + block)
            updated = ()
            for row in tl.static_range(ROWS):
                if line - row == 0:
                    updated = updated + (tl.dot(pixels, upper, accumulators[row]),)
                elif line - row == 1:
                    updated = updated + (tl.dot(pixels, middle, accumulators[row]),)
                elif line - row == 2:
                    updated = updated + (tl.dot(pixels, lower, accumulators[row]),)
                else:
                    updated = updated + (accumulators[row],)
            accumulators = updated

    x = left + across
    added = tl.load(bias + outputs)[None, :]
    slope = tl.load(slopes + outputs)[None, :]
    for row in tl.static_range(ROWS):
        y = top + row
        inside = (x < width)[:, None] & (y < height)
        place = ((image * (height + 2) + y + 1) * (width + 2) + 1 + x)[:, None]
        value = accumulators[row] + added
        if BEFORE_STRIDE > 0:
            value += tl.load(before + place * BEFORE_STRIDE + outputs[None, :], mask=inside, other=0.0)
        value = tl.where(value > 0, value, value * slope)
        if RESIDUAL_STRIDE > 0:
            value = value * scale + tl.load(
                residual + place * RESIDUAL_STRIDE + outputs[None, :], mask=inside, other=0.0
            )
        if SECOND_STRIDE > 0:
            value = value * second_scale + tl.load(
                second + place * SECOND_STRIDE + outputs[None, :], mask=inside, other=0.0
            )
        if SHUFFLE == 0:
            tl.store(out + place * OUT_STRIDE + outputs[None, :], value.to(out.dtype.element_ty), mask=inside)
        else:
            colour = outputs // (SHUFFLE * SHUFFLE)
            keep = inside & (colour < 3)[None, :]
            upright = ((image * 3 + colour) * height + y)[None, :]
            if SHUFFLE == 4:
                value += tl.load(enlarged + upright * width + x[:, None], mask=keep, other=0.0)
            line = upright * SHUFFLE + (outputs // SHUFFLE % SHUFFLE)[None, :]
            column = x[:, None] * SHUFFLE + (outputs % SHUFFLE)[None, :]
            tl.store(out + line * (width * SHUFFLE) + column, value, mask=keep)
