/* 3x3 convolutions by Winograd's F(4x4, 3x3), once for each instruction set: included by kernels.c with

       LANES    floats in a vector
       TARGET   the attribute that lets the compiler use these instructions
       NAMED(x) the name of x for this instruction set
       ROWS(X)  X(0) X(1) ... for as many rows as registers allow: two accumulators each, and three more
       ROW_COUNT

   A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016): a tile of 4x4 results takes
   6x6 inputs and 36 multiplications per pair of channels instead of 144. The points are 0, +-sqrt(1/2), +-sqrt(2) and
   infinity: their powers stay closer to one than those of 0, +-1, +-2, which makes the results more exact.

   The same instructions compute every tile, independent of its neighbours and of the thread: its results depend on its
   6x6 inputs alone, to the last bit. */

typedef float NAMED(vector) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t NAMED(mask) __attribute__((vector_size(4 * LANES)));
typedef uint8_t NAMED(bytes) __attribute__((vector_size(LANES), aligned(1)));

#define vector NAMED(vector)
#define VECTORS (BLOCK / LANES)

TARGET static inline vector NAMED(load)(const float *from) {
    return *(const vector *)from;
}

TARGET static inline void NAMED(store)(float *to, vector value) {
    *(vector *)to = value;
}

/* One row of the input's transform: six values to six. */
#define TRANSFORM_INPUT(d0, d1, d2, d3, d4, d5, STORE)         \
    {                                                          \
        vector even = d4 - 2.0f * d2, odd = d3 - 2.0f * d1;    \
        STORE(0, d4 - 2.5f * d2 + d0);                         \
        STORE(1, even + ROOT_HALF * odd);                      \
        STORE(2, even - ROOT_HALF * odd);                      \
        even = d4 - 0.5f * d2;                                 \
        odd = d3 - 0.5f * d1;                                  \
        STORE(3, even + ROOT_TWO * odd);                       \
        STORE(4, even - ROOT_TWO * odd);                       \
        STORE(5, d5 - 2.5f * d3 + d1);                         \
    }

/* One row of the result's transform: six values to four. */
#define TRANSFORM_RESULT(m0, m1, m2, m3, m4, m5, STORE)            \
    {                                                              \
        vector even1 = m1 + m2, odd1 = m1 - m2;                    \
        vector even2 = m3 + m4, odd2 = m3 - m4;                    \
        STORE(0, m0 + even1 + even2);                              \
        STORE(1, ROOT_HALF * odd1 + ROOT_TWO * odd2);              \
        STORE(2, 0.5f * even1 + 2.0f * even2);                     \
        STORE(3, ROOT_EIGHTH * odd1 + ROOT_EIGHT * odd2 + m5);     \
    }

/* Transforms the first `count` blocks of one tile's 6x6 pixels into transformed[36][blocks][tiles][BLOCK]. */
TARGET static void NAMED(transform_input)(
    const float *const pixels[36], int count, int blocks, int64_t tiles, float *transformed
) {
    for (int block = 0; block < count; block++) {
        for (int part = 0; part < VECTORS; part++) {
            const int64_t offset = (int64_t)block * BLOCK + part * LANES;
            vector columns[6][6];
#pragma GCC unroll 6
            for (int x = 0; x < 6; x++) {
                const vector d0 = NAMED(load)(pixels[x] + offset), d1 = NAMED(load)(pixels[6 + x] + offset);
                const vector d2 = NAMED(load)(pixels[12 + x] + offset), d3 = NAMED(load)(pixels[18 + x] + offset);
                const vector d4 = NAMED(load)(pixels[24 + x] + offset), d5 = NAMED(load)(pixels[30 + x] + offset);
#define INTO_COLUMN(y, value) columns[y][x] = value
                TRANSFORM_INPUT(d0, d1, d2, d3, d4, d5, INTO_COLUMN)
#undef INTO_COLUMN
            }
            float *to = transformed + (int64_t)block * tiles * BLOCK + part * LANES;
            const int64_t step = place_floats(blocks, tiles);
#pragma GCC unroll 6
            for (int y = 0; y < 6; y++) {
                const vector *row = columns[y];
#define INTO_PLACE(x, value) NAMED(store)(to + (y * 6 + x) * step, value)
                TRANSFORM_INPUT(row[0], row[1], row[2], row[3], row[4], row[5], INTO_PLACE)
#undef INTO_PLACE
            }
        }
    }
}

/* Multiplies left[blocks][tiles][BLOCK] of ROW_COUNT tiles by right[inputs][2 * LANES] into two vectors of each tile's
   BLOCK, or into one if `second` is NULL. */
