/* backend.c: the CPU backends: weights, cache memory, compiled plans, runs. */
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

/* ---- compile ---- */

static bool takes_float(const cpu_backend *be, int w)
{
    return type_is_float(be->weights[w].type);
}

/* Marks the values that products with quantised weights read. */
static void find_twins(const cpu_backend *be, const plan *p, uint32_t *segment)
{
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        const bool is_product = op->kind == OP_LINEAR || op->kind == OP_GATED || op->kind == OP_MOE_GATED ||
                                op->kind == OP_MOE_DOWN || op->kind == OP_CENTROIDS;
        if (!is_product || takes_float(be, op->w0)) continue;
        segment[op->i0] = op->kind == OP_MOE_DOWN ? (uint32_t)op->n_ff : p->values[op->i0].width;
    }
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Shared and per-thread scratch that the plan's ops need. */
static void size_scratch(const cpu_backend *be, compiled *c)
{
    const plan *p = c->plan;
    const int n_threads = team_size(be->team);
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        const size_t rows = op->o < 0 ? 0 : (size_t)(p->values[op->o].rows == ROWS_ALL ? c->max_rows : c->max_out);
        size_t shared = 0, own = 0;
        if (op->kind == OP_GATED) shared = rows * p->values[op->o].width;
        if (op->kind == OP_MOE_DOWN) shared = rows * (size_t)op->n_used * p->values[op->o].width;
        if (op->kind == OP_TOPK) shared = topk_scratch_floats((int)rows, p->values[op->i0].width);
        if (op->kind == OP_CENTROIDS) own = 2 * (size_t)op->n_used;
        if (op->kind == OP_MOE_ROUTE) own = p->values[op->i0].width + (size_t)op->n_experts;
        if (op->kind == OP_KV_WRITE) own = (size_t)op->head_dim;
        if (op->kind == OP_ATTN) {
            own = attn_scratch_floats(op->n_heads, op->n_kv_heads, op->head_dim);
            const int split_rows = 2 * n_threads / op->n_kv_heads + 1;
            const int64_t n_splits =
                (int64_t)be->kv.groups[be->kv.layers[op->kv_layer].group].n_pages * KV_PAGE_LEN / ATTN_SPLIT + 2;
            const size_t parts = (size_t)split_rows * (size_t)n_splits * (size_t)op->n_heads *
                                 ((size_t)op->head_dim + 2) * sizeof(float);
            c->parts_bytes = max_size(c->parts_bytes, parts);
        }
        if (op->kind == OP_LINEAR || op->kind == OP_GATED)
            own = linear_tile_bytes(be->weights[op->w0].type, (uint32_t)be->weights[op->w0].ne[0]) / sizeof(float);
        if (op->kind == OP_GATED)
            own = max_size(own, linear_tile_bytes(be->weights[op->w1].type, (uint32_t)be->weights[op->w1].ne[0]) /
                                    sizeof(float));
        if (op->kind == OP_MOE_GATED || op->kind == OP_MOE_DOWN) {
            const weight *w = &be->weights[op->w0];
            own = moe_scratch_floats((uint32_t)w->ne[0], (uint32_t)w->ne[1],
                                     linear_tile_bytes(w->type, (uint32_t)w->ne[0]));
        }
        c->scratch_bytes = max_size(c->scratch_bytes, shared * sizeof(float));
        c->thread_scratch_floats = max_size(c->thread_scratch_floats, (own + 15) / 16 * 16);
    }
    c->thread_scratch_bytes = c->thread_scratch_floats * (size_t)n_threads * sizeof(float);
}

static bool is_row_wise(op_kind k)
{
    return k == OP_EMBED || k == OP_NORM || k == OP_NORM_ADD || k == OP_ADD || k == OP_ROPE_Q || k == OP_KV_WRITE ||
           k == OP_CAPTURE || k == OP_MOE_ROUTE || k == OP_CONCAT;
}

