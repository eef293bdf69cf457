/* A network's 3x3 convolutions in 32-bit floats on a CPU: a list of steps that several threads compute together. Also the
   conversions from a decoder's planes to the network's input and from its output to an encoder's planes.

   Pictures are channels last: a pixel is `stride` floats, of which a step reads or writes the first ones from its pointer
   on. Only the network's input and output are planar. This is a plain shared library, loaded with ctypes, without Python. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Adjacent channels of transformed tiles. */
enum { BLOCK = 16, MOST_INPUTS = 1024 };
enum { CHANNELS_LAST = 0, PLANES = 1, SHUFFLED = 2 };

#define ROOT_HALF 0.70710678118654752440f
#define ROOT_TWO 1.41421356237309504880f
#define ROOT_EIGHTH 0.35355339059327376220f
#define ROOT_EIGHT 2.82842712474619009760f

/* One convolution and what follows it, for every channel of every pixel:

       value = convolution + bias
       value = value > 0 ? value : value * slope           with slopes
       value = value * scale + residual                    with a residual
       value = value * outer_scale + outer                 with an outer one

   Mirrored in Python (kernels.py): fields in this order. */
struct step {
    const float *input;
    const float *more_input; /* the channels after the first `inputs_of_first`, or NULL */
    const float *weights;
    const float *bias;
    const float *slopes;
    const float *residual;
    const float *outer;
    const float *base; /* SHUFFLED: 3 planes, whose value is added to all 16 results of a pixel */
    float *output;
    int64_t input_stride, more_input_stride, residual_stride, outer_stride, output_stride;
    float scale, outer_scale;
    int32_t inputs, inputs_of_first, outputs;
    int32_t height, width; /* of the results */
    int32_t is_planar;     /* the input is at most BLOCK planes of the height and width; `input_stride` is 1 */
    int32_t is_doubled;    /* the input has half the height and width and is enlarged by nearest neighbour */
    int32_t layout;        /* CHANNELS_LAST; PLANES: the first `planes` channels, planar; SHUFFLED: 48 channels as 3 planes of
                              4 times the height and width */
    int32_t planes;
    int32_t group; /* tiles, or rows of a direct step, that a thread computes at a time */
    int32_t is_direct; /* a convolution of bfloat16 values, not by Winograd: `input` and `more_input` are pictures of such
                          values with a border, see `pitch_of`, their strides count them; inputs come in whole CHUNKs */
    int32_t is_enlarging;   /* direct: `rounded` has twice the height and width, filled by nearest neighbour */
    uint16_t *rounded;      /* direct: the result in bfloat16, for the next step, or NULL; then there may be no `output` */
    int64_t rounded_stride; /* bfloat16 values from one pixel to the next */
};

/* A picture as RGB in three planes, and as 4:2:0 in 8 bits, with chroma midway between two rows. Mirrored in
   Python (kernels.py). A code is value * scale + offset; `blue_scale` and `red_scale` are those of B - Y and R - Y. */
struct yuv420 {
    float *rgb;
    uint8_t *planes;
    int64_t height, width;
    float red_weight, green_weight, blue_weight;
    float luma_scale, luma_offset, blue_scale, red_scale, chroma_offset;
    int32_t is_centred; /* chroma is located between two columns, otherwise on the first of them */
};

static const float ZEROS[MOST_INPUTS];

static int blocks_of(int channels) {
    return (channels + BLOCK - 1) / BLOCK;
}

/* Finds the 6x6 pixels that the 4x4 results at (top, left) depend on; outside the picture they are zeros. */
static void find_pixels(
    const struct step *step, const float *input, int64_t stride, int top, int left, const float *pixels[36]
) {
    const int64_t row_stride = stride * (step->is_doubled ? step->width / 2 : step->width);
    for (int y = 0; y < 6; y++) {
        const int row = top - 1 + y;
        for (int x = 0; x < 6; x++) {
            const int column = left - 1 + x;
            if (row < 0 || row >= step->height || column < 0 || column >= step->width)
                pixels[y * 6 + x] = ZEROS;
            else if (step->is_doubled)
                pixels[y * 6 + x] = input + row / 2 * row_stride + column / 2 * stride;
            else
                pixels[y * 6 + x] = input + row * row_stride + column * stride;
        }
    }
}