TARGET static void NAMED(multiply_two)(
    const float *left, int64_t block_step, int inputs, const float *right, float *first, float *second
) {
#define DECLARE(r) vector first##r = {0}, second##r = {0};
    ROWS(DECLARE)
#undef DECLARE
    for (; inputs > 0; inputs -= BLOCK, left += block_step) {
        const int count = inputs < BLOCK ? inputs : BLOCK;
        for (int k = 0; k < count; k++, right += 2 * LANES) {
            const vector right0 = NAMED(load)(right), right1 = NAMED(load)(right + LANES);
#define ADD(r)                                   \
    {                                            \
        const float value = left[r * BLOCK + k]; \
        first##r += right0 * value;              \
        second##r += right1 * value;             \
    }
            ROWS(ADD)
#undef ADD
        }
    }
#define KEEP(r)                                       \
    NAMED(store)(first + r * BLOCK, first##r);        \
    NAMED(store)(second + r * BLOCK, second##r);
    ROWS(KEEP)
#undef KEEP
}

TARGET static void NAMED(multiply_one)(
    const float *left, int64_t block_step, int inputs, const float *right, float *first
) {
#define DECLARE(r) vector first##r = {0};
    ROWS(DECLARE)
#undef DECLARE
    for (; inputs > 0; inputs -= BLOCK, left += block_step) {
        const int count = inputs < BLOCK ? inputs : BLOCK;
        for (int k = 0; k < count; k++, right += LANES) {
            const vector right0 = NAMED(load)(right);
#define ADD(r) first##r += right0 * left[r * BLOCK + k];
            ROWS(ADD)
#undef ADD
        }
    }
#define KEEP(r) NAMED(store)(first + r * BLOCK, first##r);
    ROWS(KEEP)
#undef KEEP
}

/* Applies what follows a convolution, except the sum with the step's base. */
TARGET static inline vector NAMED(follow)(const struct step *step, vector value, int channel, int64_t pixel) {
    value += NAMED(load)(step->bias + channel);
    if (step->slopes) {
        const NAMED(mask) positive = value > 0;
        const vector sloped = value * NAMED(load)(step->slopes + channel);
        value = (vector)(((NAMED(mask))value & positive) | ((NAMED(mask))sloped & ~positive));
    }
    if (step->residual)
        value = value * step->scale + NAMED(load)(step->residual + pixel * step->residual_stride + channel);
    if (step->outer)
        value = value * step->outer_scale + NAMED(load)(step->outer + pixel * step->outer_stride + channel);
    return value;
}

/* Stores a result in the step's output. */
TARGET static inline void NAMED(keep)(
    const struct step *step, vector value, int channel, int64_t row, int64_t column, int64_t pixel
) {
    if (step->layout == CHANNELS_LAST) {
        NAMED(store)(step->output + pixel * step->output_stride + channel, value);
    } else if (step->layout == SHUFFLED) {
        /* channel = (colour * 4 + row) * 4 + column, of the pixel's 4x4 results */
        value += step->base[channel / 16 * ((int64_t)step->height * step->width) + pixel];
        for (int lane = 0; lane < LANES; lane += 4) {
            const int64_t plane = (channel + lane) / 16, within = (channel + lane) / 4 % 4;
            float *to = step->output + ((plane * step->height + row) * 4 + within) * step->width * 4 + column * 4;
            memcpy(to, (const float *)&value + lane, 4 * sizeof(float));
        }
    } else {
        for (int lane = 0; lane < LANES && channel + lane < step->planes; lane++)
            step->output[(int64_t)(channel + lane) * step->height * step->width + pixel] = value[lane];
    }
}

/* Transforms one tile of products[36][blocks][tiles][BLOCK] back, finishes it as the step says, and stores it. */
TARGET static void NAMED(transform_result)(
    const struct step *step, const float *products, int blocks, int64_t tiles, int top, int left
) {
    const int rows = step->height - top < 4 ? step->height - top : 4;
    const int columns = step->width - left < 4 ? step->width - left : 4;
    const int64_t product_step = place_floats(blocks, tiles);
    for (int block = 0; block < blocks; block++) {
        for (int part = 0; part < VECTORS; part++) {
            const int channel = block * BLOCK + part * LANES;
            const float *from = products + (int64_t)block * tiles * BLOCK + part * LANES;
            vector halves[4][6];
#pragma GCC unroll 6
            for (int x = 0; x < 6; x++) {
                const vector m0 = NAMED(load)(from + x * product_step);
                const vector m1 = NAMED(load)(from + (6 + x) * product_step);
                const vector m2 = NAMED(load)(from + (12 + x) * product_step);
                const vector m3 = NAMED(load)(from + (18 + x) * product_step);
                const vector m4 = NAMED(load)(from + (24 + x) * product_step);
                const vector m5 = NAMED(load)(from + (30 + x) * product_step);
#define INTO_HALF(y, value) halves[y][x] = value
                TRANSFORM_RESULT(m0, m1, m2, m3, m4, m5, INTO_HALF)
#undef INTO_HALF
            }
            for (int y = 0; y < rows; y++) {
                vector results[4];
                const vector *half = halves[y];
#define INTO_RESULT(x, value) results[x] = value
                TRANSFORM_RESULT(half[0], half[1], half[2], half[3], half[4], half[5], INTO_RESULT)
#undef INTO_RESULT
                const int64_t pixel = (int64_t)(top + y) * step->width + left;
                if (columns == 4) {
#pragma GCC unroll 4
                    for (int x = 0; x < 4; x++) {
                        const vector value = NAMED(follow)(step, results[x], channel, pixel + x);
                        NAMED(keep)(step, value, channel, top + y, left + x, pixel + x);
                    }
                } else {
                    for (int x = 0; x < columns; x++) {
                        const vector value = NAMED(follow)(step, results[x], channel, pixel + x);
                        NAMED(keep)(step, value, channel, top + y, left + x, pixel + x);
                    }
                }
            }
        }
    }
}

/* Computes tiles `first` to `last` of a step. `scratch` has scratch_floats(step) floats. */
TARGET static void NAMED(convolve)(const struct step *step, int64_t first, int64_t last, float *scratch) {
    const int in_blocks = blocks_of(step->inputs), out_blocks = blocks_of(step->outputs);
    const int64_t tiles = step->group;
    const int64_t across = (step->width + 3) / 4;
    float *transformed = scratch, *products = scratch + 36 * place_floats(in_blocks, tiles);
    for (int64_t tile = first; tile < last; tile++) {
        const int top = (int)(tile / across * 4), left = (int)(tile % across * 4);
        const int first_blocks = blocks_of(step->inputs_of_first);
        const float *pixels[36];
        find_pixels(step, step->input, step->input_stride, top, left, pixels);
        float gathered[36][BLOCK];
        if (step->is_planar) gather(step, pixels, gathered);
        float *to = transformed + (tile - first) * BLOCK;
        NAMED(transform_input)(pixels, first_blocks, in_blocks, tiles, to);
        if (in_blocks > first_blocks) {
            find_pixels(step, step->more_input, step->more_input_stride, top, left, pixels);
            to += (int64_t)first_blocks * tiles * BLOCK;
            NAMED(transform_input)(pixels, in_blocks - first_blocks, in_blocks, tiles, to);
        }
    }
    const int vectors = out_blocks * VECTORS;
    for (int place = 0; place < 36; place++) {
        const float *left = transformed + place * place_floats(in_blocks, tiles);
        const float *right = step->weights + (int64_t)place * step->inputs * out_blocks * BLOCK;
        float *to = products + place * place_floats(out_blocks, tiles);
        for (int at = 0; at < vectors; at += 2) {
            float *one = to + (int64_t)(at / VECTORS) * tiles * BLOCK + at % VECTORS * LANES;
            float *two = to + (int64_t)((at + 1) / VECTORS) * tiles * BLOCK + (at + 1) % VECTORS * LANES;
            for (int64_t row = 0; row < last - first; row += ROW_COUNT) {
                if (at + 1 < vectors)
                    NAMED(multiply_two)(left + row * BLOCK, tiles * BLOCK, step->inputs, right, one + row * BLOCK,
                                        two + row * BLOCK);
                else
                    NAMED(multiply_one)(left + row * BLOCK, tiles * BLOCK, step->inputs, right, one + row * BLOCK);
            }
            right += (int64_t)step->inputs * LANES * (at + 1 < vectors ? 2 : 1);
        }
    }
    for (int64_t tile = first; tile < last; tile++)
        NAMED(transform_result)(step, products + (tile - first) * BLOCK, out_blocks, tiles,
                                (int)(tile / across * 4), (int)(tile % across * 4));
}

typedef uint32_t NAMED(unsigned) __attribute__((vector_size(4 * LANES)));
typedef uint16_t NAMED(halves) __attribute__((vector_size(2 * LANES), aligned(2)));

/* Rounds to bfloat16, to the nearest, ties to even; subnormal numbers become zeros. */
TARGET static inline NAMED(halves) NAMED(round)(vector value) {
    const NAMED(unsigned) bits = (NAMED(unsigned))value;
    const NAMED(unsigned) rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const NAMED(unsigned) is_nan = (NAMED(unsigned))(value != value);
    const NAMED(unsigned) is_normal = (NAMED(unsigned))((bits & 0x7f800000) != 0);
    const NAMED(unsigned) result = ((rounded & ~is_nan) | (quiet & is_nan)) & (is_normal | 0x8000);
    return __builtin_convertvector(result & 0xffff, NAMED(halves));
}

TARGET static inline vector NAMED(clip)(vector value) {
    const vector one = (vector){0} + 1.0f;
    value = (vector)((NAMED(mask))value & (value > 0));
    const NAMED(mask) is_less = value < one;
    return (vector)(((NAMED(mask))value & is_less) | ((NAMED(mask))one & ~is_less));
}

/* Converts the pairs of rows `first` to `last` of a picture to 4:2:0. */
TARGET static void NAMED(write_yuv420)(const struct yuv420 *picture, int64_t first, int64_t last, float *scratch) {
    const int64_t height = picture->height, width = picture->width, columns = (width + 1) / 2;
    const float red_weight = picture->red_weight, blue_weight = picture->blue_weight;
    const float green_weight = picture->green_weight;
    const float luma_scale = picture->luma_scale, luma_offset = picture->luma_offset;
    const float *scales[2] = {&picture->blue_scale, &picture->red_scale};
    /* One sample more on each side. */
    float *differences[2] = {scratch + 1, scratch + width + 3};
    for (int64_t pair = first; pair < last; pair++) {
        float *restrict blues = differences[0], *restrict reds = differences[1];
        for (int64_t row = 2 * pair; row < 2 * pair + 2; row++) {
            /* An odd last row is paired with itself. */
            const int64_t from = (row < height ? row : height - 1) * width;
            const float *red = picture->rgb + from, *green = red + height * width, *blue = green + height * width;
            uint8_t *restrict luma = picture->planes + from;
            const float half = 0.5f, kept = row % 2 ? 1.0f : 0.0f;
            int64_t x = 0;
            for (; x + LANES <= width; x += LANES) {
                const vector r = NAMED(clip)(NAMED(load)(red + x)), g = NAMED(clip)(NAMED(load)(green + x));
                const vector b = NAMED(clip)(NAMED(load)(blue + x));
                const vector y = r * red_weight + g * green_weight + b * blue_weight;
                /* Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even. */
                const vector code = y * luma_scale + luma_offset + 12582912.0f - 12582912.0f;
                *(NAMED(bytes) *)(luma + x) =
                    __builtin_convertvector(__builtin_convertvector(code, NAMED(mask)), NAMED(bytes));
                NAMED(store)(blues + x, NAMED(load)(blues + x) * kept + (b - y) * half);
                NAMED(store)(reds + x, NAMED(load)(reds + x) * kept + (r - y) * half);
            }
            for (; x < width; x++) {
                float r = red[x] > 0 ? red[x] : 0, g = green[x] > 0 ? green[x] : 0, b = blue[x] > 0 ? blue[x] : 0;
                r = r < 1 ? r : 1, g = g < 1 ? g : 1, b = b < 1 ? b : 1;
                const float y = r * red_weight + g * green_weight + b * blue_weight;
                luma[x] = (uint8_t)(int)rintf(y * luma_scale + luma_offset);
                blues[x] = blues[x] * kept + (b - y) * half;
                reds[x] = reds[x] * kept + (r - y) * half;
            }
        }
        for (int plane = 0; plane < 2; plane++) {
            float *difference = differences[plane];
            uint8_t *restrict codes =
                picture->planes + height * width + (plane * ((height + 1) / 2) + pair) * columns;
            const float scale = *scales[plane], offset = picture->chroma_offset, most = 255;
            difference[-1] = difference[0];
            difference[width] = difference[width - 1];
            /* The mean of two columns for chroma located between them, otherwise (1, 2, 1)/4. */
            const float before = picture->is_centred ? 0.0f : 0.25f;
            const float at = 0.5f, after = picture->is_centred ? 0.5f : 0.25f;
            for (int64_t x = 0; x < columns; x++) {
                const float *sample = difference + 2 * x;
                const float value = sample[-1] * before + sample[0] * at + sample[1] * after;
                float code = rintf(value * scale + offset);
                code = code > 0 ? code : 0;
                codes[x] = (uint8_t)(int)(code < most ? code : most);
            }
        }
    }
}

#define MATRIX_UNIT 0
#define MATRIX_TARGET TARGET
#define MATRICES(x) NAMED(x##_matrices)
#define BEGIN_MATRICES
#define END_MATRICES
#include "direct.h"

#ifdef HAS_AMX
#if LANES == 16
#define MATRIX_UNIT 1
#define MATRIX_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,avx512bf16,amx-tile,amx-bf16")))
#define MATRICES(x) x##_amx
#define BEGIN_MATRICES _tile_loadconfig(AMX_SHAPES);
#define END_MATRICES _tile_release();
#include "direct.h"
#endif
#endif

#undef vector
#undef VECTORS
#undef TRANSFORM_INPUT
#undef TRANSFORM_RESULT
