#include "compute/cpu/attn_summary.h"

#include <math.h>
#include <string.h>

_Static_assert(sizeof(block_figures) == KV_SUMMARY_FIGURES * sizeof(float), "kv.c counts these floats");

void attn_summary_place(attn_layer *l, uint8_t *memory, int32_t n_pages)
{
    const size_t n = (size_t)n_pages * (size_t)l->desc.n_kv_heads;
    l->figures = (block_figures *)(void *)memory;
    l->centres = (int8_t *)(l->figures + n);
    l->is_summarised = (atomic_uchar *)(void *)(l->centres + n * (size_t)l->desc.head_dim);
}

/* Distances are sums of few hundred squares in double: this covers their rounding, and that of the result. */
static float rounded_up(double x)
{
    return (float)(x * (1 + 1e-6));
}

static double square_distance(const float *x, const int8_t *codes, float scale, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)scale * codes[i];
        sum += d * d;
    }
    return sum;
}

/* The mean of the page's keys, as codes with a scale. */
static void make_centre(const attn_layer *l, int32_t page, int kv_head, int8_t *codes, block_figures *f, float *scratch)
{
    const size_t dim = (size_t)l->desc.head_dim;
    float *mean = scratch, *x = scratch + dim, max = 0;
    memset(mean, 0, dim * sizeof *mean);
    for (int slot = 0; slot < KV_PAGE_LEN; slot++) {
        attn_get_k(l, page, slot, kv_head, x);
        for (size_t i = 0; i < dim; i++) mean[i] += x[i] * (1.0f / KV_PAGE_LEN);
    }
    for (size_t i = 0; i < dim; i++) max = fmaxf(max, fabsf(mean[i]));
    const bool is_usable = max > 1e-30f && max < INFINITY;
    f->scale = is_usable ? max / 127 : 0;
    for (size_t i = 0; i < dim; i++) codes[i] = is_usable ? (int8_t)lrintf(mean[i] / f->scale) : (int8_t)0;
}

static void measure(const attn_layer *l, int32_t page, int kv_head, const int8_t *codes, block_figures *f, float *x)
{
    const size_t dim = (size_t)l->desc.head_dim;
    double norm = 0, max = 0, sum = 0, v_max = 0;
    for (size_t i = 0; i < dim; i++) norm += (double)(codes[i] * codes[i]);
    for (int slot = 0; slot < KV_PAGE_LEN; slot++) {
        double v = 0;
        attn_get_k(l, page, slot, kv_head, x);
        const double d = square_distance(x, codes, f->scale, dim);
        attn_get_v(l, page, slot, kv_head, x);
        for (size_t i = 0; i < dim; i++) v += (double)x[i] * x[i];
        max = d <= max ? max : d; /* a NaN stays, and the block is read by all */
        v_max = v <= v_max ? v_max : v;
        sum += d;
    }
    f->norm = rounded_up((double)f->scale * sqrt(norm));
    f->radius = rounded_up(sqrt(max));
    f->spread = (float)sqrt(sum / KV_PAGE_LEN);
    f->v_max = rounded_up(sqrt(v_max));
}

void attn_summary_make(const attn_layer *l, int32_t page, float *scratch)
{
    if (atomic_load_explicit(&l->is_summarised[page], memory_order_relaxed)) return;
    for (int h = 0; h < l->desc.n_kv_heads; h++) {
        const size_t at = (size_t)page * (size_t)l->desc.n_kv_heads + (size_t)h;
        int8_t *codes = l->centres + at * (size_t)l->desc.head_dim;
        make_centre(l, page, h, codes, &l->figures[at], scratch);
        measure(l, page, h, codes, &l->figures[at], scratch);
    }
    atomic_store_explicit(&l->is_summarised[page], 1, memory_order_relaxed);
}
