/* op_centroids.c: logits of the ids that belong to the best centroids. Only the chosen rows of the head are read, from
 * the file's layout. */
#include <math.h>

#include "compute/cpu/exec.h"

static void fill(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const size_t width = x->c->plan->values[op->o].width, begin = width * (size_t)thread / (size_t)n_threads,
                 end = width * ((size_t)thread + 1) / (size_t)n_threads;
    for (int r = 0; r < exec_n_rows(x, op->o); r++)
        for (size_t i = begin; i < end; i++) exec_row(x, op->o, r)[i] = -INFINITY;
}

static bool is_suppressed(const plan *p, int32_t id)
{
    for (int i = 0; i < p->n_suppress; i++)
        if (p->suppress[i] == id) return true;
    return false;
}

/* The logits of one centroid's ids. */
static void do_group(const exec *x, const plan_op *op, const linear_input *in, int r, int32_t centroid)
{
    const weight *w = &x->be->weights[op->w0];
    const size_t row_bytes = type_bytes(type_get(w->type), w->ne[0]);
    for (uint32_t i = 0; i < op->group; i++) {
        const int32_t id = op->order[(size_t)centroid * op->group + i];
        if (is_suppressed(x->c->plan, id)) continue;
        exec_row(x, op->o, r)[id] =
            op->scale * exec_row_dot(w, (const uint8_t *)w->data + (size_t)id * row_bytes, in, r);
    }
}

void op_centroids(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const linear_input in = exec_input(x, op->i0);
    float *value = exec_thread_scratch(x, thread);
    int32_t *best = (int32_t *)(void *)(value + op->n_used);
    fill(x, op, thread, n_threads);
    team_barrier(x->be->team);
    for (int u, row = -1, n = 0; (u = exec_take(x, op, 0)) < in.n_rows * op->n_used;) {
        if (u / op->n_used != row) { /* every thread that works on a row chooses for itself */
            row = u / op->n_used;
            n = x->be->rows->top_k(exec_row(x, op->i1, row), (size_t)op->n_experts, 0, op->n_used, value, best, 0);
        }
        if (u % op->n_used < n) do_group(x, op, &in, row, best[u % op->n_used]);
    }
}