/* Gathers the planes' values of these pixels next to each other and lets the pointers point to them. */
static void gather(const struct step *step, const float *pixels[36], float gathered[36][BLOCK]) {
    const int64_t plane = (int64_t)step->height * step->width;
    memset(gathered, 0, sizeof(float[36][BLOCK]));
    for (int index = 0; index < 36; index++) {
        if (pixels[index] != ZEROS)
            for (int channel = 0; channel < step->inputs; channel++)
                gathered[index][channel] = pixels[index][channel * plane];
        pixels[index] = gathered[index];
    }
}

/* The units of work of a step: tiles, or rows. */
static int64_t tiles_of(const struct step *step) {
    if (step->is_direct) return step->height;
    return (int64_t)((step->height + 3) / 4) * ((step->width + 3) / 4);
}

/* The distance of a tile's 36 values in floats: an odd number of cache lines, because otherwise the 36 would map to few
   cache sets and evict each other. */
static int64_t place_floats(int blocks, int64_t tiles) {
    return (blocks * tiles | 1) * BLOCK;
}

static size_t scratch_floats(const struct step *step) {
    if (step->is_direct) return 32 * 32;
    return (size_t)36 * (place_floats(blocks_of(step->inputs), step->group)
                         + place_floats(blocks_of(step->outputs), step->group));
}

/* Direct steps read values in chunks of so many channels; a matrix has so many bfloat16 values. */
enum { CHUNK = 32, MATRIX_VALUES = 512 };

/* The pixels from one row to the next of a picture in bfloat16: whole matrices, and a border of a pixel on each side. There
   is a row above and one below, too. Pointers are those of the first pixel inside; the border is zero, and what is
   between the last pixel's right neighbour and the end of the row may be anything. */
static int64_t pitch_of(int64_t width) {
    return (width + 15) / 16 * 16 + 2;
}

static inline uint16_t *rounded_at(const struct step *step, int64_t row, int64_t column) {
    const int64_t pitch = pitch_of(step->is_enlarging ? 2 * (int64_t)step->width : step->width);
    return step->rounded + (row * pitch + column) * step->rounded_stride;
}

/* A matrix of pixels: CHUNK channels of 16 adjacent ones; for the plain body, its first byte and the bytes of a row. */
struct chunk {
    const uint16_t *at;
    int64_t stride;
};
struct operand {
    const char *at;
    int64_t stride;
};

/* Finds what the results of a row are the products of: for each of 3x3 neighbours, all chunks of the first pixel. */
static void find_chunks(const struct step *step, int64_t row, struct chunk *chunks) {
    const int64_t pitch = pitch_of(step->width);
    for (int neighbour = 0; neighbour < 9; neighbour++) {
        const int64_t pixel = (row + neighbour / 3 - 1) * pitch + neighbour % 3 - 1;
        for (int channel = 0; channel < step->inputs; channel += CHUNK, chunks++) {
            const int is_first = channel < step->inputs_of_first;
            const uint16_t *picture = (const uint16_t *)(is_first ? step->input : step->more_input);
            chunks->stride = is_first ? step->input_stride : step->more_input_stride;
            chunks->at = picture + pixel * chunks->stride + channel - (is_first ? 0 : step->inputs_of_first);
        }
    }
}

static void clear_pixels(const struct step *step, int64_t row, int64_t first, int64_t last) {
    for (int64_t column = first; column < last; column++)
        memset(rounded_at(step, row, column), 0, (size_t)step->outputs * sizeof(uint16_t));
}

