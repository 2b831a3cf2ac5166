/* bench_sparse: one row of sparse attention (choice, attention, certificate) beside the same row dense, in turns, in
 * processor time: the median of their ratios. bench_sparse [keys=65536] [set=best|avx2|avx512|ref]. Head dimension 512,
 * 8 query heads on one KV head, the default rule (mass 0.999), summaries made before.
 *
 * Keys of a block are a topic and noise; each head's logits are normal around the topics (standard deviations 2 and 1),
 * and all heads look at the first key. Its logit decides how much of the softmax the other blocks have, and so how many
 * must be read: where attention is spread out, all of them. `read` is the share of blocks that are read, `bytes` what
 * is read of keys, values and summaries in all, as a share of dense. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "compute/cpu/attn_select.h"
#include "compute/cpu/attn_simd.h"

enum { DIM = 512, HEADS = 8, PAIRS = 15 };

static const sparse_rule rule = {SPARSE_MASS, .threshold = 1e-3f, .sink = 2, .window = 8, .cap = 0.5f, .hard = 1};

typedef struct bench {
    attn_kernels kernels;
    attn_layer layer;
    attn_work work;
    attn_row row;
    int n_keys;
    int32_t *table;
    uint8_t *mask, *summaries;
    float *select, q[HEADS * DIM], common[DIM], out[HEADS * DIM], state[2 * HEADS];
} bench;

/* Of this thread: on a shared machine the others take none of it. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fill(bench *b, rng *r)
{
    static float topic[DIM], x[DIM];
    for (int i = 0; i < b->n_keys; i++) {
        for (int j = 0; j < DIM; j++) {
            if (i % KV_PAGE_LEN == 0) topic[j] = (float)rng_normal(r);
            x[j] = topic[j] + 0.5f * (float)rng_normal(r);
        }
        attn_put_k(&b->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
        for (int j = 0; j < DIM; j++) x[j] = (float)rng_normal(r);
        attn_put_v(&b->layer, i / KV_PAGE_LEN, i % KV_PAGE_LEN, 0, x);
    }
    for (int i = 0; i < DIM; i++) b->common[i] = (float)rng_normal(r) / sqrtf(DIM);
    for (int h = 0; h < HEADS; h++) { /* what is a head's own is orthogonal to what is common to all */
        float *q = b->q + h * DIM, dot = 0, norm = 0;
        for (int i = 0; i < DIM; i++) q[i] = 2 * (float)rng_normal(r) / sqrtf(DIM);
        for (int i = 0; i < DIM; i++) dot += q[i] * b->common[i], norm += b->common[i] * b->common[i];
        for (int i = 0; i < DIM; i++) q[i] += b->common[i] * (1 - dot / norm);
    }
    for (int32_t p = 0; p < b->n_keys / KV_PAGE_LEN; p++) attn_summary_make(&b->layer, NULL, p, p, b->work.scratch);
}

static void put_sink(bench *b, float logit)
{
    float key[DIM], norm = 0;
    for (int i = 0; i < DIM; i++) norm += b->common[i] * b->common[i];
    for (int i = 0; i < DIM; i++) key[i] = b->common[i] * logit / norm;
    attn_put_k(&b->layer, 0, 0, 0, key);
}

static double dense(bench *b)
{
    const uint64_t t0 = cpu_ns();
    b->row.blocks = NULL;
    b->kernels.rows(&b->work, &b->row, 1, 0);
    return (double)(cpu_ns() - t0) * 1e-3;
}

static double sparse(bench *b, attn_choice *choice, float *certified)
{
    attn_left_out left[HEADS];
    const uint64_t t0 = cpu_ns();
    attn_select(&b->work, &b->kernels, &rule, &b->row, 0, b->select, b->mask, left, choice);
    b->row.blocks = b->mask;
    b->kernels.rows(&b->work, &b->row, 1, 0);
    *certified = 0;
    for (int h = 0; h < HEADS; h++)
        *certified = fmaxf(*certified, attn_dropped(b->state + 2 * h, left[h].bound, left[h].slack));
    return (double)(cpu_ns() - t0) * 1e-3;
}

