/* 3x3 convolutions of bfloat16 values with sums in 32 bits, computed directly on matrices: included by kernels.c after
   kernels.h, for the same instruction set, with

       MATRIX_UNIT      1 to use the processor's matrix unit, 0 for plain C
       MATRIX_TARGET    the attribute that lets the compiler use it
       MATRICES(x)      the name of x for this body

   A matrix of pixels is 16 adjacent pixels of a row, read where they are. Every result depends on its 3x3 inputs alone,
   to the last bit, and is the same in both bodies. */

#include "matrices.h"

/* Computes the sums of `groups` (1 or 2) times 16 pixels from `column` on and `panels` (1 or 2) times 16 outputs, into
   sums[32][32]. */
MATRIX_TARGET static __attribute__((noinline)) void MATRICES(sum)(
    const struct chunk *chunks, int count, int64_t column, int groups, int panels, const uint16_t *weights, float *sums
) {
    DECLARE_MATRICES
    /* The intrinsics do not tell the compiler that they read memory. */
    __asm__ volatile("" ::: "memory");
    MATRIX_ZERO(SUMS_00);
    MATRIX_ZERO(SUMS_01);
    MATRIX_ZERO(SUMS_10);
    MATRIX_ZERO(SUMS_11);
    for (int index = 0; index < count; index++) {
        const int64_t stride = chunks[index].stride;
        const uint16_t *pixels = chunks[index].at + column * stride;
        MATRIX_LOAD(LEFT_0, pixels, 2 * stride);
        MATRIX_LOAD(RIGHT_0, weights, 64);
        weights += MATRIX_VALUES;
        MATRIX_MULTIPLY(SUMS_00, LEFT_0, RIGHT_0);
        if (panels > 1) {
            MATRIX_LOAD(RIGHT_1, weights, 64);
            weights += MATRIX_VALUES;
            MATRIX_MULTIPLY(SUMS_01, LEFT_0, RIGHT_1);
        }
        if (groups > 1) {
            MATRIX_LOAD(LEFT_1, pixels + 16 * stride, 2 * stride);
            MATRIX_MULTIPLY(SUMS_10, LEFT_1, RIGHT_0);
            if (panels > 1) MATRIX_MULTIPLY(SUMS_11, LEFT_1, RIGHT_1);
        }
    }
    MATRIX_STORE(SUMS_00, sums, 128);
    MATRIX_STORE(SUMS_01, sums + 16, 128);
    MATRIX_STORE(SUMS_10, sums + 16 * 32, 128);
    MATRIX_STORE(SUMS_11, sums + 16 * 32 + 16, 128);
    __asm__ volatile("" ::: "memory");
}

/* Stores a value in bfloat16: once, or in the 2x2 pixels of a picture of twice the size, whose strides are given. */
MATRIX_TARGET static inline void MATRICES(put)(uint16_t *to, vector value, int is_twice, int64_t next, int64_t below) {
    const NAMED(halves) rounded = MATRIX_ROUND(value);
    *(NAMED(halves) *)to = rounded;
    if (!is_twice) return;
    *(NAMED(halves) *)(to + next) = rounded;
    *(NAMED(halves) *)(to + below) = rounded;
    *(NAMED(halves) *)(to + below + next) = rounded;
}

/* Finishes LANES results of each of `pixels` adjacent pixels of a direct step, from `channel` on. `sums` has 32 of each. */
MATRIX_TARGET static inline void MATRICES(finish)(
    const struct step *whole, const float *sums, int64_t pixels, int channel, int64_t row, int64_t column
) {
    /* No store reaches a copy: the compiler decides once for all pixels what is the same for all. */
    const struct step own = *whole, *step = &own;
    const int64_t first = row * step->width + column;
    const int is_twice = step->is_enlarging, times = is_twice ? 2 : 1;
    const int64_t next = step->rounded_stride, below = next * pitch_of((int64_t)step->width * times);
    uint16_t *to = step->rounded ? rounded_at(step, row * times, column * times) + channel : NULL;
    if (!step->output) {
        /* Most steps, and those with the fewest multiplications for each result. */
        for (int64_t at = 0; at < pixels; at++, to += next * times)
            MATRICES(put)(to, NAMED(follow)(step, NAMED(load)(sums + at * 32), channel, first + at), is_twice, next, below);
        return;
    }
    for (int64_t at = 0; at < pixels; at++) {
        const vector value = NAMED(follow)(step, NAMED(load)(sums + at * 32), channel, first + at);
        NAMED(keep)(step, value, channel, row, column + at, first + at);
        if (to) MATRICES(put)(to + at * next * times, value, is_twice, next, below);
    }
}

/* Computes rows `first` to `last` of a step. `scratch` has scratch_floats(step) floats. */
MATRIX_TARGET static void MATRICES(convolve)(const struct step *step, int64_t first, int64_t last, float *scratch) {
    struct chunk chunks[MOST_INPUTS / CHUNK * 9];
    const int count = step->inputs / CHUNK * 9;
    const int panels = blocks_of(step->outputs);
    const unsigned rounding = flush_subnormals();
    BEGIN_MATRICES
    for (int64_t row = first; row < last; row++) {
        find_chunks(step, row, chunks);
        const uint16_t *weights = (const uint16_t *)step->weights;
        for (int panel = 0; panel < panels; panel += 2) {
            const int wide = panels - panel < 2 ? 1 : 2;
            for (int64_t column = 0; column < step->width; column += 32) {
                const int64_t left = step->width - column;
                MATRICES(sum)(chunks, count, column, left > 16 ? 2 : 1, wide, weights, scratch);
                for (int at = 0; at < wide * BLOCK; at += LANES)
                    MATRICES(finish)(step, scratch + at, left < 32 ? left : 32, panel * BLOCK + at, row, column);
            }
            weights += (int64_t)count * wide * MATRIX_VALUES;
        }
        clear_border(step, row);
    }
    END_MATRICES
    restore_rounding(rounding);
}

#undef SUMS_00
#undef SUMS_01
#undef SUMS_10
#undef SUMS_11
#undef LEFT_0
#undef LEFT_1
#undef RIGHT_0
#undef RIGHT_1
#undef DECLARE_MATRICES
#undef MATRIX_ZERO
#undef MATRIX_LOAD
#undef MATRIX_MULTIPLY
#undef MATRIX_STORE
#undef MATRIX_ROUND
#undef MATRIX_UNIT
#undef MATRIX_TARGET
#undef MATRICES
#undef BEGIN_MATRICES
#undef END_MATRICES
