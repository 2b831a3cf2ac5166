/* op_moe.c: routing and experts. A unit of work is one expert and a range of its tiles; the rows that chose the expert
 * are gathered, so that its weights are read once per MOE_GROUP rows. A (row, use) pair's result does not depend on who
 * else chose the expert. */
#include <math.h>
#include <string.h>

#include "compute/cpu/exec.h"

static int32_t *route_ids(const exec *x, int value, int r)
{
    return (int32_t *)exec_row(x, value, r);
}

static const float *route_weights(const exec *x, int value, int r, int n_used)
{
    return exec_row(x, value, r) + n_used;
}

/* The n_used largest of g, the lowest index first on ties, in falling order. */
static void top_experts(const float *g, int n, int n_used, int32_t *ids)
{
    for (int j = 0; j < n_used; j++) {
        int32_t best = -1;
        for (int e = 0; e < n; e++) {
            bool is_taken = false;
            for (int i = 0; i < j; i++) is_taken |= ids[i] == e;
            if (!is_taken && (best < 0 || g[e] > g[best])) best = e;
        }
        ids[j] = best;
    }
}

void op_moe_route(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t n_embd = x->c->plan->values[op->i0].width;
    const float *scale = exec_vector(x, op->w1), *matrix = exec_vector(x, op->w0),
                *expert_scale = exec_vector(x, op->w2);
    float *u = exec_thread_scratch(x, thread), *g = u + n_embd;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        x->be->rows->rms_norm(exec_row(x, op->i0, r), scale, n_embd, op->eps, u);
        for (int e = 0; e < op->n_experts; e++)
            g[e] = op->scale * float_dot(TYPE_F32, matrix + (size_t)e * n_embd, u, n_embd);
        int32_t *ids = route_ids(x, op->o, r);
        float *w = exec_row(x, op->o, r) + op->n_used, sum = 0;
        top_experts(g, op->n_experts, op->n_used, ids);
        for (int j = 0; j < op->n_used; j++) sum += w[j] = expf(g[ids[j]] - g[ids[0]]);
        for (int j = 0; j < op->n_used; j++) w[j] = w[j] / sum * (expert_scale ? expert_scale[ids[j]] : 1.0f);
    }
}

/* Rows gathered for one expert: pair[i] = row * n_used + use. */
typedef struct group {
    int n, pair[MOE_GROUP];
} group;

/* The next up to MOE_GROUP pairs at or after *from that chose the expert; *from moves on. */
static void next_group(const exec *x, const plan_op *op, int n_rows, int expert, int *from, group *g)
{
    g->n = 0;
    for (; *from < n_rows * op->n_used && g->n < MOE_GROUP; ++*from)
        if (route_ids(x, op->i1, *from / op->n_used)[*from % op->n_used] == expert) g->pair[g->n++] = *from;
}

/* Inputs of a group: entry i is source row index[i] of `value`, seen as rows of `width` columns (n_source of them). */
static linear_input gather_input(const exec *x, int value, uint32_t width, size_t n_source, const int *index, int n,
                                 float *f32, act_block *act)
{
    const value_state *v = &x->c->values[value];
    const size_t blocks = act_n_blocks(width);
    for (int i = 0; i < n; i++) {
        if (v->act)
            for (size_t b = 0; b < blocks; b++)
                act[b * (size_t)n + (size_t)i] = v->act[b * n_source + (size_t)index[i]];
        else
            memcpy(f32 + (size_t)i * width, v->f32 + (size_t)index[i] * width, width * sizeof *f32);
    }
    return (linear_input){.n_rows = n, .q = act, .f32 = f32, .ld = width};
}

typedef struct moe_scratch {
    float *pack, *f32, *gate, *up;
    act_block *act;
} moe_scratch;

static moe_scratch scratch_of(const exec *x, int thread, uint32_t n_in, uint32_t n_out, size_t tile_bytes)
{
    moe_scratch s;
    s.act = (act_block *)exec_thread_scratch(x, thread);
    s.pack = (float *)(s.act + act_n_blocks(n_in) * MOE_GROUP);
    s.f32 = s.pack + tile_bytes / sizeof(float);
    s.gate = s.f32 + (size_t)n_in * MOE_GROUP;
    s.up = s.gate + (size_t)n_out * MOE_GROUP;
    return s;
}

size_t moe_scratch_floats(uint32_t n_in, uint32_t n_out, size_t tile_bytes)
{
    const size_t act_floats = act_n_blocks(n_in) * MOE_GROUP * sizeof(act_block) / sizeof(float);
    return act_floats + tile_bytes / sizeof(float) + (size_t)MOE_GROUP * (n_in + 2 * (size_t)n_out);
}

/* Expert and tiles of unit u; false past the last. */
static bool expert_unit(const exec *x, const plan_op *op, int u, uint32_t n_tiles, int n_threads, int *expert,
                        uint32_t *begin, uint32_t *end)
{
    const uint32_t step = exec_tiles_per_unit(x, op->w0, n_tiles * (uint32_t)op->n_used, n_threads);
    const uint32_t per_expert = (n_tiles + step - 1) / step;
    *expert = (int)((uint32_t)u / per_expert);
    *begin = (uint32_t)u % per_expert * step;
    *end = *begin + step < n_tiles ? *begin + step : n_tiles;
    return *expert < op->n_experts;
}

