#include "compute/cpu/ceiling.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

enum { READ_BYTES = 256 << 20, REPEATS = 9, DOT_ROUNDS = 1000000 };

typedef struct job {
    const uint8_t *data;
    int_dot_fn dot;
    uint32_t macs_per_round;
    atomic_uint sink; /* keeps the loops alive */
} job;

/* One word of each cache line: the line is moved all the same, and nothing else bounds the loop. */
static void read_all(void *arg, int thread, int n_threads)
{
    job *j = arg;
    const size_t share = READ_BYTES / (size_t)n_threads / 256 * 256;
    const uint8_t *p = j->data + (size_t)thread * share, *end = p + share;
    uint64_t s[4] = {0};
    for (; p < end; p += 256)
        for (int i = 0; i < 4; i++) {
            __builtin_prefetch(p + 8192 + 64 * i);
            uint64_t word;
            memcpy(&word, p + 64 * i, sizeof word);
            s[i] += word;
        }
    atomic_fetch_add(&j->sink, (unsigned)(s[0] + s[1] + s[2] + s[3]));
}

static void dot_all(void *arg, int thread, int n_threads)
{
    (void)thread, (void)n_threads;
    job *j = arg;
    uint32_t macs;
    atomic_fetch_add(&j->sink, j->dot(DOT_ROUNDS, &macs));
    if (thread == 0) j->macs_per_round = macs;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(team *t, team_fn fn, job *j)
{
    double s[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        const uint64_t t0 = clock_ns();
        team_run(t, fn, j);
        s[i] = (double)(clock_ns() - t0) * 1e-9;
    }
    qsort(s, REPEATS, sizeof *s, by_value);
    return s[REPEATS / 2];
}

static int_dot_fn best_int_dot(void)
{
#if defined(__x86_64__)
    const cpu_feature_set *f = cpu_features();
    if (f->avx512 && f->avx512_vnni) return int_dot_avx512;
    if (f->avx2) return int_dot_avx2;
#endif
    return NULL;
}

facet_status cpu_measure_ceilings(team *t, backend_ceilings *out, facet_error *err)
{
    const size_t bytes = READ_BYTES + 16384; /* the prefetch runs ahead */
    uint8_t *data = mem_map(bytes);
    if (!data) return error_memory(err, "the read test", bytes);
    memset(data, 1, bytes);
    job j = {.data = data, .dot = best_int_dot()};
    out->read_gbps = READ_BYTES * 1e-9 / median_seconds(t, read_all, &j);
    out->dot_gops = 0;
    if (j.dot) {
        const double s = median_seconds(t, dot_all, &j);
        out->dot_gops = 2e-9 * j.macs_per_round * DOT_ROUNDS * team_size(t) / s;
    }
    mem_unmap(data, bytes);
    return FACET_OK;
}
