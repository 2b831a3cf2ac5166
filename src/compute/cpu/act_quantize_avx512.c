/* act_quantize with AVX-512; the rule is that of quant/act.h. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "compute/cpu/linear_tile.h"

/* Codes and scale of 32 values; the sums of the two halves. */
static inline float quantize_group(const float *x, int8_t *q, int32_t sum[2])
{
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    /* Largest bit pattern of |x|, which unlike a comparison of floats sees NaN. */
    __m512i abs = _mm512_set1_epi32(0x7fffffff), ia = _mm512_castps_si512(a), ib = _mm512_castps_si512(b);
    uint32_t top = _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(ia, abs), _mm512_and_si512(ib, abs)));
    float amax = f32_from_bits(top);
    if (top >= 0x7f800000u || amax < 0x1p-119f) {
        memset(q, 0, 32);
        sum[0] = sum[1] = 0;
        return amax < 0x1p-119f ? 0 : NAN;
    }
    __m512 inv = _mm512_set1_ps(127.0f / amax);
    __m512i ca = _mm512_cvtps_epi32(_mm512_mul_ps(a, inv)), cb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inv));
    _mm_store_si128((__m128i *)(void *)q, _mm512_cvtepi32_epi8(ca));
    _mm_store_si128((__m128i *)(void *)(q + 16), _mm512_cvtepi32_epi8(cb));
    sum[0] = _mm512_reduce_add_epi32(ca);
    sum[1] = _mm512_reduce_add_epi32(cb);
    return amax / 127.0f;
}

void act_quantize_avx512(const float *x, size_t n, act_block *out, size_t stride)
{
    for (; n > 0; out += stride) {
        size_t groups = n < 256 ? n / 32 : 8;
        if (groups < 8) memset(out, 0, sizeof *out);
        for (size_t g = 0; g < groups; g++) {
            int32_t *sum = out->sum16 + 2 * g;
            out->scale[g] = quantize_group(x + 32 * g, out->q + 32 * g, sum);
            out->scale_sum[g] = out->scale[g] * (float)(sum[0] + sum[1]);
        }
        x += 32 * groups;
        n -= 32 * groups;
    }
}
