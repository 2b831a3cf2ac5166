#include "compute/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { VALUE_ALIGN = 64 };

facet_status plan_new(const char *name, plan **out, facet_error *err)
{
    plan *p = mem_calloc(1, sizeof *p);
    if (!p) return error_memory(err, "a plan", sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name);
    p->v_logits = p->v_argmax = p->v_hidden = -1;
    p->v_in_token = p->v_in_hidden = p->v_top_ids = p->v_top_logp = p->v_kept_ids = p->v_kept_logp = -1;
    *out = p;
    return FACET_OK;
}

void plan_free(plan *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_freqs; i++) mem_free(p->freqs[i]);
    mem_free(p->freqs);
    mem_free(p->values);
    mem_free(p->ops);
    mem_free(p->suppress);
    mem_free(p->order);
    mem_free(p);
}

/* Room for one more element in a growing array; false (and the plan marked) when memory is short. */
static bool grow(plan *p, void **array, int n, int *cap, size_t size)
{
    if (n < *cap) return true;
    int want = *cap ? *cap * 2 : 64;
    void *bigger = mem_resize_array(*array, (size_t)want, size);
    if (!bigger) {
        p->failed = true;
        return false;
    }
    *array = bigger;
    *cap = want;
    return true;
}

int plan_value_new(plan *p, row_set rows, value_type type, uint32_t width, bool is_output, const char *fmt, ...)
{
    if (!grow(p, (void **)&p->values, p->n_values, &p->cap_values, sizeof *p->values)) return 0;
    plan_value *v = &p->values[p->n_values];
    *v =
        (plan_value){.type = type, .rows = rows, .width = width, .is_output = is_output, .first_op = -1, .last_op = -1};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->name, sizeof v->name, fmt, ap);
    va_end(ap);
    return p->n_values++;
}

int plan_input_new(plan *p, row_set rows, value_type type, uint32_t width, bool is_output, const char *name)
{
    const int v = plan_value_new(p, rows, type, width, is_output, "%s", name);
    if (!p->failed) p->values[v].is_input = true;
    return v;
}

plan_op *plan_add(plan *p, op_kind kind, int layer)
{
    if (!grow(p, (void **)&p->ops, p->n_ops, &p->cap_ops, sizeof *p->ops)) {
        /* Keeps a place for the caller to write to; plan_finish reports. */
        static _Thread_local plan_op discarded;
        return &discarded;
    }
    plan_op *op = &p->ops[p->n_ops++];
    *op = (plan_op){.kind = kind,
                    .layer = layer,
                    .i0 = -1,
                    .i1 = -1,
                    .o = -1,
                    .o2 = -1,
                    .w0 = -1,
                    .w1 = -1,
                    .w2 = -1,
                    .scale = 1,
                    .scale2 = 1,
                    .kv_layer = -1};
    return op;
}

const double *plan_keep_freqs(plan *p, const double *inv_freq, int n)
{
    double *copy = mem_alloc((size_t)n * sizeof *copy + 1);
    double **list = mem_resize_array(p->freqs, (size_t)p->n_freqs + 1, sizeof *list);
    if (list) p->freqs = list;
    if (!copy || !list) {
        mem_free(copy);
        p->failed = true;
        return NULL;
    }
    memcpy(copy, inv_freq, (size_t)n * sizeof *copy);
    return p->freqs[p->n_freqs++] = copy;
}

/* Takes a copy of n ids; NULL (and the plan marked) when memory is short. */
static int32_t *copy_ids(plan *p, const int32_t *ids, size_t n)
{
    int32_t *copy = mem_alloc(n * sizeof *copy + 1);
    if (!copy) p->failed = true;
    if (copy && n) memcpy(copy, ids, n * sizeof *copy);
    return copy;
}

void plan_keep_suppress(plan *p, const int32_t *ids, int n)
{
    mem_free(p->suppress);
    p->suppress = copy_ids(p, ids, (size_t)n);
    p->n_suppress = p->suppress ? n : 0;
}

const int32_t *plan_keep_order(plan *p, const int32_t *ids, size_t n)
{
    mem_free(p->order);
    return p->order = copy_ids(p, ids, n);
}

static void touch(plan *p, int value, int op)
{
    if (value < 0) return;
    plan_value *v = &p->values[value];
    if (v->first_op < 0) v->first_op = op;
    v->last_op = op;
}

facet_status plan_finish(plan *p, facet_error *err)
{
    if (p->failed) return error_memory(err, "a plan", (size_t)p->n_ops * sizeof *p->ops);
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        touch(p, op->i0, i);
        touch(p, op->i1, i);
        touch(p, op->o, i);
        touch(p, op->o2, i);
    }
    return FACET_OK;
}

static bool owns_memory(const plan_value *v)
{
    return v->is_output || v->is_input;
}

static bool lives_with(const plan_value *a, const plan_value *b)
{
    return a->first_op <= b->last_op && b->first_op <= a->last_op;
}

/* First fit: the lowest offset at which no value of overlapping lifetime lies. */
static size_t first_fit(const plan *p, int v, const size_t *size, const size_t *offsets)
{
    size_t at = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int u = 0; u < v; u++) {
            const plan_value *a = &p->values[u], *b = &p->values[v];
            bool together = owns_memory(a) || owns_memory(b) || lives_with(a, b);
            if (together && size[u] && at < offsets[u] + size[u] && offsets[u] < at + size[v]) {
                at = offsets[u] + size[u];
                moved = 1;
            }
        }
    }
    return at;
}

facet_status plan_layout(const plan *p, int max_rows, int max_out, size_t *offsets, size_t *total, facet_error *err)
{
    size_t *size = mem_calloc((size_t)p->n_values + 1, sizeof *size);
    if (!size) return error_memory(err, "the layout of a plan", (size_t)p->n_values * sizeof *size);
    size_t end = 0;
    for (int v = 0; v < p->n_values; v++) {
        size_t rows = (size_t)(p->values[v].rows == ROWS_ALL ? max_rows : max_out);
        size[v] = p->values[v].first_op < 0 && !p->values[v].is_input
                      ? 0
                      : (rows * p->values[v].width * 4 + VALUE_ALIGN - 1) / VALUE_ALIGN * VALUE_ALIGN;
        offsets[v] = first_fit(p, v, size, offsets);
        if (offsets[v] + size[v] > end) end = offsets[v] + size[v];
    }
    mem_free(size);
    *total = end;
    return FACET_OK;
}

const char *op_kind_name(op_kind k)
{
    static const char *const names[OP_KIND_COUNT] = {
        [OP_EMBED] = "embed",   [OP_NORM] = "norm",           [OP_NORM_ADD] = "norm_add",   [OP_ADD] = "add",
        [OP_LINEAR] = "linear", [OP_GATED] = "gated",         [OP_ROPE_Q] = "rope_q",       [OP_KV_WRITE] = "kv_write",
        [OP_ATTN] = "attn",     [OP_MOE_ROUTE] = "moe_route", [OP_MOE_GATED] = "moe_gated", [OP_MOE_DOWN] = "moe_down",
        [OP_GATHER] = "gather", [OP_CAPTURE] = "capture",     [OP_ARGMAX] = "argmax",       [OP_CONCAT] = "concat",
        [OP_TOPK] = "topk",     [OP_CENTROIDS] = "centroids",
    };
    return k < OP_KIND_COUNT ? names[k] : "?";
}
