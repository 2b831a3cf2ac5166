/* bench_attn: attention over a paged cache. For each shape: microseconds for all query heads of one KV head, cache
 * bytes per second, arithmetic, and the price of n rows in units of one. bench_attn [threads=1] [keys=4096]
 * [set=best|avx2|avx512|ref] One row is cut by splits (as a plan would), several rows by rows when there are enough of
 * them. The cache is larger than the processor's, and every repetition reads another copy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/team.h"
#include "compute/cpu/attn_simd.h"

enum { CACHE_BYTES = 256 << 20, SPAN_MS = 200, MIN_REPS = 5, MAX_ROWS = 64, MAX_THREADS = 64 };

typedef struct bench {
    attn_kernels kernels;
    attn_layer layer;
    int n_heads, n_keys, n_rows, n_copies;
    int32_t *tables; /* [n_copies][pages] */
    float *q, *out, *parts, *scratch[MAX_THREADS];
    attn_row rows[MAX_ROWS];
    team *team;
} bench;

static void work_of(const bench *b, int thread, attn_work *w)
{
    *w = (attn_work){.layer = &b->layer, .n_heads = b->n_heads, .scale = 1.0f, .scratch = b->scratch[thread]};
}

static void by_rows(void *arg, int thread, int n_threads)
{
    bench *b = arg;
    attn_work w;
    work_of(b, thread, &w);
    int begin = b->n_rows * thread / n_threads, end = b->n_rows * (thread + 1) / n_threads;
    b->kernels.rows(&w, b->rows + begin, end - begin, 0);
}

static void by_splits(void *arg, int thread, int n_threads)
{
    bench *b = arg;
    attn_work w;
    work_of(b, thread, &w);
    int n = b->n_keys / ATTN_SPLIT, dim = b->layer.desc.head_dim;
    size_t part = (size_t)dim + 2, split = part * (size_t)b->n_heads, row = split * (size_t)n;
    for (int s = n * thread / n_threads; s < n * (thread + 1) / n_threads; s++)
        for (int r = 0; r < b->n_rows; r++)
            b->kernels.split(&w, &b->rows[r], 0, s, b->parts + (size_t)r * row + (size_t)s * split);
    team_barrier(b->team);
    for (int i = thread; i < b->n_rows * b->n_heads; i += n_threads) {
        size_t r = (size_t)(i / b->n_heads), h = (size_t)(i % b->n_heads);
        attn_fold(b->parts + r * row + h * part, n, split, dim, kv_type_get(b->layer.desc.v_type)->is_rotated,
                  b->rows[r].out + h * (size_t)dim);
    }
}

/* Microseconds of the best run within SPAN_MS: on a shared machine the others only add time. */
static double measure(bench *b, int n_rows)
{
    double best = INFINITY;
    int pages = b->n_keys / KV_PAGE_LEN, copy = 0;
    bool use_splits = team_size(b->team) > 1 && n_rows < 2 * team_size(b->team);
    b->n_rows = n_rows;
    uint64_t begin = clock_ns();
    for (int i = 0; i < MIN_REPS || clock_ns() - begin < SPAN_MS * 1000000u; i++, copy = (copy + 1) % b->n_copies) {
        for (int r = 0; r < n_rows; r++) b->rows[r].table = b->tables + copy * pages;
        uint64_t start = clock_ns();
        team_run(b->team, use_splits ? by_splits : by_rows, b);
        best = fmin(best, (double)(clock_ns() - start) * 1e-3);
    }
    return best;
}