/* Clears what borders on this row of the step's rounded result. */
static void clear_border(const struct step *step, int64_t row) {
    if (!step->rounded) return;
    const int times = step->is_enlarging ? 2 : 1;
    const int64_t width = (int64_t)step->width * times, height = (int64_t)step->height * times;
    for (int64_t y = row * times; y < (row + 1) * times; y++) {
        clear_pixels(step, y, -1, 0);
        clear_pixels(step, y, width, width + 1);
    }
    if (row == 0) clear_pixels(step, -1, -1, width + 1);
    if (row == step->height - 1) clear_pixels(step, height, -1, width + 1);
}

/* The plain body treats subnormal numbers as matrix units do. Returns what `restore_rounding` takes. */
static unsigned flush_subnormals(void) {
#if defined(__x86_64__)
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static void restore_rounding(unsigned before) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(before);
#endif
    (void)before;
}

/* The matrix unit needs a compiler that knows it and a system that saves its registers. */
#if defined(__x86_64__) && defined(__linux__) && defined(__has_include)
#if __has_include(<amxbf16intrin.h>) && !defined(REGEN_NO_AMX)
#define HAS_AMX
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Palette 1, eight matrices: 64 bytes a row, 16 rows. */
static const uint8_t AMX_SHAPES[64] __attribute__((aligned(64))) = {
    [0] = 1,
    [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16,
};
#endif
#endif

#define ROWS_14(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
#define ROWS_6(X) X(0) X(1) X(2) X(3) X(4) X(5)

#if defined(__x86_64__)

#define LANES 16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define NAMED(x) x##_avx512
#define ROWS ROWS_14
#define ROW_COUNT 14
#include "kernels.h"
#undef LANES
#undef TARGET
#undef NAMED
#undef ROWS
#undef ROW_COUNT

#define LANES 8
#define TARGET __attribute__((target("avx2,fma")))
#define NAMED(x) x##_avx2
#define ROWS ROWS_6
#define ROW_COUNT 6
#include "kernels.h"
#undef LANES
#undef TARGET
#undef NAMED
#undef ROWS
#undef ROW_COUNT

#elif defined(__aarch64__)

#define LANES 4
#define TARGET
#define NAMED(x) x##_neon
#define ROWS ROWS_14
#define ROW_COUNT 14
#include "kernels.h"

#endif

struct kernels {
    const char *name;
    int lanes;
    int rows; /* `group` of a step is a multiple */
    void (*convolve)(const struct step *, int64_t, int64_t, float *);
    void (*convolve_direct)(const struct step *, int64_t, int64_t, float *);
    void (*write_yuv420)(const struct yuv420 *, int64_t, int64_t, float *);
};

static const struct kernels ALL[] = {
#if defined(__x86_64__)
#ifdef HAS_AMX
    {"amx", 16, 14, convolve_avx512, convolve_amx, write_yuv420_avx512},
#endif
    {"avx512", 16, 14, convolve_avx512, convolve_matrices_avx512, write_yuv420_avx512},
    {"avx2", 8, 6, convolve_avx2, convolve_matrices_avx2, write_yuv420_avx2},
#elif defined(__aarch64__)
    {"neon", 4, 14, convolve_neon, convolve_matrices_neon, write_yuv420_neon},
#endif
    {NULL, 0, 0, NULL, NULL, NULL},
};

static const struct kernels *named(const char *name) {
    for (const struct kernels *found = ALL; found->name; found++)
        if (strcmp(found->name, name) == 0) return found;
    return NULL;
}

/* Tells a library that was compiled from other sources than those of the Python that loads it. */
int regen_step_bytes(void) {
    return (int)sizeof(struct step);
}

/* Returns the best instruction set for this processor, or NULL. */
const char *regen_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
    return NULL;
#elif defined(__aarch64__)
    return "neon";
#else
    return NULL;
#endif
}

/* Returns the instruction set of this processor's matrix unit, or NULL; asks the system to save its registers, for this
   process. */
