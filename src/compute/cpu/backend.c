/* backend.c: the CPU backends: runs of compiled plans, values, the table of entries. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "compute/cpu/attn_tile.h"
#include "compute/cpu/ceiling.h"
#include "compute/cpu/exec.h"

static cpu_backend *self(backend *b)
{
    return (cpu_backend *)b;
}

/* ---- run ---- */

static const op_fn op_table[OP_KIND_COUNT] = {
    [OP_EMBED] = op_embed,   [OP_NORM] = op_norm,           [OP_NORM_ADD] = op_norm_add,   [OP_ADD] = op_add,
    [OP_LINEAR] = op_linear, [OP_GATED] = op_gated,         [OP_ROPE_Q] = op_rope_q,       [OP_KV_WRITE] = op_kv_write,
    [OP_ATTN] = op_attn,     [OP_MOE_ROUTE] = op_moe_route, [OP_MOE_GATED] = op_moe_gated, [OP_MOE_DOWN] = op_moe_down,
    [OP_GATHER] = op_gather, [OP_CAPTURE] = op_capture,     [OP_ARGMAX] = op_argmax,       [OP_CONCAT] = op_concat,
    [OP_TOPK] = op_topk,     [OP_CENTROIDS] = op_centroids,
};

/* Twins of the values that came from outside. */
static void quantize_inputs(const exec *x, int thread, int n_threads)
{
    const plan *p = x->c->plan;
    for (int v = 0; v < p->n_values; v++)
        for (int r = thread; p->values[v].is_input && r < exec_n_rows(x, v); r += n_threads) exec_quantize_row(x, v, r);
}

static void run_plan(void *arg, int thread, int n_threads)
{
    const exec *x = arg;
    const compiled *c = x->c;
    exec_rope_tables(x, thread, n_threads);
    quantize_inputs(x, thread, n_threads);
    team_barrier(x->be->team);
    for (int i = 0; i < c->plan->n_ops; i++) {
        if (c->barrier_before[i]) team_barrier(x->be->team);
        op_table[c->plan->ops[i].kind](x, &c->plan->ops[i], thread, n_threads);
    }
}

/* Every op between barriers of its own; thread 0 looks at the clock. */
typedef struct timed_run {
    exec x;
    double *op_ms;
} timed_run;

static void run_plan_timed(void *arg, int thread, int n_threads)
{
    const timed_run *t = arg;
    const compiled *c = t->x.c;
    exec_rope_tables(&t->x, thread, n_threads);
    quantize_inputs(&t->x, thread, n_threads);
    for (int i = 0; i < c->plan->n_ops; i++) {
        team_barrier(t->x.be->team);
        const uint64_t t0 = clock_ns();
        op_table[c->plan->ops[i].kind](&t->x, &c->plan->ops[i], thread, n_threads);
        team_barrier(t->x.be->team);
        if (thread == 0) t->op_ms[i] = (double)(clock_ns() - t0) * 1e-6;
    }
}

static facet_status begin_run(cpu_backend *be, compiled *c, const batch *in, facet_error *err)
{
    if (in->n_rows < 1 || in->n_rows > c->max_rows || in->n_out > c->max_out)
        return error_set(err, FACET_ERR_LIMIT, "batch of %d rows and %d wanted ones: this plan takes %d and %d",
                         in->n_rows, in->n_out, c->max_rows, c->max_out);
    cpu_pages_prepare(be, in);
    for (int i = 0; i < 2 * c->plan->n_ops; i++) atomic_store_explicit(&c->next[i], 0, memory_order_relaxed);
    return FACET_OK;
}

static facet_status cpu_run(backend *b, compiled *c, const batch *in, facet_error *err)
{
    exec x = {.be = self(b), .c = c, .batch = in};
    FACET_TRY(begin_run(x.be, c, in, err));
    team_run(x.be->team, run_plan, &x);
    return FACET_OK;
}

static facet_status cpu_run_timed(backend *b, compiled *c, const batch *in, double *op_ms, facet_error *err)
{
    timed_run t = {.x = {.be = self(b), .c = c, .batch = in}, .op_ms = op_ms};
    FACET_TRY(begin_run(t.x.be, c, in, err));
    team_run(t.x.be->team, run_plan_timed, &t);
    return FACET_OK;
}

static facet_status cpu_measure(backend *b, backend_ceilings *out, facet_error *err)
{
    return cpu_measure_ceilings(self(b)->team, out, err);
}

