/* op_topk.c: the best of a row of logits with their log-probabilities. The row is cut into chunks at fixed places,
 * which threads share; a chunk's maximum, sum of exponentials and best list are then merged in order, so that a row's
 * bits depend on its own logits alone. */
#include <math.h>
#include <string.h>

#include "compute/cpu/exec.h"

enum { TOPK_CHUNK = 4096 }; /* 16 KiB: read once from memory, three times from the L1 cache */

typedef struct chunk {
    float max, sum; /* sum of e^((x - max) / temp); max is NaN when a value is NaN or +inf */
    int n;
    float value[PLAN_MAX_TOPK];
    int32_t id[PLAN_MAX_TOPK];
} chunk;

static uint32_t n_chunks(uint32_t n)
{
    return (n + TOPK_CHUNK - 1) / TOPK_CHUNK;
}

size_t topk_scratch_floats(int n_rows, uint32_t n_in)
{
    return (size_t)n_rows * n_chunks(n_in) * sizeof(chunk) / sizeof(float);
}

static void do_chunk(const exec *x, const plan_op *op, int r, uint32_t index, chunk *c)
{
    const uint32_t first = index * TOPK_CHUNK, left = x->c->plan->values[op->i0].width - first;
    const uint32_t n = left < TOPK_CHUNK ? left : TOPK_CHUNK;
    const float *in = exec_row(x, op->i0, r) + first;
    const row_kernels *k = x->be->rows;
    c->max = k->max(in, n);
    c->n = 0;
    c->sum = 0;
    if (!(c->max > -INFINITY)) return;
    c->sum = k->sum_exp(in, n, c->max, 1.0f / op->temp);
    c->n = k->top_k(in, n, (int32_t)first, op->n_used, c->value, c->id, 0);
}

/* Adds b, whose ids follow those of a. */
static void merge(const row_kernels *k, const plan_op *op, chunk *a, const chunk *b)
{
    const float max = b->max > a->max ? b->max : a->max;
    if (a->max > -INFINITY) a->sum *= expf((a->max - max) / op->temp);
    if (b->max > -INFINITY) a->sum += b->sum * expf((b->max - max) / op->temp);
    a->max = max;
    for (int i = 0; i < b->n; i++) a->n = k->top_k(&b->value[i], 1, b->id[i], op->n_used, a->value, a->id, a->n);
}

static void finish_row(const exec *x, const plan_op *op, const chunk *chunks, int r)
{
    const uint32_t n = n_chunks(x->c->plan->values[op->i0].width);
    chunk all = chunks[0];
    bool is_bad = isnan(all.max);
    for (uint32_t i = 1; i < n && !is_bad; i++) {
        is_bad = isnan(chunks[i].max);
        if (!is_bad) merge(x->be->rows, op, &all, &chunks[i]);
    }
    int32_t *ids = (int32_t *)(void *)exec_row(x, op->o, r);
    float *logp = exec_row(x, op->o2, r);
    for (int i = 0; i < op->n_used; i++) {
        const bool is_held = !is_bad && i < all.n;
        ids[i] = is_held ? all.id[i] : -1;
        logp[i] = is_held ? (all.value[i] - all.max) / op->temp - logf(all.sum) : -INFINITY;
    }
}

void op_topk(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const int n_rows = exec_n_rows(x, op->o), n = (int)n_chunks(x->c->plan->values[op->i0].width);
    chunk *chunks = (chunk *)(void *)x->c->scratch;
    for (int u; (u = exec_take(x, op, 0)) < n_rows * n;) do_chunk(x, op, u / n, (uint32_t)(u % n), &chunks[u]);
    team_barrier(x->be->team);
    for (int r = thread; r < n_rows; r += n_threads) finish_row(x, op, chunks + (size_t)r * (size_t)n, r);
}
