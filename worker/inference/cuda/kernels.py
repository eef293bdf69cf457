"""Fused 3x3 convolutions for feature maps in `buffers.FeatureMap`'s layout, plain and by Winograd's F(4x4, 3x3).

Loads need no masks: maps have a border of zeros, and slack behind their last pixel for programs that cross it.

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


def _inlined(function: Any) -> Any:
    return triton.jit(function) if AVAILABLE else function


def _compiled(function: Any) -> Any:
    # Specializing on the picture's size would compile another kernel for each, which takes seconds, and would unroll
    # the loop over steps, for which the registers do not suffice.
    return triton.jit(function, do_not_specialize=["height", "width", "steps"]) if AVAILABLE else function


@_inlined
def finished(
    value,
    place,
    inside,
    outputs,
    bias,
    slopes,
    first,
    second,
    scale,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """What `convolve` adds to sums of pixels (`place` in a map, in the picture where `inside`) x `outputs`."""
    value += tl.load(bias + outputs)[None, :]
    if FIRST > 0:
        value += scale * tl.load(first + place * FIRST + outputs[None, :], mask=inside, other=0.0)
    if SECOND > 0:
        value += tl.load(second + place * SECOND + outputs[None, :], mask=inside, other=0.0)
    return tl.where(value > 0, value, value * tl.load(slopes + outputs)[None, :])


@_compiled
def convolve(  # noqa: C901, PLR0913 - a Triton kernel: its variants are compile-time arguments
    source,
    weights,
    bias,
    slopes,
    out,
    first,
    second,
    enlarged,
    height,
    width,
    steps,
    scale,
    SOURCE_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    FIRST_STRIDE: tl.constexpr,
    SECOND_STRIDE: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    DOUBLES: tl.constexpr,
    SHUFFLE: tl.constexpr,
):
    """Computes act(conv(source) + bias [+ scale * first] [+ second]).

    One program computes ROWS x COLUMNS pixels of all N outputs, with one accumulator for each row. Each input row that
    it loads serves up to three output rows: a third of the loads of one dot product per tap.

    height, width: of the output in pixels, before a shuffle. source, first, second, out: the first channel to read or
    write in maps with *_STRIDE channels per pixel; a stride of 0 omits `first` or `second`.
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
        channel = step // 3 * CHUNK
        weight_start = weights + shift * 3 * tap + channel * N
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
            pixels = tl.load(line_start + channel + block)
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
    for row in tl.static_range(ROWS):
        y = top + row
        inside = (x < width)[:, None] & (y < height)
        place = ((image * (height + 2) + y + 1) * (width + 2) + 1 + x)[:, None]
        value = finished(
            accumulators[row],
            place,
            inside,
            outputs,
            bias,
            slopes,
            first,
            second,
            scale,
            FIRST_STRIDE,
            SECOND_STRIDE,
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


@_compiled
def convolve_by_winograd(  # noqa: C901, PLR0913 - as above
    source,
    weights,
    bias,
    slopes,
    out,
    first,
    second,
    transforms,
    height,
    width,
    steps,
    scale,
    SOURCE_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    FIRST_STRIDE: tl.constexpr,
    SECOND_STRIDE: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """As `convolve`, with a quarter of its multiplications: Winograd's F(4x4, 3x3), with the CPU kernels' points.

    weights: [point across][point down][steps * CHUNK][N]. transforms: of each point its row of B^T and its column of
    A^T, 6 and 4 float32.

    One program computes 4 x COLUMNS pixels of all N outputs, one point across at a time, which bounds the
    registers: sums for the six points down, of 16-bit factors in 32 bits, become four rows, which are added to all
    pixels. The loop over points is not unrolled: that took a minute to compile, and spilled ten times the registers.
    """
    TILES: tl.constexpr = COLUMNS // 4  # noqa: N806
    left = tl.program_id(0) * COLUMNS
    top = tl.program_id(1) * 4
    image = tl.program_id(2).to(tl.int64)
    across = tl.arange(0, TILES) * 4
    channels = tl.arange(0, CHUNK)
    outputs = tl.arange(0, N)
    line_stride = (width + 2) * SOURCE_STRIDE
    start = source + (image * (height + 2) + top) * line_stride
    block = (left + across)[:, None] * SOURCE_STRIDE + channels[None, :]
    weight_block = channels[:, None] * N + outputs[None, :]

    results = ()
    for _ in tl.static_range(16):
        results = results + (tl.zeros((TILES, N), tl.float32),)
    for point in tl.range(0, 6):
        weights_across, powers, sums = (), (), ()
        for index in tl.static_range(6):
            weights_across = weights_across + (tl.load(transforms + point * 10 + index),)
        for index in tl.static_range(4):
            powers = powers + (tl.load(transforms + point * 10 + 6 + index),)
        for _ in tl.static_range(6):
            sums = sums + (tl.zeros((TILES, N), tl.float32),)
        for step in tl.range(0, steps):
            lines = ()
            for line in tl.static_range(6):
                pixels = start + line * line_stride + step * CHUNK + block
                value = tl.zeros((TILES, CHUNK), tl.float32)
                for column in tl.static_range(6):
                    value += weights_across[column] * tl.load(pixels + column * SOURCE_STRIDE)
                lines = lines + (value,)
            d0, d1, d2, d3, d4, d5 = lines
            even_a, odd_a = d4 - 2.0 * d2, 0.7071067811865476 * (d3 - 2.0 * d1)
            even_b, odd_b = d4 - 0.5 * d2, 1.4142135623730951 * (d3 - 0.5 * d1)
            factors = (d0 - 2.5 * d2 + d4, even_a + odd_a, even_a - odd_a)
            factors = factors + (even_b + odd_b, even_b - odd_b, d1 - 2.5 * d3 + d5)
            updated = ()
            for row in tl.static_range(6):
                place = ((point * 6 + row) * steps + step) * CHUNK * N
                weight = tl.load(weights + place + weight_block)
                updated = updated + (tl.dot(factors[row].to(tl.float16), weight, sums[row]),)
            sums = updated
        m0, m1, m2, m3, m4, m5 = sums
        even_a, odd_a = m1 + m2, 0.7071067811865476 * (m1 - m2)
        even_b, odd_b = m3 + m4, 1.4142135623730951 * (m3 - m4)
        rows = (
            m0 + even_a + even_b,
            odd_a + odd_b,
            0.5 * even_a + 2.0 * even_b,
            0.5 * odd_a + 2.0 * odd_b + m5,
        )
        added = ()
        for index in tl.static_range(16):
            added = added + (results[index] + powers[index % 4] * rows[index // 4],)
        results = added

    for index in tl.static_range(16):
        x = left + across + index % 4
        y = top + index // 4
        inside = (x < width)[:, None] & (y < height)
        place = ((image * (height + 2) + y + 1) * (width + 2) + 1 + x)[:, None]
        value = finished(
            results[index],
            place,
            inside,
            outputs,
            bias,
            slopes,
            first,
            second,
            scale,
            FIRST_STRIDE,
            SECOND_STRIDE,
        )
        tl.store(out + place * OUT_STRIDE + outputs[None, :], value.to(out.dtype.element_ty), mask=inside)
