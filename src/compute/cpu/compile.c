/* compile.c: a plan made ready for the CPU backends: where values lie, what scratch the ops need, where barriers stand.
 */
#include "base/mem.h"
#include "compute/cpu/exec.h"

/* What sizes depend on beside the plan and its rows. */
typedef struct surroundings {
    const weight *weights;
    const kv_desc *kv;
    int n_threads;
} surroundings;

/* Where values lie: their rows in f32, then the quantised twins. One entry per value. */
typedef struct layout {
    size_t *offsets, *bytes, *twin;
    uint32_t *segment; /* of the twin (value_state); 0: there is none */
    size_t total;
} layout;

static void layout_free(layout *l)
{
    mem_free(l->offsets);
    mem_free(l->bytes);
    mem_free(l->twin);
    mem_free(l->segment);
}

/* Marks the values that products with quantised weights read. */
static void find_twins(const surroundings *x, const plan *p, uint32_t *segment)
{
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        const bool is_product = op->kind == OP_LINEAR || op->kind == OP_GATED || op->kind == OP_MOE_GATED ||
                                op->kind == OP_MOE_DOWN || op->kind == OP_CENTROIDS;
        if (!is_product || type_is_float(x->weights[op->w0].type)) continue;
        segment[op->i0] = op->kind == OP_MOE_DOWN ? (uint32_t)op->n_ff : p->values[op->i0].width;
    }
}

static facet_status layout_measure(const surroundings *x, const compiled *c, layout *l, facet_error *err)
{
    const plan *p = c->plan;
    const size_t n = (size_t)p->n_values + 1;
    l->offsets = mem_calloc(n, sizeof *l->offsets);
    l->bytes = mem_calloc(n, sizeof *l->bytes);
    l->twin = mem_calloc(n, sizeof *l->twin);
    l->segment = mem_calloc(n, sizeof *l->segment);
    if (!l->offsets || !l->bytes || !l->twin || !l->segment)
        return error_memory(err, "the layout of a plan", n * sizeof *l->offsets);
    FACET_TRY(plan_layout(p, c->max_rows, c->max_out, l->offsets, &l->total, err));
    find_twins(x, p, l->segment);
    for (int v = 0; v < p->n_values; v++) {
        const size_t rows = (size_t)(p->values[v].rows == ROWS_ALL ? c->max_rows : c->max_out);
        const uint32_t segment = l->segment[v];
        l->bytes[v] = rows * p->values[v].width * sizeof(float);
        l->twin[v] = l->total;
        if (segment) l->total += rows * (p->values[v].width / segment) * act_n_blocks(segment) * sizeof(act_block);
    }
    return FACET_OK;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Shared and per-thread scratch that the plan's ops need. */
static void size_scratch(const surroundings *x, compiled *c)
{
    const plan *p = c->plan;
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
            own =
                attn_scratch_floats(op->n_heads, op->n_kv_heads, op->head_dim, x->kv->layers[op->kv_layer].rebuilds_k);
            const int split_rows = 2 * x->n_threads / op->n_kv_heads + 1;
            const int64_t n_splits =
                (int64_t)x->kv->groups[x->kv->layers[op->kv_layer].group].n_pages * KV_PAGE_LEN / ATTN_SPLIT + 2;
            const size_t parts = (size_t)split_rows * (size_t)n_splits * (size_t)op->n_heads *
                                 ((size_t)op->head_dim + 2) * sizeof(float);
            c->parts_bytes = max_size(c->parts_bytes, parts);
            if (op->sparse)
                c->sparse_bytes = max_size(c->sparse_bytes, sparse_space_bytes(op, x->kv, (int)rows, x->n_threads));
        }
        if (op->kind == OP_LINEAR || op->kind == OP_GATED) own = exec_pack_floats(&x->weights[op->w0]);
        if (op->kind == OP_GATED) own = max_size(own, exec_pack_floats(&x->weights[op->w1]));
        if (op->kind == OP_LINEAR && op->epilogue == EPI_LOGITS) own += rows * LOGIT_TILES * LINEAR_TILE;
        if (op->kind == OP_MOE_GATED || op->kind == OP_MOE_DOWN) {
            const weight *w = &x->weights[op->w0];
            own = moe_scratch_floats((uint32_t)w->ne[0], (uint32_t)w->ne[1],
                                     linear_tile_bytes(w->type, (uint32_t)w->ne[0]));
        }
        c->scratch_bytes = max_size(c->scratch_bytes, shared * sizeof(float));
        c->thread_scratch_floats = max_size(c->thread_scratch_floats, (own + 15) / 16 * 16);
    }
    c->thread_scratch_bytes = c->thread_scratch_floats * (size_t)x->n_threads * sizeof(float);
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
static bool overwrites(int o, const plan_op *q, const layout *l)
{
    const int touched[4] = {q->o, q->o2, q->i0, q->i1};
    bool is_met = false;
    for (int t = 0; t < 4 && o >= 0; t++)
        is_met |= touched[t] >= 0 && l->offsets[o] < l->offsets[touched[t]] + l->bytes[touched[t]] &&
                  l->offsets[touched[t]] < l->offsets[o] + l->bytes[o];
    return is_met;
}

