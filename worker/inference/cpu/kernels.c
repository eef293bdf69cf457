/* 3x3 convolutions of a network in 32-bit floats, on a CPU: a list of steps, done by several threads together. And the
   way from their results to the planes that an encoder takes.

   Pictures lie channels last: a pixel is `stride` floats, of which a step reads or writes the first ones from where its
   pointer points. A plain shared library, loaded with ctypes: no Python in here. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Channels that lie together in what is transformed. */
enum { BLOCK = 16, MOST_INPUTS = 1024 };
enum { CHANNELS_LAST = 0, PLANES = 1, SHUFFLED = 2 };

#define ROOT_HALF 0.70710678118654752440f
#define ROOT_TWO 1.41421356237309504880f
#define ROOT_EIGHTH 0.35355339059327376220f
#define ROOT_EIGHT 2.82842712474619009760f

/* One convolution and what follows it, for every channel of every pixel:

       value = convolution + bias
       value = value > 0 ? value : value * slope           where there are slopes
       value = value * scale + residual                    where there is a residual
       value = value * outer_scale + outer                 where there is an outer one

   Mirrored in Python (kernels.py): fields in this order. */
struct step {
    const float *input;
    const float *more_input; /* the channels after the first `inputs_of_first`, or NULL */
    const float *weights;
    const float *bias;
    const float *slopes;
    const float *residual;
    const float *outer;
    const float *base; /* SHUFFLED: what is added to all 16 results of a pixel, a float a colour */
    float *output;
    int64_t input_stride, more_input_stride, residual_stride, outer_stride, base_stride, output_stride;
    float scale, outer_scale;
    int32_t inputs, inputs_of_first, outputs;
    int32_t height, width; /* of the results */
    int32_t is_doubled;    /* the input has half the height and width: each of its pixels counts four times */
    int32_t layout;        /* CHANNELS_LAST; PLANES: the first `planes` channels, each apart; SHUFFLED: 3 planes of 4 times
                              the height and width, of 48 channels */
    int32_t planes;
    int32_t group; /* tiles that a thread does at a time */
};

/* RGB in three planes to 4:2:0 in 8 bits, chroma half way between two rows. Mirrored in Python (kernels.py). A code is
   value * scale + offset; `blue_scale` and `red_scale` are those of B - Y and R - Y. */
struct yuv420 {
    const float *rgb;
    uint8_t *planes;
    int64_t height, width;
    float red_weight, green_weight, blue_weight;
    float luma_scale, luma_offset, blue_scale, red_scale, chroma_offset;
    int32_t is_centred; /* chroma lies between two columns, else on the first of them */
};

static const float ZEROS[MOST_INPUTS];

static int blocks_of(int channels) {
    return (channels + BLOCK - 1) / BLOCK;
}

/* Where the 6x6 pixels are that the 4x4 results at (top, left) are made of; outside the picture there are zeros. */
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

static int64_t tiles_of(const struct step *step) {
    return (int64_t)((step->height + 3) / 4) * ((step->width + 3) / 4);
}

/* What lies between two of a tile's 36 places: an odd number of cache lines, for the 36 would otherwise fall into few sets
   of the cache and drive each other out. */
static int64_t place_floats(int blocks, int64_t tiles) {
    return (blocks * tiles | 1) * BLOCK;
}

static size_t scratch_floats(const struct step *step) {
    return (size_t)36 * (place_floats(blocks_of(step->inputs), step->group)
                         + place_floats(blocks_of(step->outputs), step->group));
}

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
    void (*write_yuv420)(const struct yuv420 *, int64_t, int64_t, float *);
};

static const struct kernels ALL[] = {
#if defined(__x86_64__)
    {"avx512", 16, 14, convolve_avx512, write_yuv420_avx512},
    {"avx2", 8, 6, convolve_avx2, write_yuv420_avx2},
#elif defined(__aarch64__)
    {"neon", 4, 14, convolve_neon, write_yuv420_neon},
#endif
    {NULL, 0, 0, NULL, NULL},
};

static const struct kernels *named(const char *name) {
    for (const struct kernels *found = ALL; found->name; found++)
        if (strcmp(found->name, name) == 0) return found;
    return NULL;
}

/* The instruction set that suits this processor best, or NULL. */
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

/* How many tiles are multiplied together: `group` of every step is a multiple of it. */
int regen_rows(const char *name) {
    return named(name)->rows;
}

/* weights[outputs][inputs][3][3] into ready[36][inputs][outputs rounded up to BLOCK], the last two in the order in which
   these kernels read them: two vectors of outputs for every input, then the next two; a last one may be alone. `ready` is
   zero before. */
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