static void fill(bench *b, rng *r)
{
    int dim = b->layer.desc.head_dim, pages = b->n_keys / KV_PAGE_LEN;
    float *x = mem_alloc((size_t)dim * sizeof *x);
    for (int i = 0; i < b->n_keys; i++) {
        for (int j = 0; j < dim; j++) x[j] = (float)rng_normal(r);
        attn_put_k(&b->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
        for (int j = 0; j < dim; j++) x[j] = (float)rng_normal(r);
        attn_put_v(&b->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
    }
    mem_free(x);
    size_t bytes = b->layer.page_bytes * (size_t)pages;
    for (int c = 1; c < b->n_copies; c++) memcpy(b->layer.pages + (size_t)c * bytes, b->layer.pages, bytes);
    for (int i = 0; i < b->n_copies * pages; i++) b->tables[i] = i;
}

static void run_shape(bench *b, int head_dim, kv_type type, int n_heads)
{
    static const int rows[] = {1, 2, 4, 8, 16, 64};
    b->layer.desc = (kv_layer_desc){.n_kv_heads = 1, .head_dim = head_dim, .k_type = type, .v_type = type};
    b->layer.page_bytes = kv_layer_page_bytes(&b->layer.desc);
    b->n_heads = n_heads;
    size_t pages = (size_t)b->n_keys / KV_PAGE_LEN, bytes = b->layer.page_bytes * pages;
    b->n_copies = (int)(CACHE_BYTES / bytes) + 1;
    size_t total = bytes * (size_t)b->n_copies, row = (size_t)n_heads * (size_t)head_dim;
    size_t parts = MAX_ROWS * (row + 2 * (size_t)n_heads) * (size_t)b->n_keys / ATTN_SPLIT;
    b->layer.pages = mem_map(total);
    b->tables = mem_calloc((size_t)b->n_copies * pages, sizeof *b->tables);
    b->q = mem_map(MAX_ROWS * row * sizeof *b->q);
    b->out = mem_map(MAX_ROWS * row * sizeof *b->out);
    b->parts = mem_map(parts * sizeof *b->parts);
    size_t scratch = attn_scratch_floats(n_heads, 1, head_dim, false) * sizeof(float);
    for (int i = 0; i < team_size(b->team); i++) b->scratch[i] = mem_map(scratch);
    rng r;
    rng_seed(&r, 1);
    fill(b, &r);
    for (size_t i = 0; i < MAX_ROWS * row; i++) b->q[i] = (float)rng_normal(&r) * 3 / sqrtf((float)head_dim);
    for (size_t i = 0; i < MAX_ROWS; i++)
        b->rows[i] = (attn_row){.pos = b->n_keys - 1, .base = b->n_keys, .q = b->q + i * row, .out = b->out + i * row};
    double one = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double us = measure(b, rows[i]);
        if (i == 0) one = us;
        printf("%4d %5s %6d %5d %10.1f %7.1f %8.1f %6.2f\n", head_dim, kv_type_get(type)->name, n_heads, rows[i], us,
               (double)bytes / us * 1e-3, 4e-3 * rows[i] * (double)row * b->n_keys / us, us / one);
        fflush(stdout);
    }
    mem_unmap(b->layer.pages, total);
    mem_free(b->tables);
    mem_unmap(b->q, MAX_ROWS * row * sizeof *b->q);
    mem_unmap(b->out, MAX_ROWS * row * sizeof *b->out);
    mem_unmap(b->parts, parts * sizeof *b->parts);
    for (int i = 0; i < team_size(b->team); i++) mem_unmap(b->scratch[i], scratch);
}

int main(int argc, char **argv)
{
    static bench b;
    int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    const char *set = argc > 3 ? argv[3] : "best";
    b.n_keys = argc > 2 ? atoi(argv[2]) : 4096;
    b.kernels = strcmp(set, "ref") == 0 ? attn_ref() : attn_best(KV_F16, KV_F16);
#if defined(__x86_64__)
    if (strcmp(set, "avx2") == 0) b.kernels = attn_avx2();
    if (strcmp(set, "avx512") == 0) b.kernels = attn_avx512();
#endif
    facet_error err;
    if (n_threads > MAX_THREADS || b.n_keys < ATTN_SPLIT || b.n_keys % ATTN_SPLIT ||
        team_open(n_threads, &b.team, &err) != FACET_OK) {
        fprintf(stderr, "usage: bench_attn [threads] [keys, a multiple of %d] [best|avx2|avx512|ref]\n", ATTN_SPLIT);
        return 1;
    }
    printf("%s, set %s, %d threads, %d keys, 1 KV head\n%4s %5s %6s %5s %10s %7s %8s %6s\n", cpu_features_text(), set,
           n_threads, b.n_keys, "dim", "type", "heads", "rows", "us", "GB/s", "GFLOP/s", "t/t1");
    for (int head_dim = 256; head_dim <= 512; head_dim *= 2)
        for (int type = 0; type < KV_TYPE_COUNT; type++)
            for (int n_heads = 8; n_heads >= 2; n_heads -= 6) run_shape(&b, head_dim, (kv_type)type, n_heads);
    team_close(b.team);
    return 0;
}