static void gated_group(const exec *x, const plan_op *op, int expert, uint32_t begin, uint32_t end, const group *g,
                        const moe_scratch *s)
{
    const uint32_t n_ff = (uint32_t)op->n_ff, n_tiles = n_ff / LINEAR_TILE, width = x->c->plan->values[op->i0].width;
    const bool is_fused = op->w1 < 0;
    const float *factor = exec_vector(x, op->w2);
    const row_kernels *k = x->be->rows;
    const size_t at = (size_t)begin * LINEAR_TILE, n = (size_t)(end - begin) * LINEAR_TILE;
    int rows[MOE_GROUP];
    for (int i = 0; i < g->n; i++) rows[i] = g->pair[i] / op->n_used;
    const linear_input in = gather_input(x, op->i0, width, (size_t)exec_n_rows(x, op->i0), rows, g->n, s->f32, s->act);
    const size_t ld = is_fused ? 2 * (size_t)n_ff : n_ff;
    exec_product(x, op->w0, expert, begin, end, &in, s->gate, ld, s->pack);
    float *up = is_fused ? s->gate + n_ff : s->up;
    if (is_fused)
        exec_product(x, op->w0, expert, n_tiles + begin, n_tiles + end, &in, s->gate, ld, s->pack);
    else
        exec_product(x, op->w1, expert, begin, end, &in, s->up, ld, s->pack);
    for (int i = 0; i < g->n; i++) {
        float *gi = s->gate + (size_t)i * ld + at, *ui = up + (size_t)i * ld + at;
        if (factor) {
            k->scale(gi, n, factor[expert]);
            k->scale(ui, n, factor[expert]);
        }
        (op->activation == ACT_GELU ? k->gelu_mul
                                    : k->silu_mul)(gi, ui, n, x->c->values[op->o].f32 + (size_t)g->pair[i] * n_ff + at);
    }
}

void op_moe_gated(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const int n_rows = exec_n_rows(x, op->i0);
    const weight *w = &x->be->weights[op->w0];
    const moe_scratch s =
        scratch_of(x, thread, (uint32_t)w->ne[0], (uint32_t)w->ne[1], linear_tile_bytes(w->type, (uint32_t)w->ne[0]));
    int expert;
    uint32_t begin, end;
    while (
        expert_unit(x, op, exec_take(x, op, 0), (uint32_t)op->n_ff / LINEAR_TILE, n_threads, &expert, &begin, &end)) {
        group g;
        for (int from = 0; next_group(x, op, n_rows, expert, &from, &g), g.n;)
            gated_group(x, op, expert, begin, end, &g, &s);
    }
    exec_quantize_all(x, op->o, thread, n_threads);
}

/* Products of every (row, use) pair go to the shared scratch [n_rows * n_used, n_embd]; then each row sums its uses in
 * routing order. */
void op_moe_down(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const int n_rows = exec_n_rows(x, op->i0);
    const uint32_t n_embd = x->c->plan->values[op->o].width, n_ff = (uint32_t)op->n_ff;
    const weight *w = &x->be->weights[op->w0];
    const moe_scratch s = scratch_of(x, thread, n_ff, n_embd, linear_tile_bytes(w->type, n_ff));
    float *products = x->c->scratch;
    int expert;
    uint32_t begin, end;
    while (expert_unit(x, op, exec_take(x, op, 0), (n_embd + LINEAR_TILE - 1) / LINEAR_TILE, n_threads, &expert, &begin,
                       &end)) {
        group g;
        for (int from = 0; next_group(x, op, n_rows, expert, &from, &g), g.n;) {
            const linear_input in =
                gather_input(x, op->i0, n_ff, (size_t)n_rows * (size_t)op->n_used, g.pair, g.n, s.f32, s.act);
            exec_product(x, op->w0, expert, begin, end, &in, s.gate, n_embd, s.pack);
            const size_t at = (size_t)begin * LINEAR_TILE,
                         stop = (size_t)end * LINEAR_TILE < n_embd ? (size_t)end * LINEAR_TILE : n_embd;
            for (int i = 0; i < g.n; i++)
                memcpy(products + (size_t)g.pair[i] * n_embd + at, s.gate + (size_t)i * n_embd + at,
                       (stop - at) * sizeof(float));
        }
    }
    team_barrier(x->be->team);
    for (int r = thread; r < n_rows; r += n_threads) {
        float *out = exec_row(x, op->o, r);
        const float *weights = route_weights(x, op->i1, r, op->n_used);
        memset(out, 0, n_embd * sizeof *out);
        for (int j = 0; j < op->n_used; j++) {
            const float *p = products + ((size_t)r * (size_t)op->n_used + (size_t)j) * n_embd;
            for (uint32_t i = 0; i < n_embd; i++) out[i] += weights[j] * p[i];
        }
        exec_quantize_row(x, op->o, r);
    }
}
