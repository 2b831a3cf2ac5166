/* attn_world.h: a layer's pages, a page table and query rows with random content, for test_attn.c. */
#ifndef FACET_TESTS_ATTN_WORLD_H
#define FACET_TESTS_ATTN_WORLD_H

#include <math.h>

#include "base/rng.h"
#include "compute/cpu/attn.h"

typedef struct shape {
    int head_dim, n_kv_heads, heads_per_kv;
    kv_type k, v;
    int n_slots; /* of the sequence, filled with random keys and values */
} shape;

typedef struct attn_world {
    shape s;
    attn_layer layer;
    int32_t *table; /* [n_pages], random order */
    int n_pages;    /* the storage has three more */
    float *scratch;
} attn_world;

static inline float *world_floats(rng *r, size_t n, float sigma)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = sigma * (float)rng_normal(r);
    return x;
}

static inline int32_t world_page(const attn_world *w, int32_t slot)
{
    return w->table[slot / KV_PAGE_LEN];
}

static inline void world_put(const attn_world *w, rng *r, int32_t slot)
{
    for (int h = 0; h < w->s.n_kv_heads; h++) {
        float *x = world_floats(r, 2 * (size_t)w->s.head_dim, 1.0f);
        attn_put_k(&w->layer, world_page(w, slot), slot % KV_PAGE_LEN, h, x);
        attn_put_v(&w->layer, world_page(w, slot), slot % KV_PAGE_LEN, h, x + w->s.head_dim);
        free(x);
    }
}

/* Every slot that is not filled, in the sequence's pages and in the others, decodes to NaN or to huge values. */
static inline attn_world world_open(rng *r, shape s)
{
    attn_world w = {.s = s, .n_pages = (s.n_slots + KV_PAGE_LEN - 1) / KV_PAGE_LEN};
    w.layer.desc = (kv_layer_desc){.n_kv_heads = s.n_kv_heads, .head_dim = s.head_dim, .k_type = s.k, .v_type = s.v};
    w.layer.page_bytes = kv_layer_page_bytes(&w.layer.desc);
    int total = w.n_pages + 3;
    w.layer.pages = malloc(w.layer.page_bytes * (size_t)total);
    memset(w.layer.pages, 0xff, w.layer.page_bytes * (size_t)total);
    int32_t *order = malloc((size_t)total * sizeof *order);
    for (int i = 0; i < total; i++) order[i] = i;
    for (int i = total - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint32_t)i + 1);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    w.table = order;
    for (int32_t i = 0; i < s.n_slots; i++) world_put(&w, r, i);
    size_t n = attn_scratch_floats(s.n_kv_heads * s.heads_per_kv, s.n_kv_heads, s.head_dim, false);
    w.scratch = malloc(n * sizeof *w.scratch); /* exact: the address sanitizer watches the end */
    return w;
}

static inline void world_close(attn_world *w)
{
    free(w->layer.pages);
    free(w->table);
    free(w->scratch);
}

static inline size_t world_row_floats(const attn_world *w)
{
    return (size_t)w->s.n_kv_heads * (size_t)w->s.heads_per_kv * (size_t)w->s.head_dim;
}

static inline attn_work world_work(const attn_world *w, int window)
{
    return (attn_work){.layer = &w->layer,
                       .n_heads = w->s.n_kv_heads * w->s.heads_per_kv,
                       .window = window,
                       .scale = 0.9f,
                       .scratch = w->scratch};
}

/* Rows with random queries, whose scores have a standard deviation of about 2. */
typedef struct attn_rows {
    int n;
    size_t floats; /* of one row */
    attn_row *row;
    float *q, *out;
} attn_rows;

static inline attn_rows rows_open(const attn_world *w, rng *r, int n)
{
    attn_rows rows = {.n = n, .floats = world_row_floats(w)};
    rows.row = calloc((size_t)n, sizeof *rows.row);
    rows.q = world_floats(r, (size_t)n * rows.floats, 2.0f / sqrtf((float)w->s.head_dim));
    rows.out = malloc((size_t)n * rows.floats * sizeof *rows.out);
    for (int i = 0; i < n; i++) {
        rows.row[i] = (attn_row){.table = w->table,
                                 .pos = w->s.n_slots - 1,
                                 .base = w->s.n_slots,
                                 .q = rows.q + (size_t)i * rows.floats,
                                 .out = rows.out + (size_t)i * rows.floats};
    }
    return rows;
}

static inline void rows_close(attn_rows *r)
{
    free(r->row);
    free(r->q);
    free(r->out);
}

static inline void rows_run(attn_kernels k, const attn_work *work, const attn_row *row, int n)
{
    for (int h = 0; h < work->layer->desc.n_kv_heads; h++) k.rows(work, row, n, h);
}

/* The other way: split by split, then folded. */
static inline void splits_run(attn_kernels k, const attn_work *work, const attn_row *row)
{
    const kv_layer_desc *d = &work->layer->desc;
    int begin, end, n_heads = work->n_heads / d->n_kv_heads;
    attn_split_range(row, work->window, &begin, &end);
    size_t part = (size_t)d->head_dim + 2, stride = part * (size_t)n_heads;
    float *parts = malloc((size_t)(end - begin) * stride * sizeof *parts);
    for (int h = 0; h < d->n_kv_heads; h++) {
        for (int s = begin; s < end; s++) k.split(work, row, h, s, parts + (size_t)(s - begin) * stride);
        for (int i = 0; i < n_heads; i++)
            attn_fold(parts + (size_t)i * part, end - begin, stride, d->head_dim, kv_type_get(d->v_type)->is_rotated,
                      row->out + (size_t)(h * n_heads + i) * (size_t)d->head_dim);
    }
    free(parts);
}

#endif
