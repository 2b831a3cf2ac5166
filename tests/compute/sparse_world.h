/* sparse_world.h: a layer's pages with summaries, keys that gather around topics, and the truth in float64. */
#ifndef FACET_TESTS_SPARSE_WORLD_H
#define FACET_TESTS_SPARSE_WORLD_H

#include "compute/attn_world.h"
#include "compute/cpu/attn_select.h"
#include "quant/rotate.h"

typedef struct sparse_world {
    attn_world w;
    uint8_t *memory; /* of the summaries */
    float *select;   /* scratch */
    int n_splits;
} sparse_world;

/* Keys of a block are its topic (normal values times `topic`) and noise (times `noise`). */
static inline sparse_world sparse_open(rng *r, shape s, float topic, float noise)
{
    const int n = s.n_slots;
    sparse_world w;
    w.w = world_open(r, s);
    w.w.layer.desc.has_summaries = true;
    const int32_t total = w.w.n_pages + 3;
    w.memory = calloc((size_t)total, kv_layer_summary_bytes(&w.w.layer.desc));
    attn_summary_place(&w.w.layer, w.memory, total);
    for (int b = 0; b < w.w.n_pages; b++)
        for (int h = 0; h < s.n_kv_heads; h++) {
            float *t = world_floats(r, (size_t)s.head_dim, topic);
            for (int slot = b * KV_PAGE_LEN; slot < (b + 1) * KV_PAGE_LEN && slot < n; slot++) {
                float *x = world_floats(r, (size_t)s.head_dim, noise);
                for (int i = 0; i < s.head_dim; i++) x[i] += t[i];
                attn_put_k(&w.w.layer, w.w.table[b], slot % KV_PAGE_LEN, h, x);
                free(x);
            }
            free(t);
        }
    w.select = malloc(attn_select_floats(s.heads_per_kv, s.head_dim, w.w.n_pages) * sizeof *w.select);
    w.n_splits = n / ATTN_SPLIT + 1;
    return w;
}

static inline void sparse_close(sparse_world *w)
{
    free(w->memory);
    free(w->select);
    world_close(&w->w);
}

static inline void sparse_summarise(const sparse_world *w, const sparse_rule *rule, const attn_row *row)
{
    int32_t first, end;
    attn_select_range(rule, row, &first, &end);
    for (int32_t b = first; b < end; b++) attn_summary_make(&w->w.layer, NULL, row->table[b], b, w->w.scratch);
}

static inline bool sparse_reads(const uint8_t *mask, int32_t pos)
{
    return !mask || mask[pos / ATTN_SPLIT] >> pos % ATTN_SPLIT / KV_PAGE_LEN & 1;
}

/* ---- in float64, from the decoded keys and values ---- */

/* The keys (or values) of positions [0, n) for a KV head, not rotated: [n][head_dim]. Owned by the caller. */
static inline float *exact_rows(const attn_layer *l, const int32_t *table, int n, int kv_head, bool is_v)
{
    const size_t dim = (size_t)l->desc.head_dim;
    float *x = malloc((uint32_t)n * dim * sizeof *x);
    for (int p = 0; p < n; p++) {
        float *row = x + (size_t)p * dim;
        (is_v ? attn_get_v : attn_get_k)(l, table[p / KV_PAGE_LEN], p % KV_PAGE_LEN, kv_head, row);
        if (kv_type_get(is_v ? l->desc.v_type : l->desc.k_type)->is_rotated) unrotate_values(row, dim);
    }
    return x;
}

/* Logits of the row's positions [0, pos] for a head over these keys. Owned by the caller. */
static inline double *exact_scores(const attn_work *w, const attn_row *row, int head, const float *keys)
{
    const int dim = w->layer->desc.head_dim, n = row->pos + 1;
    double *s = malloc((uint32_t)n * sizeof *s);
    for (int p = 0; p < n; p++) {
        const float *k = keys + (size_t)p * (size_t)dim, *q = row->q + (size_t)head * (size_t)dim;
        double sum[8] = {0};
        for (int j = 0; j < dim; j += 8)
            for (int i = 0; i < 8; i++) sum[i] += (double)q[j + i] * (double)k[j + i];
        s[p] = (double)w->scale * (sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7]);
    }
    return s;
}

/* Sum of exp(logit - max) over the positions that a mask reads (is_read) or leaves out. */
static inline double exact_mass(const double *s, int n, double max, const uint8_t *mask, bool is_read)
{
    double sum = 0;
    for (int p = 0; p < n; p++)
        if (sparse_reads(mask, p) == is_read) sum += exp(s[p] - max);
    return sum;
}

static inline double exact_max(const double *s, int n)
{
    double max = -INFINITY;
    for (int p = 0; p < n; p++) max = fmax(max, s[p]);
    return max;
}

static inline double exact_dropped(const double *s, int n, const uint8_t *mask)
{
    const double max = exact_max(s, n), out = exact_mass(s, n, max, mask, false);
    return out / (out + exact_mass(s, n, max, mask, true));
}

/* The head's output over the positions that the mask reads. */
static inline void exact_output(const attn_work *w, const attn_row *row, int head, const double *s, const uint8_t *mask,
                                float *out)
{
    const kv_layer_desc *d = &w->layer->desc;
    const int dim = d->head_dim, n = row->pos + 1;
    double *o = calloc((size_t)dim, sizeof *o);
    const double max = exact_max(s, n), sum = exact_mass(s, n, max, mask, true);
    float *v = exact_rows(w->layer, row->table, n, head / (w->n_heads / d->n_kv_heads), true);
    for (int p = 0; p < n; p++) {
        const double weight = exp(s[p] - max);
        for (int j = 0; j < dim && sparse_reads(mask, p); j++)
            o[j] += weight * (double)v[(size_t)p * (size_t)dim + (size_t)j];
    }
    for (int j = 0; j < dim; j++) out[j] = (float)(o[j] / sum);
    free(v);
    free(o);
}

/* Relative rms distance. */
static inline double far(const float *got, const float *want, size_t n)
{
    double e = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        e += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        w += (double)want[i] * (double)want[i];
    }
    return sqrt(e / w);
}

#endif