static bool uses_scratch(op_kind k)
{
    return k == OP_GATED || k == OP_MOE_DOWN || k == OP_ATTN || k == OP_TOPK;
}

/* Whether the memory of value o (-1: none) overlaps that of a value which q reads or writes. */
static bool overwrites(int o, const plan_op *q, const size_t *offsets, const size_t *bytes)
{
    const int touched[4] = {q->o, q->o2, q->i0, q->i1};
    bool is_met = false;
    for (int t = 0; t < 4 && o >= 0; t++)
        is_met |= touched[t] >= 0 && offsets[o] < offsets[touched[t]] + bytes[touched[t]] &&
                  offsets[touched[t]] < offsets[o] + bytes[o];
    return is_met;
}

/* A barrier stands before an op that reads what another op wrote since the last barrier, unless both treat each row
 * alone over the same set of rows (a row then stays with one thread); and before an op whose output memory overlaps a
 * value touched since then, since values share memory and their rows do not line up. */
static void place_barriers(compiled *c, const size_t *offsets, const size_t *bytes)
{
    const plan *p = c->plan;
    int since = 0; /* first op after the last barrier */
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        bool need = false;
        for (int j = since; j < i && !need; j++) {
            const plan_op *q = &p->ops[j];
            const bool same_rows = op->o >= 0 && q->o >= 0 && p->values[op->o].rows == p->values[q->o].rows;
            const bool keeps_rows = is_row_wise(op->kind) && is_row_wise(q->kind) && same_rows;
            const int reads[2] = {op->i0, op->i1};
            for (int r = 0; r < 2 && !keeps_rows; r++) need |= reads[r] >= 0 && (reads[r] == q->o || reads[r] == q->o2);
            need |= overwrites(op->o, q, offsets, bytes) || overwrites(op->o2, q, offsets, bytes);
            need |= op->kind == OP_ATTN && q->kind == OP_KV_WRITE;
            need |= op->kind == OP_KV_WRITE && q->kind == OP_ATTN;
        }
        for (int j = since; j < i && uses_scratch(op->kind); j++) need |= uses_scratch(p->ops[j].kind);
        c->barrier_before[i] = need;
        if (need) since = i;
    }
}

static facet_status collect_freqs(compiled *c, facet_error *err)
{
    for (int i = 0; i < c->plan->n_ops; i++) {
        const plan_op *op = &c->plan->ops[i];
        if ((op->kind != OP_ROPE_Q && op->kind != OP_KV_WRITE) || !op->inv_freq) continue;
        int t = 0;
        while (t < c->n_freqs && c->freqs[t] != op->inv_freq) t++;
        if (t == MAX_FREQ_TABLES)
            return error_set(err, FACET_ERR_LIMIT, "plan %s: more than %d rotation tables", c->plan->name,
                             MAX_FREQ_TABLES);
        if (t < c->n_freqs) continue;
        c->freqs[t] = op->inv_freq;
        c->freq_len[t] = op->n_rot;
        c->rope_bytes[t] = (size_t)c->max_rows * (size_t)op->n_rot * 2 * sizeof(float);
        c->n_freqs++;
    }
    return FACET_OK;
}

static uint64_t compiled_bytes(const compiled *c)
{
    uint64_t sum = c->memory_bytes + c->scratch_bytes + c->parts_bytes + c->thread_scratch_bytes;
    for (int t = 0; t < c->n_freqs; t++) sum += c->rope_bytes[t];
    return sum;
}

static void cpu_release(backend *b, compiled *c)
{
    if (!c) return;
    if (b) self(b)->compute_bytes -= compiled_bytes(c);
    mem_unmap(c->memory, c->memory_bytes);
    mem_unmap(c->scratch, c->scratch_bytes);
    mem_unmap(c->parts, c->parts_bytes);
    mem_unmap(c->thread_scratch, c->thread_scratch_bytes);
    for (int t = 0; t < c->n_freqs; t++) mem_unmap(c->rope[t], c->rope_bytes[t]);
    mem_free(c->values);
    mem_free(c->barrier_before);
    mem_free(c->next);
    mem_free(c);
}

