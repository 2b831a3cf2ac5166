/* act_quantize with AVX2; the rule is that of quant/act.h. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "compute/cpu/linear_tile.h"

static inline uint32_t largest_lane(__m256i v)
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1)));
}

/* Sum of 16 signed bytes. */
static inline int32_t sum_of_codes(const int8_t *q)
{
    __m256i wide = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)q));
    __m256i pairs = _mm256_madd_epi16(wide, _mm256_set1_epi16(1));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline float quantize_group(const float *x, int8_t *q)
{
    /* Largest bit pattern of |x|, which unlike a comparison of floats sees NaN. */
    __m256i abs = _mm256_set1_epi32(0x7fffffff), max = _mm256_setzero_si256(), code[4];
    for (int i = 0; i < 4; i++)
        max = _mm256_max_epu32(max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), abs));
    uint32_t top = largest_lane(max);
    float amax = f32_from_bits(top);
    if (top >= 0x7f800000u || amax < 0x1p-119f) {
        memset(q, 0, 32);
        return amax < 0x1p-119f ? 0 : NAN;
    }
    __m256 inv = _mm256_set1_ps(127.0f / amax);
    for (int i = 0; i < 4; i++) code[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inv));
    /* Packing works within 128-bit lanes; the permutation puts the runs of four in order. */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]), _mm256_packs_epi32(code[2], code[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_store_si256((__m256i *)(void *)q, bytes);
    return amax / 127.0f;
}

void act_quantize_avx2(const float *x, size_t n, act_block *out, size_t stride)
{
    for (; n > 0; out += stride) {
        size_t groups = n < 256 ? n / 32 : 8;
        if (groups < 8) memset(out, 0, sizeof *out);
        for (size_t g = 0; g < groups; g++) {
            int8_t *q = out->q + 32 * g;
            out->scale[g] = quantize_group(x + 32 * g, q);
            out->sum16[2 * g] = sum_of_codes(q);
            out->sum16[2 * g + 1] = sum_of_codes(q + 16);
            out->scale_sum[g] = out->scale[g] * (float)(out->sum16[2 * g] + out->sum16[2 * g + 1]);
        }
        x += 32 * groups;
        n -= 32 * groups;
    }
}
