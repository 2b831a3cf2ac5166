/* attn_avx512.c: attention with 16 lanes. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "quant/tq3.h"

typedef __m512 vec;
typedef uint32_t words __attribute__((vector_size(64)));

enum { LANES = 16 };
#define GROUP 8 /* 16 sums, 2 values, 1 coefficient: of 32 registers */

#define V static inline __attribute__((always_inline))

V vec v_zero(void)
{
    return _mm512_setzero_ps();
}
V vec v_set1(float f)
{
    return _mm512_set1_ps(f);
}
V vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V void v_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
V vec v_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
V vec v_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
V vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
V vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V float v_sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}
V float v_max_lane(vec v)
{
    return _mm512_reduce_max_ps(v);
}
V vec v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
V vec v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
V vec v_neg(vec v)
{
    return -v;
}
V vec v_swap(vec v, int h)
{
    switch (h) {
    case 1: return _mm512_permute_ps(v, 0xb1);
    case 2: return _mm512_permute_ps(v, 0x4e);
    case 4: return _mm512_shuffle_f32x4(v, v, 0xb1);
    default: return _mm512_shuffle_f32x4(v, v, 0x4e);
    }
}
/* Lane i is the sum of the lanes of a[i], added in halves. */
V vec v_sums(vec a[16])
{
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 8], 0x44), _mm512_shuffle_f32x4(a[i], a[i + 8], 0xee));
    for (int i = 0; i < 4; i++) /* a[i]: two quarters of i, of i + 8 */
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
    for (int i = 0; i < 2; i++) /* quarters of i, i + 8, i + 4, i + 12 */
        a[i] = _mm512_add_ps(_mm512_shuffle_ps(a[i], a[i + 2], 0x44), _mm512_shuffle_ps(a[i], a[i + 2], 0xee));
    const vec s = _mm512_add_ps(_mm512_shuffle_ps(a[0], a[1], 0x88), _mm512_shuffle_ps(a[0], a[1], 0xdd));
    /* in quarter j = 0, 8, 4, 12: the sums of j, j + 2, j + 1, j + 3 */
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15), s);
}
V words v_words(const void *p)
{
    return (words)_mm512_loadu_si512(p);
}
V words v_right(words w, int n)
{
    return w >> (uint32_t)n;
}
V vec v_nibble(words w) /* the permutation reads four bits of an index */
{
    return _mm512_permutexvar_ps((__m512i)w, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
}
V vec v_level(words w) /* the fourth bit does not matter */
{
    return _mm512_permutexvar_ps((__m512i)w, _mm512_broadcast_f32x8(_mm256_loadu_ps(tq3_level)));
}
V vec v_row_q4(const uint8_t *row, int dim)
{
    words b = (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)row));
    return v_nibble(dim < 16 ? b : v_right(b, 4));
}
V vec v_row_tq3(const uint8_t *row, int dim)
{
    int32_t a, b;
    memcpy(&a, row + dim / 8 * 3, sizeof a);
    memcpy(&b, row + dim / 8 * 3 + 3, sizeof b);
    __m512i both = _mm512_mask_set1_epi32(_mm512_set1_epi32(a), 0xff00, b);
    return v_level(
        (words)_mm512_srlv_epi32(both, _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 0, 3, 6, 9, 12, 15, 18, 21)));
}
V vec v_keep(vec v, int i, int lo, int hi, float fill)
{
    __m512i lane =
        _mm512_add_epi32(_mm512_set1_epi32(i), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask16 in = _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(lo));
    in = _mm512_mask_cmplt_epi32_mask(in, lane, _mm512_set1_epi32(hi));
    return _mm512_mask_blend_ps(in, _mm512_set1_ps(fill), v);
}

/* e^x for x <= 0: x = k ln 2 + r, |r| <= ln 2 / 2, Taylor of degree 6 (relative error below 2e-7 with rounding). */
V vec v_exp(vec x)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-150.0f)); /* the result is zero from -104 on */
    vec k = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p0f)), 8);
    vec r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    vec p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, k);
}

#include "compute/cpu/attn_simd.inc"

#include "compute/cpu/attn_rebuild.inc"

const attn_simd attn_simd_avx512 = {
    .score = score, .value = value, .turn = turn, .score_values = score_values, .softmax = softmax, .centre = centre};

static void split_avx512(const attn_work *w, const attn_row *row, int kv_head, int split, float *part)
{
    attn_drive_split(&attn_simd_avx512, w, row, kv_head, split, part);
}

static void rows_avx512(const attn_work *w, const attn_row *rows, int n_rows, int kv_head)
{
    attn_drive_rows(&attn_simd_avx512, w, rows, n_rows, kv_head);
}

static void probe_avx512(const attn_work *w, const attn_row *row, int kv_head, float *z, float *means, int n_means)
{
    attn_drive_probe(&attn_simd_avx512, w, row, kv_head, z, means, n_means);
}

attn_kernels attn_avx512(void)
{
    return (attn_kernels){.split = split_avx512, .rows = rows_avx512, .probe = probe_avx512, .centre = centre};
}