const char *regen_matrix_unit(void) {
#ifdef HAS_AMX
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const char *best = regen_best();
    unsigned a, b, c, d, state, high;
    if (best == NULL || strcmp(best, "avx512") != 0) return NULL;
    /* Leaf 7: the unit, its bfloat16, and vectors of it. Leaf 1: the system saves states; then: both of the unit's. */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 22 & 1)) return NULL;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return NULL;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return NULL;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    if ((state >> 17 & 3) != 3) return NULL;
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0) return NULL;
    return "amx";
#else
    return NULL;
#endif
}

/* Returns the number of tiles that are multiplied together; `group` of every step is a multiple of it. */
int regen_rows(const char *name) {
    return named(name)->rows;
}

/* Transforms weights[outputs][inputs][3][3] into ready[36][inputs][outputs rounded up to BLOCK], the last two dimensions
   in the kernels' reading order: two vectors of outputs for every input, then the next two; the last one may be single.
   `ready` is zero before. */
void regen_prepare_weights(const char *name, const float *weights, int inputs, int outputs, float *ready) {
    const double a = sqrt(0.5), b = sqrt(2.0), points[5] = {0, a, -a, b, -b};
    double into[6][3] = {{0}};
    for (int i = 0; i < 5; i++) {
        double product = 1;
        for (int j = 0; j < 5; j++)
            if (j != i) product *= points[i] - points[j];
        for (int k = 0; k < 3; k++) into[i][k] = pow(points[i], k) / product;
    }
    into[5][2] = 1;
    const int lanes = named(name)->lanes, columns = blocks_of(outputs) * BLOCK;
    for (int output = 0; output < outputs; output++) {
        const int panel = output / (2 * lanes) * (2 * lanes);
        const int wide = columns - panel < 2 * lanes ? lanes : 2 * lanes;
        for (int input = 0; input < inputs; input++) {
            const float *kernel = weights + ((int64_t)output * inputs + input) * 9;
            double half[6][3];
            for (int y = 0; y < 6; y++)
                for (int j = 0; j < 3; j++)
                    half[y][j] = into[y][0] * kernel[j] + into[y][1] * kernel[3 + j] + into[y][2] * kernel[6 + j];
            float *to = ready + (int64_t)panel * inputs + (int64_t)input * wide + (output - panel);
            for (int y = 0; y < 6; y++)
                for (int x = 0; x < 6; x++, to += (int64_t)inputs * columns)
                    *to = (float)(half[y][0] * into[x][0] + half[y][1] * into[x][1] + half[y][2] * into[x][2]);
        }
    }
}

static uint16_t rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7f800000) == 0) return (uint16_t)(bits >> 16 & 0x8000);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float widened(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof(wide));
    return wide;
}

/* Rounds weights[outputs][inputs][3][3] to bfloat16 in the order in which direct steps read them: for two panels of 16
   outputs (the last one may be single), for each neighbour, for each CHUNK of inputs, for each of the panels, a right
   matrix. `ready` is zero before. */
void regen_prepare_direct_weights(const float *weights, int inputs, int outputs, uint16_t *ready) {
    const int chunks = inputs / CHUNK, panels = blocks_of(outputs);
    for (int output = 0; output < outputs; output++) {
        const int panel = output / 16, wide = panels - panel / 2 * 2 < 2 ? 1 : 2;
        uint16_t *first = ready + (int64_t)(panel / 2 * 2) * 9 * chunks * MATRIX_VALUES;
        for (int input = 0; input < inputs; input++) {
            for (int neighbour = 0; neighbour < 9; neighbour++) {
                const int64_t matrix = ((int64_t)neighbour * chunks + input / CHUNK) * wide + panel % 2;
                const int within = input % CHUNK / 2 * 32 + output % 16 * 2 + input % 2;
                first[matrix * MATRIX_VALUES + within] =
                    rounded(weights[((int64_t)output * inputs + input) * 9 + neighbour]);
            }
        }
    }
}

