/* linear_vec_avx512.h: the vector that linear_block.h is written on: 16 rows of a tile at once. */
#ifndef FACET_COMPUTE_CPU_LINEAR_VEC_AVX512_H
#define FACET_COMPUTE_CPU_LINEAR_VEC_AVX512_H

#include <immintrin.h>

#include "compute/cpu/linear_tile.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { LANES = 16, MAX_WIDTH = 8, MAX_FLOAT_WIDTH = 6 };

/* Operators of the language work lane by lane on these; shifts, comparisons and conversions too. */
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vu16 __attribute__((vector_size(64)));

ALWAYS_INLINE vi load_codes(const uint8_t *p)
{
    return (vi)_mm512_load_si512(p);
}
ALWAYS_INLINE vi load_words(const uint8_t *p)
{
    return (vi)_mm512_load_si512(p);
}
ALWAYS_INLINE vi load_lanes_u8(const uint8_t *p)
{
    return (vi)_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vi load_lanes_i8(const uint8_t *p)
{
    return (vi)_mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(const void *)p));
}
ALWAYS_INLINE vi load_lanes_u16(const uint8_t *p)
{
    return (vi)_mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)(const void *)p));
}
ALWAYS_INLINE vf load_lanes_f16(const uint8_t *p)
{
    return (vf)_mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)p));
}
ALWAYS_INLINE vf load_lanes_f32(const uint8_t *p)
{
    return (vf)_mm512_load_ps(p);
}
ALWAYS_INLINE void store_lanes(float *p, vf v)
{
    _mm512_storeu_ps(p, (__m512)v);
}
ALWAYS_INLINE vf set_f32(float x)
{
    return (vf)_mm512_set1_ps(x);
}
ALWAYS_INLINE vi set_i32(int32_t x)
{
    return (vi)_mm512_set1_epi32(x);
}
ALWAYS_INLINE vf fma_lanes(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
ALWAYS_INLINE vf to_f32(vi a)
{
    return (vf)_mm512_cvtepi32_ps((__m512i)a);
}
ALWAYS_INLINE vf as_f32(vi a)
{
    return (vf)a;
}

/* (a & mask) | b */
ALWAYS_INLINE vi merge_bits(vi a, vi mask, vi b)
{
    return (vi)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)mask, (__m512i)b, 0xEA);
}

/* table[i] for each byte i < 16 */
ALWAYS_INLINE vi look_up(const uint8_t table[16], vi i)
{
    __m512i t = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)table));
    return (vi)_mm512_shuffle_epi8(t, (__m512i)i);
}

#endif
