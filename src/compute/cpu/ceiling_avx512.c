#include <immintrin.h>

#include "compute/cpu/ceiling.h"

enum { CHAINS = 12 };

uint32_t int_dot_avx512(uint32_t rounds, uint32_t *macs_per_round)
{
    __m512i sum[CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_setzero_si512();
    for (uint32_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b)); /* or the compiler would do one round only */
    }
    __m512i total = sum[0];
    for (int i = 1; i < CHAINS; i++) total = _mm512_add_epi32(total, sum[i]);
    *macs_per_round = CHAINS * 64;
    return (uint32_t)_mm512_cvtsi512_si32(total); /* any part of it keeps the loop alive */
}