/* Splits 3 planes into a picture of CHUNK channels in bfloat16, with its border: each value's rounded part, the rounded rest
   of each, and the rounded parts again. Times the weights' rounded part, twice, and the rest of the weights, this gives
   products of twice the precision. */
void regen_split_planes(const float *planes, int height, int width, uint16_t *split) {
    const int64_t pitch = pitch_of(width), plane = (int64_t)height * width;
    for (int64_t row = -1; row <= height; row++) {
        for (int64_t column = -1; column <= width; column++) {
            uint16_t *to = split + (row * pitch + column) * CHUNK;
            memset(to, 0, CHUNK * sizeof(*to));
            if (row < 0 || row == height || column < 0 || column == width) continue;
            for (int channel = 0; channel < 3; channel++) {
                const float value = planes[channel * plane + row * width + column];
                to[channel] = to[6 + channel] = rounded(value);
                to[3 + channel] = rounded(value - widened(to[channel]));
            }
        }
    }
}

/* The shared state of the threads that compute a list of steps. No step waits for the whole previous one: a group of tiles
   starts when its inputs are ready, so a preempted thread delays the others late or never. */
struct run {
    const struct kernels *kernels;
    const struct step *steps;
    int step_count;
    float *scratch;
    size_t scratch_floats;       /* of each thread */
    atomic_int_fast64_t *next;   /* for each step: the first tile that no thread has taken */
    atomic_uchar *is_done;       /* for each group of each step */
    atomic_int next_scratch;
    pthread_mutex_t lock;
    pthread_cond_t done;
    atomic_int sleepers;
};

static int64_t groups_of(const struct step *step) {
    return (tiles_of(step) + step->group - 1) / step->group;
}

/* Returns how many of the previous step's first groups must be done before tiles up to `end` of this step may start.

   Between pictures of one size without enlargement, a tile reads and writes in its own and the adjacent rows of tiles
   alone. Once the previous step has done these, so has every earlier one, because it had to before. So the tile's inputs
   are ready, and no step still reads what the tile overwrites. Otherwise the whole previous step must be done. */
static int64_t groups_needed(const struct step *before, const struct step *step, int64_t end) {
    const int64_t columns = step->is_direct ? 1 : (step->width + 3) / 4, groups = groups_of(before);
    if (before->is_doubled || step->is_doubled || before->width != step->width || before->height != step->height)
        return groups;
    const int64_t needed = (((end - 1) / columns + 2) * columns + before->group - 1) / before->group;
    return needed < groups ? needed : groups;
}

/* Spinning takes the processor from others, sleeping takes time to wake up: short waits spin. */
enum { TURNS_AWAKE = 400 };

static void await(struct run *run, const atomic_uchar *is_done) {
    for (int turn = 0; turn < TURNS_AWAKE; turn++) {
        if (atomic_load_explicit(is_done, memory_order_acquire)) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&run->lock);
    atomic_fetch_add(&run->sleepers, 1);
    while (!atomic_load(is_done)) pthread_cond_wait(&run->done, &run->lock);
    atomic_fetch_sub(&run->sleepers, 1);
    pthread_mutex_unlock(&run->lock);
}

static void finish(struct run *run, atomic_uchar *is_done) {
    atomic_store(is_done, 1);
    /* Sequentially consistent: either this thread sees the sleeper, or the sleeper sees the finished group. */
    if (atomic_load(&run->sleepers) == 0) return;
    pthread_mutex_lock(&run->lock);
    pthread_cond_broadcast(&run->done);
    pthread_mutex_unlock(&run->lock);
}