/* Memory: the values, then the quantised twins. */
static facet_status lay_out(cpu_backend *be, compiled *c, facet_error *err)
{
    const plan *p = c->plan;
    const size_t n = (size_t)p->n_values + 1;
    size_t *offsets = mem_calloc(n, sizeof *offsets), *bytes = mem_calloc(n, sizeof *bytes),
           *twin = mem_calloc(n, sizeof *twin);
    uint32_t *segment = mem_calloc(n, sizeof *segment);
    size_t total = 0;
    facet_status status = offsets && bytes && twin && segment
                              ? plan_layout(p, c->max_rows, c->max_out, offsets, &total, err)
                              : error_memory(err, "the layout of a plan", n * sizeof *offsets);
    if (status == FACET_OK) {
        find_twins(be, p, segment);
        for (int v = 0; v < p->n_values; v++) {
            const size_t rows = (size_t)(p->values[v].rows == ROWS_ALL ? c->max_rows : c->max_out);
            bytes[v] = rows * p->values[v].width * sizeof(float);
            twin[v] = total;
            if (segment[v])
                total += rows * (p->values[v].width / segment[v]) * act_n_blocks(segment[v]) * sizeof(act_block);
        }
        c->memory_bytes = total;
        c->memory = mem_map(total);
        if (!c->memory) status = error_memory(err, "activations", total);
    }
    if (status == FACET_OK) {
        for (int v = 0; v < p->n_values; v++)
            c->values[v] = (value_state){.f32 = (float *)(c->memory + offsets[v]),
                                         .act = segment[v] ? (act_block *)(c->memory + twin[v]) : NULL,
                                         .segment = segment[v] ? segment[v] : p->values[v].width};
        place_barriers(c, offsets, bytes);
    }
    mem_free(offsets);
    mem_free(bytes);
    mem_free(twin);
    mem_free(segment);
    return status;
}

static facet_status compile_into(cpu_backend *be, compiled *c, facet_error *err)
{
    const size_t n_ops = (size_t)c->plan->n_ops;
    c->values = mem_calloc((size_t)c->plan->n_values, sizeof *c->values);
    c->barrier_before = mem_calloc(n_ops, sizeof *c->barrier_before);
    c->next = mem_calloc(2 * n_ops, sizeof *c->next);
    if (!c->values || !c->barrier_before || !c->next) return error_memory(err, "a compiled plan", n_ops * 16);
    FACET_TRY(lay_out(be, c, err));
    size_scratch(be, c);
    FACET_TRY(collect_freqs(c, err));
    c->scratch = mem_map(c->scratch_bytes);
    c->parts = mem_map(c->parts_bytes);
    c->thread_scratch = mem_map(c->thread_scratch_bytes);
    bool ok = c->scratch && c->parts && c->thread_scratch;
    for (int t = 0; t < c->n_freqs; t++) ok &= (c->rope[t] = mem_map(c->rope_bytes[t])) != NULL;
    if (!ok) return error_memory(err, "scratch memory", c->scratch_bytes + c->parts_bytes + c->thread_scratch_bytes);
    be->compute_bytes += compiled_bytes(c);
    return FACET_OK;
}

static facet_status cpu_compile(backend *b, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err)
{
    compiled *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "a compiled plan", sizeof *c);
    c->plan = p;
    c->max_rows = max_rows;
    c->max_out = max_out;
    facet_status status = compile_into(self(b), c, err);
    if (status != FACET_OK) {
        cpu_release(NULL, c);
        return status;
    }
    *out = c;
    return FACET_OK;
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
    facet_status status = team_open(cfg->n_threads > 0 ? cfg->n_threads : cpu_count(), &be->team, err);
    if (status != FACET_OK) {
        mem_free(be);
        return status;
    }
    *out = &be->base;
    return FACET_OK;
}
