/* cpu.h: what this processor can do. */
#ifndef FACET_BASE_CPU_H
#define FACET_BASE_CPU_H

#include <stdbool.h>

typedef struct cpu_feature_set {
    bool avx2;   /* AVX2, FMA, F16C, BMI2 */
    bool avx512; /* F, BW, VL, DQ, CD */
    bool avx512_vnni;
    bool avx512_bf16;
    bool avx_vnni;
} cpu_feature_set;

/* Asked once from CPUID and the operating system's saved state; FACET_CPU=scalar|avx2|avx512 in the environment lowers
 * it (for tests). */
const cpu_feature_set *cpu_features(void);

/* "avx512 vnni bf16", for --version and benches. */
const char *cpu_features_text(void);

/* Processors that this process may run on. */
int cpu_count(void);

#endif
