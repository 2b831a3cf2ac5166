/* 4-bit floats (E2M1): MXFP4 (32 values, power-of-two scale), NVFP4 (64 values, an E4M3 scale per 16). */
#include "quant/codec.h"

const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static inline void look_up(const uint8_t *qs, int n, int8_t *q)
{
    for (int i = 0; i < n; i++) {
        q[i] = fp4_values[qs[i] & 15];
        q[n + i] = fp4_values[qs[i] >> 4];
    }
}

static void unpack_mxfp4(const void *src, size_t n, unpacked *out)
{
    const block_mxfp4 *b = src;
    for (size_t i = 0; i < n / 32; i++) {
        look_up(b[i].qs, 16, out->q + 32 * i);
        out->s[i] = mxfp4_scale(b[i].e);
    }
}

static void unpack_nvfp4(const void *src, size_t n, unpacked *out)
{
    const block_nvfp4 *b = src;
    for (size_t g = 0; g < n / 16; g++) {
        look_up(b[g / 4].qs + 8 * (g % 4), 8, out->q + 16 * g);
        out->s[g] = nvfp4_scale(b[g / 4].d[g % 4]);
    }
}

const unpack_rule rule_mxfp4 = {unpack_mxfp4, 32, sizeof(block_mxfp4), 32, false};
const unpack_rule rule_nvfp4 = {unpack_nvfp4, 64, sizeof(block_nvfp4), 16, false};

void decode_mxfp4(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_mxfp4, src, dst, n);
}

void decode_nvfp4(const void *src, float *dst, size_t n)
{
    decode_by_rule(&rule_nvfp4, src, dst, n);
}
