/* attn_avx2.c: attention with 8 lanes. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "quant/tq3.h"

typedef __m256 vec;
typedef uint32_t words __attribute__((vector_size(32)));

enum { LANES = 8 };
#define GROUP 4 /* 8 sums, 2 values, 2 scales, 1 coefficient: of 16 registers */

#define V static inline __attribute__((always_inline))

V vec v_zero(void)
{
    return _mm256_setzero_ps();
}
V vec v_set1(float f)
{
    return _mm256_set1_ps(f);
}
V vec v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
V void v_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}
V vec v_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
V vec v_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
V vec v_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
V vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
V float v_sum(vec v)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
V float v_max_lane(vec v)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
V vec v_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
V vec v_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}
V vec v_neg(vec v)
{
    return -v;
}
V vec v_swap(vec v, int h)
{
    switch (h) {
    case 1: return _mm256_permute_ps(v, 0xb1);
    case 2: return _mm256_permute_ps(v, 0x4e);
    default: return _mm256_permute2f128_ps(v, v, 1);
    }
}
/* Lane i is the sum of the lanes of a[i], added in halves. */
V vec v_sums(vec a[8])
{
    for (int i = 0; i < 4; i++)
        a[i] =
            _mm256_add_ps(_mm256_permute2f128_ps(a[i], a[i + 4], 0x20), _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    for (int i = 0; i < 2; i++) /* a[i]: a half of i, of i + 4 */
        a[i] = _mm256_add_ps(_mm256_shuffle_ps(a[i], a[i + 2], 0x44), _mm256_shuffle_ps(a[i], a[i + 2], 0xee));
    const vec s = _mm256_add_ps(_mm256_shuffle_ps(a[0], a[1], 0x88), _mm256_shuffle_ps(a[0], a[1], 0xdd));
    return _mm256_permutevar8x32_ps(s, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7));
}
V words v_words(const void *p)
{
    return (words)_mm256_loadu_si256(p);
}
V words v_right(words w, int n)
{
    return w >> (uint32_t)n;
}
V vec v_nibble(words w)
{
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32((__m256i)w, 28), 28));
}
V vec v_level(words w)
{
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(tq3_level), (__m256i)w);
}
V vec v_row_q4(const uint8_t *row, int dim)
{
    __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(row + dim % 16)));
    return v_nibble(dim < 16 ? (words)b : v_right((words)b, 4));
}
V vec v_row_tq3(const uint8_t *row, int dim)
{
    int32_t bits;
    memcpy(&bits, row + dim / 8 * 3, sizeof bits);
    return v_level((words)_mm256_srlv_epi32(_mm256_set1_epi32(bits), _mm256_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21)));
}
V vec v_keep(vec v, int i, int lo, int hi, float fill)
{
    __m256i lane = _mm256_add_epi32(_mm256_set1_epi32(i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane);
    __m256i in = _mm256_andnot_si256(low, _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
    return _mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(in));
}

/* e^x for x <= 0: x = k ln 2 + r, |r| <= ln 2 / 2, Taylor of degree 6 (relative error below 2e-7 with rounding).
 * Results below 2^-126 are zero: their exponent field is. */
V vec v_exp(vec x)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-88.0f)); /* k = -127 */
    vec k =
        _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.62e4p-1f), x);
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    vec p = _mm256_set1_ps(1.0f / 720);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

#include "compute/cpu/attn_simd.inc"

#include "compute/cpu/attn_rebuild.inc"

const attn_simd attn_simd_avx2 = {
    .score = score, .value = value, .turn = turn, .score_values = score_values, .softmax = softmax, .centre = centre};

static void split_avx2(const attn_work *w, const attn_row *row, int kv_head, int split, float *part)
{
    attn_drive_split(&attn_simd_avx2, w, row, kv_head, split, part);
}

static void rows_avx2(const attn_work *w, const attn_row *rows, int n_rows, int kv_head)
{
    attn_drive_rows(&attn_simd_avx2, w, rows, n_rows, kv_head);
}

static void probe_avx2(const attn_work *w, const attn_row *row, int kv_head, float *z, float *means, int n_means)
{
    attn_drive_probe(&attn_simd_avx2, w, row, kv_head, z, means, n_means);
}

attn_kernels attn_avx2(void)
{
    return (attn_kernels){.split = split_avx2, .rows = rows_avx2, .probe = probe_avx2, .centre = centre};
}
