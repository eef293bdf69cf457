/* Replaces the intrinsics of the matrix unit by what Intel's Software Developer's Manual says of them, so that the code for
   the unit runs on any x86-64 processor. Given to the compiler by -include. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_loadconfig
#undef _tile_release

static _Thread_local struct {
    uint8_t is_configured, rows[8], data[8][16][64];
    uint16_t columns[8];
} emulated;

static void emulate_configuration(const void *at) {
    const uint8_t *bytes = at;
    memset(&emulated, 0, sizeof(emulated));
    if (bytes[0] != 1) __builtin_trap();
    emulated.is_configured = 1;
    for (int tile = 0; tile < 8; tile++) {
        memcpy(&emulated.columns[tile], bytes + 16 + 2 * tile, 2);
        emulated.rows[tile] = bytes[48 + tile];
    }
}

static void emulate_load(int tile, const void *from, int64_t stride) {
    if (!emulated.is_configured) __builtin_trap();
    memset(emulated.data[tile], 0, sizeof(emulated.data[tile]));
    for (int row = 0; row < emulated.rows[tile]; row++)
        memcpy(emulated.data[tile][row], (const char *)from + row * stride, emulated.columns[tile]);
}

static void emulate_store(int tile, void *to, int64_t stride) {
    if (!emulated.is_configured) __builtin_trap();
    for (int row = 0; row < emulated.rows[tile]; row++)
        memcpy((char *)to + row * stride, emulated.data[tile][row], emulated.columns[tile]);
}

static float emulated_value(uint16_t bfloat16) {
    const uint32_t bits = (uint32_t)bfloat16 << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return fpclassify(value) == FP_SUBNORMAL ? copysignf(0, value) : value;
}

static float emulate_flush(float value) {
    return fpclassify(value) == FP_SUBNORMAL ? copysignf(0, value) : value;
}

static void emulate_products(int sums, int left, int right) {
    for (int m = 0; m < emulated.rows[sums]; m++) {
        float chains[16][2] = {{0}};
        for (int k = 0; k < emulated.columns[left] / 4; k++) {
            uint16_t a[2], b[16][2];
            memcpy(a, emulated.data[left][m] + 4 * k, sizeof(a));
            memcpy(b, emulated.data[right][k], sizeof(b));
            for (int n = 0; n < emulated.columns[sums] / 4; n++)
                for (int half = 0; half < 2; half++)
                    chains[n][half] = emulate_flush(
                        fmaf(emulated_value(a[half]), emulated_value(b[n][half]), chains[n][half])
                    );
        }
        float *row = (float *)emulated.data[sums][m];
        for (int n = 0; n < emulated.columns[sums] / 4; n++) {
            volatile float both = emulate_flush(chains[n][0] + chains[n][1]);
            row[n] = emulate_flush(row[n] + both);
        }
    }
}

#define _tile_loadconfig(at) emulate_configuration(at)
#define _tile_release() (emulated.is_configured = 0)
#define _tile_zero(tile) memset(emulated.data[tile], 0, sizeof(emulated.data[tile]))
#define _tile_loadd(tile, from, stride) emulate_load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulate_store(tile, to, stride)
#define _tile_dpbf16ps(sums, left, right) emulate_products(sums, left, right)
