#include <immintrin.h>

#include "compute/cpu/ceiling.h"

enum { CHAINS = 6 };

uint32_t int_dot_avx2(uint32_t rounds, uint32_t *macs_per_round)
{
    __m256i sum[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < CHAINS; i++) sum[i] = _mm256_setzero_si256();
    for (uint32_t r = 0; r < rounds; r++) {
#pragma GCC unroll 6
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        __asm__ volatile("" : "+x"(a), "+x"(b)); /* or the compiler would do one round only */
    }
    __m256i total = sum[0];
    for (int i = 1; i < CHAINS; i++) total = _mm256_add_epi32(total, sum[i]);
    *macs_per_round = CHAINS * 32;
    return (uint32_t)_mm256_extract_epi32(_mm256_hadd_epi32(total, total), 0);
}