/* Of the worst head, by the softmax of what was left out. */
static float measured(bench *b)
{
    uint8_t *rest = mem_alloc((size_t)b->n_keys / ATTN_SPLIT + 1);
    float z[2 * HEADS], worst = 0;
    attn_row row = b->row;
    const int32_t n = attn_complement(&row, b->mask, rest);
    row.blocks = rest;
    if (n) b->kernels.probe(&b->work, &row, 0, z, NULL, 0);
    for (int h = 0; h < HEADS && n; h++)
        worst = fmaxf(worst, attn_dropped(b->state + 2 * h, z[2 * h] + logf(z[2 * h + 1]), 0));
    mem_free(rest);
    return worst;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run_case(bench *b, float sink)
{
    double ratio[PAIRS], whole[PAIRS], part[PAIRS];
    attn_choice c;
    float certified;
    put_sink(b, sink);
    for (int i = -1; i < PAIRS; i++) { /* the first to warm up */
        const double d = dense(b), s = sparse(b, &c, &certified);
        if (i >= 0) whole[i] = d, part[i] = s, ratio[i] = d / s;
    }
    const double summary = (double)kv_layer_summary_bytes(&b->layer.desc) / (double)b->layer.page_bytes;
    const double share = (double)c.n_selected / c.n_blocks, probed = (double)c.n_probed / c.n_blocks / 2;
    qsort(ratio, PAIRS, sizeof *ratio, by_value);
    qsort(whole, PAIRS, sizeof *whole, by_value);
    qsort(part, PAIRS, sizeof *part, by_value);
    printf("%8s %5.0f %7.1f %% %7.1f %% %9.0f %9.0f %7.2f %10.1e %10.1e\n", kv_type_get(b->layer.desc.k_type)->name,
           (double)sink, 100 * share, 100 * (share + probed + summary), whole[PAIRS / 2], part[PAIRS / 2],
           ratio[PAIRS / 2], (double)measured(b), (double)certified);
    fflush(stdout);
}

static void run_type(bench *b, kv_type type)
{
    static const float sinks[] = {18, 20, 22, 24};
    const size_t pages = (size_t)b->n_keys / KV_PAGE_LEN;
    b->layer = (attn_layer){.desc = {.n_kv_heads = 1, .head_dim = DIM, .k_type = type, .v_type = type}};
    b->layer.desc.has_summaries = true;
    b->layer.page_bytes = kv_layer_page_bytes(&b->layer.desc);
    const size_t bytes = b->layer.page_bytes * pages, summary = kv_layer_summary_bytes(&b->layer.desc) * pages;
    const size_t scratch = attn_scratch_floats(HEADS, 1, DIM, false) * sizeof(float);
    b->layer.pages = mem_map(bytes);
    b->summaries = mem_map(summary);
    b->work = (attn_work){.layer = &b->layer, .n_heads = HEADS, .scale = 1, .scratch = mem_map(scratch)};
    attn_summary_place(&b->layer, b->summaries, (int32_t)pages);
    b->select = mem_alloc(attn_select_floats(HEADS, DIM, (int64_t)pages) * sizeof *b->select);
    b->mask = mem_alloc(pages / ATTN_SPLIT_BLOCKS + 1);
    b->table = mem_alloc(pages * sizeof *b->table);
    for (size_t i = 0; i < pages; i++) b->table[i] = (int32_t)i;
    b->row = (attn_row){.table = b->table, .pos = b->n_keys - 1, .base = b->n_keys, .q = b->q, .out = b->out};
    b->row.state = b->state;
    rng r;
    rng_seed(&r, 1);
    fill(b, &r);
    for (size_t i = 0; i < sizeof sinks / sizeof *sinks; i++) run_case(b, sinks[i]);
    mem_free(b->table);
    mem_free(b->mask);
    mem_free(b->select);
    mem_unmap(b->work.scratch, scratch);
    mem_unmap(b->summaries, summary);
    mem_unmap(b->layer.pages, bytes);
}

int main(int argc, char **argv)
{
    static bench b;
    const char *set = argc > 2 ? argv[2] : "best";
    b.n_keys = argc > 1 ? atoi(argv[1]) : 65536;
    if (b.n_keys < 2048 || b.n_keys % KV_PAGE_LEN) {
        fprintf(stderr, "usage: bench_sparse [keys, a multiple of %d] [best|avx2|avx512|ref]\n", KV_PAGE_LEN);
        return 1;
    }
    b.kernels = strcmp(set, "ref") == 0 ? attn_ref() : attn_best(KV_F16, KV_F16);
#if defined(__x86_64__)
    if (strcmp(set, "avx2") == 0) b.kernels = attn_avx2();
    if (strcmp(set, "avx512") == 0) b.kernels = attn_avx512();
#endif
    printf("%d keys, set %s\n%8s %5s %9s %9s %9s %9s %7s %10s %10s\n", b.n_keys, set, "type", "sink", "read", "bytes",
           "dense us", "sparse us", "ratio", "dropped", "certified");
    for (int type = 0; type < KV_TYPE_COUNT; type++) run_type(&b, (kv_type)type);
    return 0;
}