/* Threads meet here between two steps. Each waits awake for as long as the others usually take, then asleep. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    atomic_int arrived, round;
    int threads;
};

enum { TURNS_AWAKE = 4000 };

static void meet(struct meeting *meeting) {
    const int round = atomic_load(&meeting->round);
    if (atomic_fetch_add(&meeting->arrived, 1) + 1 == meeting->threads) {
        atomic_store(&meeting->arrived, 0);
        pthread_mutex_lock(&meeting->lock);
        atomic_fetch_add(&meeting->round, 1);
        pthread_cond_broadcast(&meeting->opened);
        pthread_mutex_unlock(&meeting->lock);
        return;
    }
    for (int turn = 0; turn < TURNS_AWAKE; turn++) {
        if (atomic_load_explicit(&meeting->round, memory_order_acquire) != round) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&meeting->lock);
    while (atomic_load(&meeting->round) == round) pthread_cond_wait(&meeting->opened, &meeting->lock);
    pthread_mutex_unlock(&meeting->lock);
}

struct run {
    const struct kernels *kernels;
    const struct step *steps;
    int step_count;
    float *scratch;
    size_t scratch_floats; /* of each thread */
    atomic_int_fast64_t *next; /* for each step: the first tile that nobody has taken */
    atomic_int next_scratch;
    struct meeting meeting;
};

static void *work(void *argument) {
    struct run *run = argument;
    /* Held until it is known how many take part. */
    pthread_mutex_lock(&run->meeting.lock);
    pthread_mutex_unlock(&run->meeting.lock);
    float *scratch = run->scratch + (size_t)atomic_fetch_add(&run->next_scratch, 1) * run->scratch_floats;
    for (int index = 0; index < run->step_count; index++) {
        const struct step *step = run->steps + index;
        const int64_t tiles = tiles_of(step);
        int64_t first;
        while ((first = atomic_fetch_add(&run->next[index], step->group)) < tiles)
            run->kernels->convolve(step, first, first + step->group < tiles ? first + step->group : tiles, scratch);
        if (index + 1 < run->step_count) meet(&run->meeting);
    }
    return NULL;
}

/* What each thread needs for the largest of the steps. */
size_t regen_scratch_floats(const struct step *steps, int step_count) {
    size_t most = 0;
    for (int index = 0; index < step_count; index++) {
        const size_t needed = scratch_floats(steps + index);
        if (needed > most) most = needed;
    }
    return most;
}

/* Do all steps, one after the other, with this many threads, this one included, each of which has its part of `scratch`:
   numbers, for rows of a group that no tile fills are multiplied too. 0, or -1 without memory. Fewer threads than asked
   for do where the system has no more. */
int regen_run(
    const char *name, const struct step *steps, int step_count, int threads, float *scratch, size_t floats_of_each
) {
    struct run run = {
        .kernels = named(name),
        .steps = steps,
        .step_count = step_count,
        .scratch = scratch,
        .scratch_floats = floats_of_each,
        .next = calloc((size_t)step_count, sizeof(*run.next)),
    };
    pthread_t *others = calloc((size_t)threads, sizeof(*others));
    int result = -1;
    if (run.next && others) {
        pthread_mutex_init(&run.meeting.lock, NULL);
        pthread_cond_init(&run.meeting.opened, NULL);
        int started = 0;
        pthread_mutex_lock(&run.meeting.lock);
        while (started < threads - 1 && pthread_create(others + started, NULL, work, &run) == 0) started++;
        run.meeting.threads = started + 1;
        pthread_mutex_unlock(&run.meeting.lock);
        work(&run);
        for (int index = 0; index < started; index++) pthread_join(others[index], NULL);
        pthread_mutex_destroy(&run.meeting.lock);
        pthread_cond_destroy(&run.meeting.opened);
        result = 0;
    }
    free(run.next);
    free(others);
    return result;
}

struct writing {
    const struct kernels *kernels;
    const struct yuv420 *picture;
    int64_t pairs;
    float *scratch;
    size_t scratch_floats;
    int threads;
    atomic_int next;
};

static void *write_share(void *argument) {
    struct writing *writing = argument;
    const int64_t share = atomic_fetch_add(&writing->next, 1);
    writing->kernels->write_yuv420(
        writing->picture,
        writing->pairs * share / writing->threads,
        writing->pairs * (share + 1) / writing->threads,
        writing->scratch + share * writing->scratch_floats
    );
    return NULL;
}

/* Write a picture with this many threads. 0, or -1 without memory. */
int regen_write_yuv420(const char *name, const struct yuv420 *picture, int threads) {
    struct writing writing = {
        .kernels = named(name),
        .picture = picture,
        .pairs = (picture->height + 1) / 2,
        .scratch_floats = 2 * (size_t)picture->width + 4,
        .threads = threads,
    };
    writing.scratch = calloc(writing.scratch_floats * (size_t)threads, sizeof(float));
    pthread_t *others = calloc((size_t)threads, sizeof(*others));
    int result = -1;
    if (writing.scratch && others) {
        int started = 0;
        while (started < threads - 1 && pthread_create(others + started, NULL, write_share, &writing) == 0) started++;
        /* Shares that no thread could be had for are done here. */
        for (int share = started; share < threads; share++) write_share(&writing);
        for (int index = 0; index < started; index++) pthread_join(others[index], NULL);
        result = 0;
    }
    free(writing.scratch);
    free(others);
    return result;
}