static void *work(void *argument) {
    struct run *run = argument;
    float *scratch = run->scratch + (size_t)atomic_fetch_add(&run->next_scratch, 1) * run->scratch_floats;
    atomic_uchar *done_before = NULL, *done = run->is_done;
    for (int index = 0; index < run->step_count; index++) {
        const struct step *step = run->steps + index;
        const int64_t tiles = tiles_of(step);
        int64_t first, seen = 0; /* groups of the previous step that are known to be done */
        while ((first = atomic_fetch_add(&run->next[index], step->group)) < tiles) {
            const int64_t end = first + step->group < tiles ? first + step->group : tiles;
            const int64_t needed = index == 0 ? 0 : groups_needed(step - 1, step, end);
            for (; seen < needed; seen++) await(run, done_before + seen);
            (step->is_direct ? run->kernels->convolve_direct : run->kernels->convolve)(step, first, end, scratch);
            finish(run, done + first / step->group);
        }
        done_before = done;
        done += groups_of(step);
    }
    return NULL;
}

/* Returns the floats of scratch memory that each thread needs for the largest step. */
size_t regen_scratch_floats(const struct step *steps, int step_count) {
    size_t most = 0;
    for (int index = 0; index < step_count; index++) {
        const size_t needed = scratch_floats(steps + index);
        if (needed > most) most = needed;
    }
    return most;
}

/* Computes all steps in order with this many threads, the calling one included; each has its part of `scratch`. Scratch
   memory holds numbers, because rows of a group that no tile fills are multiplied too. Returns 0, or -1 without memory.
   If the system refuses threads, fewer compute. */
int regen_run(
    const char *name, const struct step *steps, int step_count, int threads, float *scratch, size_t floats_of_each
) {
    int64_t groups = 0;
    for (int index = 0; index < step_count; index++) groups += groups_of(steps + index);
    struct run run = {
        .kernels = named(name),
        .steps = steps,
        .step_count = step_count,
        .scratch = scratch,
        .scratch_floats = floats_of_each,
        .next = calloc((size_t)step_count, sizeof(*run.next)),
        .is_done = calloc((size_t)groups, sizeof(*run.is_done)),
    };
    pthread_t *others = calloc((size_t)threads, sizeof(*others));
    int result = -1;
    if (run.next && run.is_done && others) {
        pthread_mutex_init(&run.lock, NULL);
        pthread_cond_init(&run.done, NULL);
        int started = 0;
        while (started < threads - 1 && pthread_create(others + started, NULL, work, &run) == 0) started++;
        work(&run);
        for (int index = 0; index < started; index++) pthread_join(others[index], NULL);
        pthread_cond_destroy(&run.done);
        pthread_mutex_destroy(&run.lock);
        result = 0;
    }
    free(run.is_done);
    free(run.next);
    free(others);
    return result;
}

/* Converts the pairs of rows `first` to `last` of a picture from 4:2:0 to RGB between 0 and 1. Chroma is interpolated
   linearly. One version serves all instruction sets: its time is negligible beside a network's. */