/* Rows of a value that there is memory for; 0 for none. */
static int n_rows_held(const compiled *c, int value)
{
    if (value < 0 || value >= c->plan->n_values) return 0;
    return c->plan->values[value].rows == ROWS_ALL ? c->max_rows : c->max_out;
}

static facet_status cpu_read(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err)
{
    (void)b;
    FACET_TRY(row_access_check(c->plan, value, row, n, n_rows_held(c, value), false, err));
    const size_t width = c->plan->values[value].width;
    memcpy(dst, c->values[value].f32 + (size_t)row * width, (size_t)n * width * sizeof(float));
    return FACET_OK;
}

static facet_status cpu_write(backend *b, compiled *c, int value, int row, int n, const void *src, facet_error *err)
{
    (void)b;
    FACET_TRY(row_access_check(c->plan, value, row, n, n_rows_held(c, value), true, err));
    const size_t width = c->plan->values[value].width;
    memcpy(c->values[value].f32 + (size_t)row * width, src, (size_t)n * width * sizeof(float));
    return FACET_OK;
}

static facet_status cpu_copy_rows(backend *b, const row_copy *m, facet_error *err)
{
    (void)b;
    FACET_TRY(row_copy_check(m, m->src->plan, n_rows_held(m->src, m->src_value), m->dst->plan,
                             n_rows_held(m->dst, m->dst_value), err));
    const size_t from = m->src->plan->values[m->src_value].width, to = m->dst->plan->values[m->dst_value].width;
    const float *src = m->src->values[m->src_value].f32 + m->src_column;
    float *dst = m->dst->values[m->dst_value].f32 + (size_t)m->dst_row * to + m->dst_column;
    for (size_t i = 0; i < (size_t)m->n; i++)
        memmove(dst + i * to, src + (m->src_rows ? (size_t)m->src_rows[i] : i) * from,
                (m->width ? m->width : from) * sizeof *dst);
    return FACET_OK;
}

/* ---- the rest ---- */

static void cpu_info(const backend *b, backend_info *out)
{
    const cpu_backend *be = (const cpu_backend *)b;
    *out = (backend_info){.memory_total = mem_available(),
                          .memory_free = mem_available(),
                          .weight_bytes = be->packed_bytes,
                          .kv_bytes = be->kv_bytes,
                          .compute_bytes = be->compute_bytes};
    snprintf(out->name, sizeof out->name, "%s", be->is_ref ? "ref" : "cpu");
    snprintf(out->page_layout, sizeof out->page_layout, "tiles-%d", ATTN_TILE);
    snprintf(out->description, sizeof out->description, "%d threads, %s", team_size(be->team),
             be->is_ref ? "scalar" : cpu_features_text());
}

static void cpu_close(backend *b)
{
    if (!b) return;
    cpu_backend *be = self(b);
    cpu_weights_free(be);
    cpu_pages_free(be);
    team_close(be->team);
    mem_free(be);
}

static const backend_ops cpu_ops = {
    .load = cpu_load,
    .kv_alloc = cpu_kv_alloc,
    .compile = cpu_compile,
    .release = cpu_release,
    .run = cpu_run,
    .read = cpu_read,
    .run_timed = cpu_run_timed,
    .measure = cpu_measure,
    .write = cpu_write,
    .copy_rows = cpu_copy_rows,
    .move = cpu_move,
    .unload = cpu_unload,
    .reload = cpu_reload,
    .kv_drop = cpu_kv_drop,
    .kv_renew = cpu_kv_renew,
    .kv_read = cpu_kv_read,
    .kv_write = cpu_kv_write,
    .info = cpu_info,
    .close = cpu_close,
};

facet_status backend_cpu_open(const backend_config *cfg, bool is_ref, backend **out, facet_error *err)
{
    cpu_backend *be = mem_calloc(1, sizeof *be);
    if (!be) return error_memory(err, "a backend", sizeof *be);
    be->base.ops = &cpu_ops;
    be->cfg = *cfg;
    be->is_ref = is_ref;
    be->rows = is_ref ? rows_scalar() : rows_best();
    be->quantize = is_ref ? act_quantize : act_quantize_best();
    facet_status status = team_open(exec_n_threads(cfg->n_threads), &be->team, err);
    if (status != FACET_OK) {
        mem_free(be);
        return status;
    }
    *out = &be->base;
    return FACET_OK;
}
