/* bench_attn_rebuild.c: attention over a global layer whose keys are rebuilt, against one that stores them, in pairs:
 * the two take turns, so that what else the machine does falls on both. Heads of 512 dims of which 64 pairs turn. Times
 * are those of the thread, not of the clock on the wall: others may have the processor meanwhile.
 *
 *     bench_attn_rebuild [keys, a multiple of 512] [query heads per KV head] [best|avx2|avx512]
 *
 * us: median; ratio: median over the pairs of time rebuilt / time stored; MiB: what a pass over the keys reads of the
 * cache. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "compute/cpu/attn_rebuild.h"
#include "compute/cpu/attn_simd.h"

enum { DIM = 512, N_ROT = 64, MAX_ROWS = 16, MIN_PAIRS = 15, MAX_PAIRS = 400, SPAN_MS = 400 };
static const size_t CACHE_BYTES = (size_t)192 << 20; /* copies of the pages, so that no run finds its own in a cache */

typedef struct side {
    attn_layer layer;
    size_t bytes; /* of the sequence */
    int n_copies;
    int32_t *tables;
    attn_work work;
} side;

typedef struct bench {
    int n_keys, n_heads;
    attn_kernels kernels;
    double inv_freq[N_ROT];
    float norm[DIM];
    attn_rebuild rebuild;
    attn_row rows[MAX_ROWS];
} bench;

