#include "compute/cpu/attn_summary.h"

#include <math.h>
#include <string.h>

#include "compute/cpu/attn_rebuild.h"

enum { N = KV_PAGE_LEN, BALLS = KV_SUMMARY_BALLS };

_Static_assert(sizeof(block_figures) == KV_SUMMARY_FIGURES * sizeof(float), "kv.c counts these floats");

void attn_summary_place(attn_layer *l, uint8_t *memory, int32_t n_pages)
{
    const size_t n = (size_t)n_pages * (size_t)l->desc.n_kv_heads;
    l->figures = (block_figures *)(void *)memory;
    l->centres = (int8_t *)(l->figures + n);
    l->is_summarised = (atomic_uchar *)(void *)(l->centres + n * BALLS * (size_t)l->desc.head_dim);
}

/* The keys, and a mean. */
size_t attn_summary_scratch_floats(int head_dim)
{
    return (size_t)(N + 1) * (size_t)head_dim;
}

/* Lengths are sums of few hundred squares in double: this covers their rounding, and that of the result. */
static float rounded_up(double x)
{
    return (float)(x * (1 + 1e-6));
}

/* Four sums side by side, so that the compiler can use vectors. */
static double square_distance(const float *x, const float *y, size_t n)
{
    double sum[4] = {0};
    for (size_t i = 0; i < n; i += 4)
        for (size_t j = 0; j < 4; j++) {
            const double d = (double)x[i + j] - (double)y[i + j];
            sum[j] += d * d;
        }
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* Mean of the keys of one ball (ball_of NULL: of all); returns their number. */
static int mean_of(const float *keys, size_t dim, const uint8_t *ball_of, int ball, float *mean)
{
    int n = 0;
    memset(mean, 0, dim * sizeof *mean);
    for (int k = 0; k < N; k++) {
        if (ball_of && ball_of[k] != ball) continue;
        for (size_t i = 0; i < dim; i++) mean[i] += keys[(size_t)k * dim + i];
        n++;
    }
    for (size_t i = 0; i < dim && n; i++) mean[i] /= (float)n;
    return n;
}

/* Which ball each key is in: around the mean, or around the key that was farthest from all centres before. */
static void assign(const float *keys, size_t dim, float *mean, uint8_t ball_of[N])
{
    double nearest[N];
    mean_of(keys, dim, NULL, 0, mean);
    for (int k = 0; k < N; k++) {
        nearest[k] = square_distance(keys + (size_t)k * dim, mean, dim);
        ball_of[k] = 0;
    }
    for (int ball = 1; ball < BALLS; ball++) {
        int far = 0;
        for (int k = 1; k < N; k++)
            if (nearest[k] > nearest[far]) far = k;
        for (int k = 0; k < N; k++) {
            const double d = square_distance(keys + (size_t)k * dim, keys + (size_t)far * dim, dim);
            if (d >= nearest[k]) continue;
            nearest[k] = d;
            ball_of[k] = (uint8_t)ball;
        }
    }
}

/* Stores the centre as codes, and leaves in `centre` what they stand for. */
static void store_centre(float *centre, size_t dim, int8_t *codes, key_ball *b)
{
    float max = 0;
    double norm = 0;
    for (size_t i = 0; i < dim; i++) max = fmaxf(max, fabsf(centre[i]));
    const bool is_usable = max > 1e-30f && max < INFINITY;
    b->scale = is_usable ? max / 127 : 0;
    for (size_t i = 0; i < dim; i++) {
        codes[i] = is_usable ? (int8_t)lrintf(centre[i] / b->scale) : (int8_t)0;
        centre[i] = b->scale * (float)codes[i];
        norm += (double)centre[i] * (double)centre[i];
    }
    b->norm = rounded_up(sqrt(norm));
}

static void make_ball(const float *keys, size_t dim, const uint8_t *ball_of, int ball, float *centre, int8_t *codes,
                      key_ball *b)
{
    double max = 0, sum = 0;
    const int n = mean_of(keys, dim, ball_of, ball, centre);
    *b = (key_ball){.n = (float)n};
    store_centre(centre, dim, codes, b);
    for (int k = 0; k < N; k++) {
        if (ball_of[k] != ball) continue;
        const double d = square_distance(keys + (size_t)k * dim, centre, dim);
        max = d <= max ? max : d; /* a NaN stays, and the block is read by all */
        sum += d;
    }
    b->radius = rounded_up(sqrt(max)) + 1e-7f * b->norm; /* the centre was rounded to floats here */
    b->spread = n ? (float)sqrt(sum / n) : 0;
}

static float longest_value(const attn_layer *l, int32_t page, int kv_head, float *x)
{
    double max = 0;
    for (int slot = 0; slot < N; slot++) {
        double v = 0;
        attn_get_v(l, page, slot, kv_head, x);
        for (int i = 0; i < l->desc.head_dim; i++) v += (double)x[i] * (double)x[i];
        max = v <= max ? max : v;
    }
    return rounded_up(sqrt(max));
}

/* The keys of a page as rows multiply them. */
static void read_keys(const attn_layer *l, const attn_rebuild *rebuild, int32_t page, int32_t b, int kv_head,
                      float *keys)
{
    const size_t dim = (size_t)l->desc.head_dim;
    for (int slot = 0; slot < N; slot++, keys += dim) {
        if (!rebuild) {
            attn_get_k(l, page, slot, kv_head, keys);
            continue;
        }
        attn_get_v(l, page, slot, kv_head, keys);
        if (kv_type_get(l->desc.v_type)->is_rotated) unrotate_values(keys, dim);
        attn_rebuild_key(rebuild, b * N + slot, keys);
    }
}

void attn_summary_make(const attn_layer *l, const attn_rebuild *rebuild, int32_t page, int32_t b, float *scratch)
{
    const size_t dim = (size_t)l->desc.head_dim;
    float *keys = scratch, *centre = keys + N * dim;
    uint8_t ball_of[N];
    if (atomic_load_explicit(&l->is_summarised[page], memory_order_relaxed)) return;
    for (int h = 0; h < l->desc.n_kv_heads; h++) {
        const size_t at = (size_t)page * (size_t)l->desc.n_kv_heads + (size_t)h;
        block_figures *f = &l->figures[at];
        read_keys(l, rebuild, page, b, h, keys);
        assign(keys, dim, centre, ball_of);
        for (int i = 0; i < BALLS; i++)
            make_ball(keys, dim, ball_of, i, centre, l->centres + (at * BALLS + (size_t)i) * dim, &f->ball[i]);
        f->v_max = longest_value(l, page, h, centre);
    }
    atomic_store_explicit(&l->is_summarised[page], 1, memory_order_relaxed);
}
