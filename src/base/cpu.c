#define _GNU_SOURCE
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cpu_feature_set features;
static char text[64];
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned cpuid_bits(unsigned leaf, unsigned sub, int reg)
{
    unsigned r[4] = {0};
    __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]);
    return r[reg];
}

/* XCR0: which register state the operating system saves. */
static unsigned os_saved_state(void)
{
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static void detect(void)
{
    unsigned c1 = cpuid_bits(1, 0, 2), b7 = cpuid_bits(7, 0, 1), c7 = cpuid_bits(7, 0, 2), a71 = cpuid_bits(7, 1, 0);
    if (!(c1 & bit_OSXSAVE)) return;
    unsigned xcr0 = os_saved_state();
    bool ymm = (xcr0 & 6) == 6, zmm = (xcr0 & 0xe6) == 0xe6;
    features.avx2 = ymm && (b7 & bit_AVX2) && (b7 & bit_BMI2) && (c1 & bit_FMA) && (c1 & bit_F16C);
    features.avx512 = features.avx2 && zmm && (b7 & bit_AVX512F) && (b7 & bit_AVX512BW) && (b7 & bit_AVX512VL) &&
                      (b7 & bit_AVX512DQ) && (b7 & bit_AVX512CD);
    features.avx512_vnni = features.avx512 && (c7 & bit_AVX512VNNI);
    features.avx512_bf16 = features.avx512 && (a71 & (1u << 5));
    features.avx_vnni = features.avx2 && (a71 & (1u << 4));
}
#else
static void detect(void)
{
}
#endif

static void init(void)
{
    detect();
    const char *wish = getenv("FACET_CPU");
    if (wish && strcmp(wish, "scalar") == 0) features = (cpu_feature_set){0};
    if (wish && strcmp(wish, "avx2") == 0) features = (cpu_feature_set){.avx2 = features.avx2};
    snprintf(text, sizeof text, "%s%s%s%s",
             features.avx512 ? "avx512"
             : features.avx2 ? "avx2"
                             : "scalar",
             features.avx512_vnni ? " vnni" : "", features.avx512_bf16 ? " bf16" : "",
             features.avx_vnni ? " avx-vnni" : "");
}

const cpu_feature_set *cpu_features(void)
{
    pthread_once(&once, init);
    return &features;
}

const char *cpu_features_text(void)
{
    pthread_once(&once, init);
    return text;
}

int cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