/* A barrier stands before an op that reads what another op wrote since the last barrier, unless both treat each row
 * alone over the same set of rows (a row then stays with one thread); and before an op whose output memory overlaps a
 * value touched since then, since values share memory and their rows do not line up. */
static void place_barriers(compiled *c, const layout *l)
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
            need |= overwrites(op->o, q, l) || overwrites(op->o2, q, l);
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

/* How the keys of each layer that rebuilds them are made; the tables get their memory later. */
static facet_status collect_rebuilds(const surroundings *x, compiled *c, facet_error *err)
{
    for (int i = 0; i < c->plan->n_ops; i++) {
        const plan_op *op = &c->plan->ops[i];
        if (op->kind != OP_ATTN || !x->kv->layers[op->kv_layer].rebuilds_k) continue;
        if (op->w0 < 0)
            return error_set(err, FACET_ERR_ARG, "plan %s: cache layer %d holds V alone, and its keys have no norm",
                             c->plan->name, op->kv_layer);
        const int n_turn = attn_rebuild_turns(op->head_dim, op->n_rot, x->kv->layers[op->kv_layer].v_type);
        if (exec_rebuild(c, op, n_turn)) continue;
        if (c->n_rebuilds == MAX_REBUILDS)
            return error_set(err, FACET_ERR_LIMIT, "plan %s: more than %d ways to rebuild keys", c->plan->name,
                             MAX_REBUILDS);
        c->rebuild[c->n_rebuilds++] =
            (attn_rebuild){.inv_freq = op->inv_freq, .head_dim = op->head_dim, .n_rot = op->n_rot, .n_turn = n_turn};
        c->rebuild_bytes += attn_rebuild_bytes(n_turn);
    }
    return FACET_OK;
}

static void fill_rebuilds(compiled *c)
{
    uint8_t *at = c->rebuild_tables;
    for (int i = 0; i < c->n_rebuilds; i++) {
        attn_rebuild_init(&c->rebuild[i], at);
        at += attn_rebuild_bytes(c->rebuild[i].n_turn);
    }
}

static uint64_t compiled_bytes(const compiled *c)
{
    uint64_t sum = c->memory_bytes + c->scratch_bytes + c->parts_bytes + c->thread_scratch_bytes + c->rebuild_bytes +
                   c->sparse_bytes;
    for (int t = 0; t < c->n_freqs; t++) sum += c->rope_bytes[t];
    return sum;
}

/* The sizes of all that the plan needs, and where its values will lie. */
static facet_status measure(const surroundings *x, compiled *c, layout *l, facet_error *err)
{
    FACET_TRY(layout_measure(x, c, l, err));
    c->memory_bytes = l->total;
    size_scratch(x, c);
    FACET_TRY(collect_rebuilds(x, c, err));
    return collect_freqs(c, err);
}