static void read_yuv420(const struct yuv420 *picture, int64_t first, int64_t last, float *scratch) {
    const int64_t height = picture->height, width = picture->width;
    const int64_t rows = (height + 1) / 2, columns = (width + 1) / 2;
    const float red_weight = picture->red_weight, blue_weight = picture->blue_weight;
    const float green_scale = 1 / picture->green_weight;
    const float luma_scale = 1 / picture->luma_scale, luma_offset = picture->luma_offset;
    const float scales[2] = {1 / picture->blue_scale, 1 / picture->red_scale};
    /* The weight of the nearest chroma sample, for the left and the right one of two columns. */
    const float left_share = picture->is_centred ? 0.75f : 1.0f, right_share = picture->is_centred ? 0.75f : 0.5f;
    /* One sample more on each side. */
    float *differences[2] = {scratch + 1, scratch + columns + 3};
    for (int64_t row = 2 * first; row < 2 * last && row < height; row++) {
        const int64_t near = row / 2, beyond = row % 2 ? near + 1 : near - 1;
        const int64_t far = beyond < 0 ? 0 : beyond < rows ? beyond : rows - 1;
        for (int plane = 0; plane < 2; plane++) {
            const uint8_t *samples = picture->planes + height * width + plane * rows * columns;
            const uint8_t *restrict ours = samples + near * columns, *restrict others = samples + far * columns;
            float *restrict difference = differences[plane];
            for (int64_t x = 0; x < columns; x++)
                difference[x] = (0.75f * ours[x] + 0.25f * others[x] - picture->chroma_offset) * scales[plane];
            difference[-1] = difference[0];
            difference[columns] = difference[columns - 1];
        }
        const uint8_t *luma = picture->planes + row * width;
        float *red = picture->rgb + row * width, *green = red + height * width, *blue = green + height * width;
        for (int64_t x = 0; x < width; x++) {
            const float share = x % 2 ? right_share : left_share;
            const int64_t at = x / 2, beside = x % 2 ? at + 1 : at - 1;
            const float y = (luma[x] - luma_offset) * luma_scale;
            const float b = y + differences[0][at] * share + differences[0][beside] * (1 - share);
            const float r = y + differences[1][at] * share + differences[1][beside] * (1 - share);
            const float g = (y - r * red_weight - b * blue_weight) * green_scale;
            red[x] = r < 0 ? 0 : r < 1 ? r : 1;
            green[x] = g < 0 ? 0 : g < 1 ? g : 1;
            blue[x] = b < 0 ? 0 : b < 1 ? b : 1;
        }
    }
}

struct conversion {
    const struct yuv420 *picture;
    void (*convert)(const struct yuv420 *, int64_t, int64_t, float *);
    int64_t pairs;
    float *scratch;
    size_t scratch_floats; /* of each thread */
    int threads;
    atomic_int next;
};

static void *convert_share(void *argument) {
    struct conversion *conversion = argument;
    const int64_t share = atomic_fetch_add(&conversion->next, 1);
    conversion->convert(
        conversion->picture,
        conversion->pairs * share / conversion->threads,
        conversion->pairs * (share + 1) / conversion->threads,
        conversion->scratch + share * conversion->scratch_floats
    );
    return NULL;
}

/* The least work that is worth starting a thread, in pixels. */
enum { PIXELS_OF_A_THREAD = 1 << 17 };

static int convert(
    const struct yuv420 *picture, void (*kernel)(const struct yuv420 *, int64_t, int64_t, float *), int threads
) {
    const int64_t most = picture->height * picture->width / PIXELS_OF_A_THREAD + 1;
    if (threads > most) threads = (int)most;
    struct conversion conversion = {
        .picture = picture,
        .convert = kernel,
        .pairs = (picture->height + 1) / 2,
        .scratch_floats = 2 * (size_t)picture->width + 6,
        .threads = threads,
    };
    conversion.scratch = calloc(conversion.scratch_floats * (size_t)threads, sizeof(float));
    pthread_t *others = calloc((size_t)threads, sizeof(*others));
    int result = -1;
    if (conversion.scratch && others) {
        int started = 0;
        while (started < threads - 1 && pthread_create(others + started, NULL, convert_share, &conversion) == 0)
            started++;
        /* The calling thread computes the shares of threads that the system refused. */
        for (int share = started; share < threads; share++) convert_share(&conversion);
        for (int index = 0; index < started; index++) pthread_join(others[index], NULL);
        result = 0;
    }
    free(conversion.scratch);
    free(others);
    return result;
}

/* Converts 4:2:0 to RGB with at most this many threads. Returns 0, or -1 without memory. */
int regen_read_yuv420(const struct yuv420 *picture, int threads) {
    return convert(picture, read_yuv420, threads);
}

/* Converts RGB to 4:2:0; otherwise like regen_read_yuv420. */
int regen_write_yuv420(const char *name, const struct yuv420 *picture, int threads) {
    return convert(picture, named(name)->write_yuv420, threads);
}
