/* Operations on matrices of 16 rows by 64 bytes, in two bodies: the intrinsics of a matrix unit (AMX), and plain C, which
   gives the same to the last bit. Included by direct.h with MATRIX_UNIT set to 1 or 0.

   A left matrix holds 16 pixels of 32 bfloat16 values, a right one 16 pairs of inputs by 16 outputs, each value of a
   pair beside the other, and the sums are 16 pixels by 16 outputs in 32 bits. A multiplication adds to every sum, in
   this order (Intel's Software Developer's Manual, TDPBF16PS): the products of the pairs' first values one after the
   other, those of the second values likewise, each chain fused and from zero, then both chains' sum. Subnormal numbers
   count as zeros, and so they do when a result is rounded to bfloat16. */

#if MATRIX_UNIT

/* The registers' numbers. */
#define SUMS_00 0
#define SUMS_01 1
#define SUMS_10 2
#define SUMS_11 3
#define LEFT_0 4
#define LEFT_1 5
#define RIGHT_0 6
#define RIGHT_1 7
#define DECLARE_MATRICES
#define MATRIX_ZERO(sums) _tile_zero(sums)
#define MATRIX_LOAD(matrix, from, stride) _tile_loadd(matrix, from, stride)
#define MATRIX_MULTIPLY(sums, left, right) _tile_dpbf16ps(sums, left, right)
#define MATRIX_STORE(sums, to, stride) _tile_stored(sums, to, stride)
#define MATRIX_ROUND(value) (NAMED(halves))_mm512_cvtneps_pbh((__m512)(value))

#else

#define DECLARE_MATRICES                                                              \
    float sums_00[16][16], sums_01[16][16], sums_10[16][16], sums_11[16][16];         \
    struct operand left_0 = {0}, left_1 = {0}, right_0 = {0}, right_1 = {0};
#define SUMS_00 sums_00
#define SUMS_01 sums_01
#define SUMS_10 sums_10
#define SUMS_11 sums_11
#define LEFT_0 left_0
#define LEFT_1 left_1
#define RIGHT_0 right_0
#define RIGHT_1 right_1
#define MATRIX_ZERO(sums) memset(sums, 0, sizeof(sums))
#define MATRIX_LOAD(matrix, from, stride) matrix = (struct operand){(const char *)(from), stride}
#define MATRIX_MULTIPLY(sums, left, right) NAMED(multiply_matrices)(sums, left, right)
#define MATRIX_STORE(sums, to, stride) \
    for (int row = 0; row < 16; row++) memcpy((char *)(to) + row * (stride), sums[row], sizeof(sums[row]))
#define MATRIX_ROUND(value) NAMED(round)(value)

typedef uint32_t NAMED(word) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t NAMED(pair) __attribute__((aligned(2), may_alias));

TARGET static inline void NAMED(multiply_matrices)(float sums[16][16], struct operand left, struct operand right) {
    enum { PIXELS = 4 };
    for (int part = 0; part < VECTORS; part++) {
        for (int pixel = 0; pixel < 16; pixel += PIXELS) {
            vector even[PIXELS], odd[PIXELS];
#pragma GCC unroll 4
            for (int i = 0; i < PIXELS; i++) even[i] = odd[i] = (vector){0};
            for (int k = 0; k < 16; k++) {
                const NAMED(word) pairs = *(const NAMED(word) *)(right.at + k * 64 + part * 4 * LANES);
                const vector evens = (vector)(pairs << 16), odds = (vector)(pairs & 0xffff0000u);
#pragma GCC unroll 4
                for (int i = 0; i < PIXELS; i++) {
                    const NAMED(word) own =
                        (NAMED(word)){0} + *(const NAMED(pair) *)(left.at + (pixel + i) * left.stride + k * 4);
                    even[i] += evens * (vector)(own << 16);
                    odd[i] += odds * (vector)(own & 0xffff0000u);
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < PIXELS; i++) {
                float *to = sums[pixel + i] + part * LANES;
                NAMED(store)(to, NAMED(load)(to) + (even[i] + odd[i]));
            }
        }
    }
}

#endif