facet_status backend_cpu_plan_bytes(const plan *p, const weight *weights, const kv_desc *kv, int n_threads,
                                    int max_rows, int max_out, uint64_t *out, facet_error *err)
{
    const surroundings x = {.weights = weights, .kv = kv, .n_threads = exec_n_threads(n_threads)};
    compiled c = {.plan = p, .max_rows = max_rows, .max_out = max_out};
    layout l = {0};
    const facet_status status = measure(&x, &c, &l, err);
    if (status == FACET_OK) *out = compiled_bytes(&c);
    layout_free(&l);
    return status;
}

void cpu_release(backend *b, compiled *c)
{
    if (!c) return;
    if (b) ((cpu_backend *)b)->compute_bytes -= compiled_bytes(c);
    mem_unmap(c->memory, c->memory_bytes);
    mem_unmap(c->scratch, c->scratch_bytes);
    mem_unmap(c->parts, c->parts_bytes);
    mem_unmap(c->thread_scratch, c->thread_scratch_bytes);
    mem_unmap(c->sparse, c->sparse_bytes);
    mem_unmap(c->rebuild_tables, c->rebuild_bytes);
    for (int t = 0; t < c->n_freqs; t++) mem_unmap(c->rope[t], c->rope_bytes[t]);
    mem_free(c->values);
    mem_free(c->barrier_before);
    mem_free(c->next);
    mem_free(c);
}

static facet_status take_memory(compiled *c, facet_error *err)
{
    const size_t n_ops = (size_t)c->plan->n_ops;
    c->values = mem_calloc((size_t)c->plan->n_values, sizeof *c->values);
    c->barrier_before = mem_calloc(n_ops, sizeof *c->barrier_before);
    c->next = mem_calloc(2 * n_ops, sizeof *c->next);
    if (!c->values || !c->barrier_before || !c->next) return error_memory(err, "a compiled plan", n_ops * 16);
    c->memory = mem_map(c->memory_bytes);
    if (!c->memory) return error_memory(err, "activations", c->memory_bytes);
    c->scratch = mem_map(c->scratch_bytes);
    c->parts = mem_map(c->parts_bytes);
    c->thread_scratch = mem_map(c->thread_scratch_bytes);
    if (c->rebuild_bytes) c->rebuild_tables = mem_map(c->rebuild_bytes);
    if (c->sparse_bytes) c->sparse = mem_map(c->sparse_bytes);
    bool ok = c->scratch && c->parts && c->thread_scratch && (c->rebuild_tables || !c->rebuild_bytes) &&
              (c->sparse || !c->sparse_bytes);
    for (int t = 0; t < c->n_freqs; t++) ok &= (c->rope[t] = mem_map(c->rope_bytes[t])) != NULL;
    return ok ? FACET_OK
              : error_memory(err, "scratch memory",
                             c->scratch_bytes + c->parts_bytes + c->thread_scratch_bytes + c->sparse_bytes);
}

static void place_values(compiled *c, const layout *l)
{
    for (int v = 0; v < c->plan->n_values; v++)
        c->values[v] = (value_state){.f32 = (float *)(c->memory + l->offsets[v]),
                                     .act = l->segment[v] ? (act_block *)(c->memory + l->twin[v]) : NULL,
                                     .segment = l->segment[v] ? l->segment[v] : c->plan->values[v].width};
}

static facet_status compile_into(cpu_backend *be, compiled *c, facet_error *err)
{
    const surroundings x = {.weights = be->weights, .kv = &be->kv, .n_threads = team_size(be->team)};
    layout l = {0};
    facet_status status = measure(&x, c, &l, err);
    if (status == FACET_OK) status = take_memory(c, err);
    if (status == FACET_OK) {
        place_values(c, &l);
        fill_rebuilds(c);
        place_barriers(c, &l);
        be->compute_bytes += compiled_bytes(c);
    }
    layout_free(&l);
    return status;
}

facet_status cpu_compile(backend *b, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err)
{
    compiled *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "a compiled plan", sizeof *c);
    c->plan = p;
    c->max_rows = max_rows;
    c->max_out = max_out;
    facet_status status = compile_into((cpu_backend *)b, c, err);
    if (status != FACET_OK) {
        cpu_release(NULL, c);
        return status;
    }
    *out = c;
    return FACET_OK;
}
