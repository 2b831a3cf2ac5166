/* attn_sets.h: the sets of attention kernels that this processor runs, and the types and distances of their tests. */
#ifndef FACET_TESTS_COMPUTE_ATTN_SETS_H
#define FACET_TESTS_COMPUTE_ATTN_SETS_H

#include <math.h>

#include "base/cpu.h"
#include "compute/cpu/attn_simd.h"

typedef struct kernel_set {
    const char *name;
    attn_kernels kernels;
    const attn_simd *simd; /* NULL: the reference, which comes first */
} kernel_set;
static kernel_set sets[3];
static int n_sets;

/* A cmocka group setup. */
static inline int list_sets(void **state)
{
    (void)state;
    sets[n_sets++] = (kernel_set){"ref", attn_ref(), NULL};
#if defined(__x86_64__)
    if (cpu_features()->avx2) sets[n_sets++] = (kernel_set){"avx2", attn_avx2(), &attn_simd_avx2};
    if (cpu_features()->avx512) sets[n_sets++] = (kernel_set){"avx512", attn_avx512(), &attn_simd_avx512};
#endif
    return 0;
}

static const kv_type TYPES[] = {KV_F16, KV_Q8_0, KV_F32, KV_Q4_0, KV_TQ3_0, KV_ROT_Q8_0, KV_ROT_Q4_0};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

/* Relative rms distance. */
static inline double distance(const float *got, const float *want, size_t n)
{
    double e = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        e += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return sqrt(e / w);
}

#endif
