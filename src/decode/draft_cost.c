#include "decode/draft_cost.h"

#include <math.h>

#define LEARN_RATE 0.1
#define SHARED_PART 0.5
#define OUTLIER 2.0
#define FADE 0.98
#define LEAST_WEIGHT 1e-6
enum { SETTLED = 8, COUNT_MAX = 32, FIRST = 2 };

void draft_cost_init(draft_cost *c, const int *widths, int n_widths)
{
    *c = (draft_cost){0};
    for (int n = 1, i = 0; n <= DRAFT_COST_MAX_ROWS; n++) {
        while (i < n_widths && widths[i] < n) i++;
        c->padded[n] = (uint8_t)(i < n_widths && widths[i] <= DRAFT_COST_MAX_ROWS ? widths[i] : n);
    }
}

void draft_cost_guess(draft_cost *c, double rise)
{
    c->rise = rise;
}

static int bucket_of(int64_t n_ctx)
{
    int b = 0;
    for (int64_t end = 2048; b < DRAFT_COST_BUCKETS - 1 && n_ctx > end; end *= 4) b++;
    return b;
}

/* The bucket itself when it has measurements, else the nearest below, else the nearest above, else -1. */
static int known_bucket(const draft_cost *c, int64_t n_ctx)
{
    const int want = bucket_of(n_ctx);
    for (int b = want; b >= 0; b--)
        if (c->bucket[b].n_known > 0) return b;
    for (int b = want + 1; b < DRAFT_COST_BUCKETS; b++)
        if (c->bucket[b].n_known > 0) return b;
    return -1;
}

/* A run of measured widths that share one fitted value. */
typedef struct block {
    double ms, weight;
    int last; /* width */
} block;

/* Least-squares non-decreasing fit at the measured widths: pool adjacent violators (Ayer et al. 1955). */
static int fit_blocks(const draft_cost_bucket *b, block *out)
{
    int n = 0;
    for (int w = 1; w <= DRAFT_COST_MAX_ROWS; w++) {
        if (!b->n[w]) continue;
        out[n++] = (block){b->ms[w], b->weight[w], w};
        for (; n > 1 && out[n - 2].ms >= out[n - 1].ms; n--) {
            block *a = &out[n - 2];
            const double weight = a->weight + out[n - 1].weight;
            a->ms = (a->ms * a->weight + out[n - 1].ms * out[n - 1].weight) / weight;
            a->weight = weight;
            a->last = out[n - 1].last;
        }
    }
    return n;
}

/* Milliseconds per further row between the first and the last measured width: any two of them alone may be off. */
static double slope_of(const draft_cost_bucket *b)
{
    int first = 0, last = 0;
    for (int w = 1; w <= DRAFT_COST_MAX_ROWS; w++) {
        if (!b->n[w]) continue;
        if (!first) first = w;
        last = w;
    }
    return first < last ? (b->curve[last] - b->curve[first]) / (last - first) : 0;
}

static void fit(draft_cost_bucket *b, double rise)
{
    block blocks[DRAFT_COST_MAX_ROWS];
    fit_blocks(b, blocks);
    for (int w = 1, i = 0; w <= DRAFT_COST_MAX_ROWS; w++) {
        if (!b->n[w]) continue;
        while (blocks[i].last < w) i++;
        b->curve[w] = blocks[i].ms;
    }
    const double slope = fmax(slope_of(b), b->n[1] ? rise * b->curve[1] : 0);
    for (int w = 1, below = 0; w <= DRAFT_COST_MAX_ROWS; w++) {
        if (b->n[w]) {
            below = w;
            continue;
        }
        int above = w;
        while (above <= DRAFT_COST_MAX_ROWS && !b->n[above]) above++;
        if (above > DRAFT_COST_MAX_ROWS)
            b->curve[w] = b->curve[below] + slope * (w - below);
        else if (!below)
            b->curve[w] = b->curve[above];
        else
            b->curve[w] = b->curve[below] + (b->curve[above] - b->curve[below]) * (w - below) / (above - below);
    }
}

static int clamp_rows(const draft_cost *c, int n_rows)
{
    return c->padded[n_rows < 1 ? 1 : n_rows > DRAFT_COST_MAX_ROWS ? DRAFT_COST_MAX_ROWS : n_rows];
}

void draft_cost_set(draft_cost *c, int64_t n_ctx, int n_rows, double ms)
{
    if (!isfinite(ms) || ms <= 0) return;
    draft_cost_bucket *b = &c->bucket[bucket_of(n_ctx)];
    const int w = clamp_rows(c, n_rows);
    b->n_known += b->n[w] == 0;
    b->n[w] = SETTLED;
    b->ms[w] = ms;
    b->weight[w] = SETTLED;
    fit(b, c->rise);
}

/* What to believe at most of a first measurement. */
static double most_ms(const draft_cost_bucket *b, int w)
{
    return b->n_known > 0 ? OUTLIER * b->curve[w] : INFINITY;
}

void draft_cost_observe(draft_cost *c, int64_t n_ctx, int n_rows, double ms)
{
    if (!isfinite(ms) || ms <= 0) return;
    draft_cost_bucket *b = &c->bucket[bucket_of(n_ctx)];
    const int w = clamp_rows(c, n_rows), near = known_bucket(c, n_ctx);
    if (b->n_known == 0 && near >= 0) *b = c->bucket[near];
    for (int i = 1; i <= DRAFT_COST_MAX_ROWS; i++) b->weight[i] = fmax(FADE * b->weight[i], LEAST_WEIGHT);
    b->weight[w] += 1;
    if (b->n[w] < FIRST) {
        b->least[w] = b->n[w] == 0 ? ms : fmin(b->least[w], ms);
        b->ms[w] = b->n[w] == 0 ? fmin(ms, most_ms(b, w)) : b->least[w];
        b->n_known += b->n[w]++ == 0;
        fit(b, c->rise);
        return;
    }
    const double old = b->ms[w], seen = fmin(fmax(ms, old / OUTLIER), old * OUTLIER);
    const double move = (seen - old) * fmax(LEARN_RATE, 1.0 / (b->n[w] + 1.0));
    for (int i = 1; b->n[w] >= SETTLED && i <= DRAFT_COST_MAX_ROWS; i++)
        if (i != w && b->n[i]) b->ms[i] += SHARED_PART * move * fmin(1, b->ms[i] / old);
    b->ms[w] += move;
    b->n[w] += b->n[w] < COUNT_MAX;
    fit(b, c->rise);
}

void draft_cost_doubt(draft_cost *c, int64_t n_ctx, int n_rows)
{
    draft_cost_bucket *b = &c->bucket[bucket_of(n_ctx)];
    const int w = clamp_rows(c, n_rows);
    if (b->n[w] > FIRST) b->n[w] = FIRST;
}

bool draft_cost_is_known(const draft_cost *c)
{
    for (int b = 0; b < DRAFT_COST_BUCKETS; b++)
        if (c->bucket[b].n[c->padded[1]] >= FIRST) return true;
    return false;
}

double draft_cost_ms(const draft_cost *c, int64_t n_ctx, int n_rows)
{
    const int b = known_bucket(c, n_ctx);
    return b < 0 ? 0 : c->bucket[b].curve[clamp_rows(c, n_rows)];
}