static void fill(const bench *b, side *s, rng *r)
{
    float x[DIM];
    const int pages = b->n_keys / KV_PAGE_LEN;
    for (int i = 0; i < b->n_keys; i++) {
        for (int j = 0; j < DIM; j++) x[j] = (float)rng_normal(r);
        attn_put_v(&s->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
        if (!s->layer.desc.rebuilds_k) attn_put_k(&s->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
    }
    for (int c = 1; c < s->n_copies; c++) memcpy(s->layer.pages + (size_t)c * s->bytes, s->layer.pages, s->bytes);
    for (int i = 0; i < s->n_copies * pages; i++) s->tables[i] = i;
}

static side side_open(const bench *b, kv_type type, bool rebuilds_k)
{
    side s = {.layer.desc = {.n_kv_heads = 1, .head_dim = DIM, .k_type = type, .v_type = type}};
    rng r;
    rng_seed(&r, 1);
    if (rebuilds_k) kv_layer_rebuild_k(&s.layer.desc);
    s.layer.page_bytes = kv_layer_page_bytes(&s.layer.desc);
    s.bytes = s.layer.page_bytes * (size_t)(b->n_keys / KV_PAGE_LEN);
    s.n_copies = (int)(CACHE_BYTES / s.bytes) + 1;
    s.layer.pages = mem_map(s.bytes * (size_t)s.n_copies);
    s.tables = mem_calloc((size_t)(s.n_copies * b->n_keys / KV_PAGE_LEN), sizeof *s.tables);
    s.work = (attn_work){.n_heads = b->n_heads,
                         .scale = 1.0f,
                         .scratch = mem_map(attn_scratch_floats(b->n_heads, 1, DIM, rebuilds_k) * sizeof(float)),
                         .rebuild = rebuilds_k ? &b->rebuild : NULL};
    fill(b, &s, &r);
    return s;
}

static void side_close(const bench *b, side *s)
{
    mem_unmap(s->layer.pages, s->bytes * (size_t)s->n_copies);
    mem_unmap(s->work.scratch,
              attn_scratch_floats(b->n_heads, 1, DIM, s->layer.desc.rebuilds_k) * sizeof *s->work.scratch);
    mem_free(s->tables);
}

static double thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static double once(bench *b, side *s, int n_rows, int i)
{
    for (int r = 0; r < n_rows; r++) b->rows[r].table = s->tables + i % s->n_copies * (b->n_keys / KV_PAGE_LEN);
    s->work.layer = &s->layer;
    const double start = thread_us();
    b->kernels.rows(&s->work, b->rows, n_rows, 0);
    return thread_us() - start;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

static void compare(bench *b, kv_type type)
{
    static const int n_rows[] = {1, 4, 16};
    side stored = side_open(b, type, false), alone = side_open(b, type, true);
    for (size_t k = 0; k < sizeof n_rows / sizeof *n_rows; k++) {
        double us[2][MAX_PAIRS], ratio[MAX_PAIRS], spent = 0;
        int n = 0;
        while (n < MAX_PAIRS && (n < MIN_PAIRS || spent < SPAN_MS * 1e3)) {
            us[0][n] = once(b, &stored, n_rows[k], n);
            us[1][n] = once(b, &alone, n_rows[k], n);
            spent += us[0][n] + us[1][n];
            ratio[n] = us[1][n] / us[0][n];
            n++;
        }
        printf("%-9s %5d %8.2f %8.2f %10.0f %10.0f %7.2f %6d\n", kv_type_get(type)->name, n_rows[k],
               (double)stored.bytes / 0x1p20, (double)alone.bytes / 0x1p20, median(us[0], n), median(us[1], n),
               median(ratio, n), n);
        fflush(stdout);
    }
    side_close(b, &stored);
    side_close(b, &alone);
}

static void open_rows(bench *b, float *q, float *out)
{
    rng r;
    rng_seed(&r, 2);
    const size_t each = (size_t)b->n_heads * DIM;
    for (size_t i = 0; i < MAX_ROWS * each; i++) q[i] = (float)rng_normal(&r) * 3 / sqrtf((float)DIM);
    for (size_t i = 0; i < MAX_ROWS; i++)
        b->rows[i] = (attn_row){.pos = b->n_keys - 1, .base = b->n_keys, .q = q + i * each, .out = out + i * each};
}

int main(int argc, char **argv)
{
    static bench b;
    const char *set = argc > 3 ? argv[3] : "best";
    b.n_keys = argc > 1 ? atoi(argv[1]) : 4096;
    b.n_heads = argc > 2 ? atoi(argv[2]) : 8;
    if (b.n_keys < ATTN_SPLIT || b.n_keys % ATTN_SPLIT || b.n_heads < 1 || b.n_heads > 64) {
        fprintf(stderr,
                "usage: bench_attn_rebuild [keys, a multiple of %d] [query heads, 1 to 64] [best|avx2|avx512]\n",
                ATTN_SPLIT);
        return 1;
    }
    b.kernels = attn_best(KV_F16, KV_F16);
#if defined(__x86_64__)
    if (strcmp(set, "avx2") == 0) b.kernels = attn_avx2();
    if (strcmp(set, "avx512") == 0) b.kernels = attn_avx512();
#endif
    for (int i = 0; i < N_ROT; i++) b.inv_freq[i] = pow(1e6, -2.0 * i / DIM);
    for (int i = 0; i < DIM; i++) b.norm[i] = 1 + 0.25f * (float)(i % 3);
    const size_t bytes = (size_t)MAX_ROWS * (size_t)b.n_heads * DIM * sizeof(float);
    float *q = mem_map(bytes), *out = mem_map(bytes);
    open_rows(&b, q, out);
    printf("set %s, 1 thread, %d keys, %d query heads on 1 KV head of %d\n%-9s %5s %8s %8s %10s %10s %7s %6s\n", set,
           b.n_keys, b.n_heads, DIM, "type", "rows", "MiB", "rebuilt", "us", "rebuilt", "ratio", "pairs");
    for (int t = 0; t < KV_TYPE_COUNT; t++) {
        const int n_turn = attn_rebuild_turns(DIM, N_ROT, (kv_type)t);
        void *tables = mem_alloc(attn_rebuild_bytes(n_turn));
        b.rebuild =
            (attn_rebuild){.norm = b.norm, .inv_freq = b.inv_freq, .head_dim = DIM, .n_rot = N_ROT, .n_turn = n_turn};
        attn_rebuild_init(&b.rebuild, tables);
        compare(&b, (kv_type)t);
        mem_free(tables);
    }
    mem_unmap(q, bytes);
    mem_unmap(out, bytes);
    return 0;
}
