/* linear_vec_avx2.h: the vector that linear_block.h and linear_float.h are written on: 8 rows, half a tile, at once. */
#ifndef FACET_COMPUTE_CPU_LINEAR_VEC_AVX2_H
#define FACET_COMPUTE_CPU_LINEAR_VEC_AVX2_H

#include <immintrin.h>

#include "compute/cpu/linear_tile.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { LANES = 8, MAX_WIDTH = 4, MAX_FLOAT_WIDTH = 3 };

/* Operators of the language work lane by lane on these; shifts, comparisons and conversions too. */
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint16_t vu16 __attribute__((vector_size(32)));

ALWAYS_INLINE vi load_codes(const uint8_t *p)
{
    return (vi)_mm256_load_si256((const __m256i *)(const void *)p);
}
ALWAYS_INLINE vi load_words(const uint8_t *p)
{
    return load_codes(p);
}
ALWAYS_INLINE vi load_lanes_u8(const uint8_t *p)
{
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vi load_lanes_i8(const uint8_t *p)
{
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vi load_lanes_u16(const uint8_t *p)
{
    return (vi)_mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vf load_lanes_f16(const uint8_t *p)
{
    return (vf)_mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vf load_lanes_f32(const uint8_t *p)
{
    return (vf)_mm256_load_ps((const float *)(const void *)p);
}
ALWAYS_INLINE void store_lanes(float *p, vf v)
{
    _mm256_storeu_ps(p, (__m256)v);
}
ALWAYS_INLINE vf set_f32(float x)
{
    return (vf)_mm256_set1_ps(x);
}
ALWAYS_INLINE vi set_i32(int32_t x)
{
    return (vi)_mm256_set1_epi32(x);
}
ALWAYS_INLINE vf fma_lanes(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
ALWAYS_INLINE vf to_f32(vi a)
{
    return (vf)_mm256_cvtepi32_ps((__m256i)a);
}
ALWAYS_INLINE vf as_f32(vi a)
{
    return (vf)a;
}

/* (a & mask) | b */
ALWAYS_INLINE vi merge_bits(vi a, vi mask, vi b)
{
    return (a & mask) | b;
}

/* table[i] for each byte i < 16 */
ALWAYS_INLINE vi look_up(const uint8_t table[16], vi i)
{
    __m256i t = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)table));
    return (vi)_mm256_shuffle_epi8(t, (__m256i)i);
}

#endif
