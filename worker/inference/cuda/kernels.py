"""Winograd's F(4x4, 3x3) with 16-bit factors and 32-bit sums, for maps in `buffers.FeatureMap`'s layout.

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
    """Computes act(conv(source) + bias [+ scale * first] [+ second]), with the CPU kernels' points.

    height, width: of the picture in pixels. source, first, second, out: the first channel to read or write in maps with
    *_STRIDE channels per pixel; a stride of 0 omits `first` or `second`. weights: [point across][point down]
    [steps * CHUNK][N]. bias, slopes (of act, for negative values): N float32 each. transforms: of each point its row of
    B^T and its column of A^T, 6 and 4 float32.

    One program computes 4 x COLUMNS pixels of all N outputs, one point across at a time, which bounds the
    registers: sums for the six points down become four rows, which are added to all pixels. The loop over points is not
    unrolled: that took a minute to compile, and spilled ten times the registers.
    """
    TILES: tl.constexpr = COLUMNS // 4  # noqa: N806
    left = tl.program_id(0) * COLUMNS
    top = tl.program_id(1) * 4
    # Offsets within a map may need more than 32 bits; those within a program's pixels do not.
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
        value = results[index] + tl.load(bias + outputs)[None, :]
        if FIRST_STRIDE > 0:
            value += scale * tl.load(first + place * FIRST_STRIDE + outputs[None, :], mask=inside, other=0.0)
        if SECOND_STRIDE > 0:
            value += tl.load(second + place * SECOND_STRIDE + outputs[None, :], mask=inside, other=0.0)
        value = tl.where(value > 0, value, value * tl.load(slopes + outputs)[None, :])
        tl.store(out + place * OUT_STRIDE + outputs[None, :], value.to(out.dtype.element_ty), mask=inside)
