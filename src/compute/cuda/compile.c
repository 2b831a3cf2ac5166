/* compile.c: a plan made ready: shapes checked once, memory for values and batches, constants on the device. */
#include <string.h>

#include "base/mem.h"
#include "compute/cuda/state.h"

static facet_status alloc_device(compiled *c, size_t bytes, const char *what, void **out, facet_error *err)
{
    if (!c->is_dry) FACET_TRY(cuda_alloc(c->b, bytes, what, out, err));
    c->device_bytes += bytes;
    c->b->compute_bytes += bytes;
    return FACET_OK;
}

static facet_status alloc_pinned(compiled *c, size_t bytes, const char *what, void **out, facet_error *err)
{
    return c->is_dry ? FACET_OK : cuda_alloc_pinned(c->b, bytes, what, out, err);
}

static facet_status clear(compiled *c, void *at, size_t bytes, facet_error *err)
{
    if (c->is_dry) return FACET_OK;
    return cuda_check(c->b, cudaMemsetAsync(at, 0, bytes, c->b->stream), "clearing activations", err);
}

static facet_status upload(compiled *c, const void *src, size_t bytes, const char *what, void **out, facet_error *err)
{
    cuda_backend *b = c->b;
    FACET_TRY(alloc_device(c, bytes, what, out, err));
    if (c->is_dry) return FACET_OK;
    FACET_TRY(cuda_check(b, cudaMemcpyAsync(*out, src, bytes, cudaMemcpyHostToDevice, b->stream), what, err));
    return cuda_check(b, cudaStreamSynchronize(b->stream), what, err);
}

static facet_status check_ops(compiled *c, facet_error *err)
{
    bool sees_all = false;
    for (int i = 0; i < c->p->n_ops; i++) {
        FACET_TRY(cuda_op_check(c, i, err));
        op_kind kind = c->p->ops[i].kind;
        c->uses_kv |= kind == OP_KV_WRITE || kind == OP_ATTN;
        sees_all |= kind == OP_KV_WRITE || (kind == OP_ATTN && c->p->ops[i].sight != SIGHT_COMMITTED);
    }
    c->sees_committed = !sees_all;
    return FACET_OK;
}

static facet_status alloc_values(compiled *c, facet_error *err)
{
    c->offsets = mem_calloc((size_t)c->p->n_values + 1, sizeof *c->offsets);
    if (!c->offsets) return error_memory(err, "the layout of a plan", (size_t)c->p->n_values * sizeof *c->offsets);
    FACET_TRY(cuda_layout(c, c->offsets, &c->values_bytes, err));
    FACET_TRY(alloc_device(c, c->values_bytes, "activations", (void **)&c->values, err));
    /* Padding rows are read (never stored): they must not look like anything but zeros to a memory checker. */
    return clear(c, c->values, c->values_bytes, err);
}

enum { BATCH_ARRAYS = 8 }; /* of one int32 per row */

/* The arrays of a dev_batch inside one block, the paths last. */
static dev_batch lay_batch(uint8_t *block, size_t max_rows, size_t path_at)
{
    int32_t *at = (int32_t *)(void *)block;
    return (dev_batch){.token = at,
                       .pos = at + max_rows,
                       .slot = at + 2 * max_rows,
                       .seq = at + 3 * max_rows,
                       .out_row = at + 4 * max_rows,
                       .base = at + 5 * max_rows,
                       .committed = at + 6 * max_rows,
                       .end = at + 7 * max_rows,
                       .path = block + path_at};
}

/* The arrays, then lists and items of attention, then the paths. */
static facet_status alloc_batch(compiled *c, facet_error *err)
{
    const size_t n = (size_t)(c->max_rows > c->max_out ? c->max_rows : c->max_out);
    const size_t lists_at = BATCH_ARRAYS * n * sizeof(int32_t);
    c->items_at = lists_at + (size_t)c->n_attn_classes * ATTN_MAX_WAVES * sizeof(attn_list);
    c->path_at = c->items_at + c->attn_items_cap * sizeof(attn_item);
    c->batch_bytes = c->path_at + n * BATCH_MAX_TREE;
    FACET_TRY(alloc_pinned(c, c->batch_bytes, "a batch", (void **)&c->host_batch, err));
    FACET_TRY(alloc_device(c, c->batch_bytes, "a batch", (void **)&c->device_batch, err));
    if (c->is_dry) return FACET_OK;
    memset(c->host_batch, 0, c->batch_bytes);
    c->in_host = lay_batch(c->host_batch, n, c->path_at);
    c->in = lay_batch(c->device_batch, n, c->path_at);
    c->attn_host_lists = (attn_list *)(void *)(c->host_batch + lists_at);
    c->attn_lists = (attn_list *)(void *)(c->device_batch + lists_at);
    c->attn_host_items = (attn_item *)(void *)(c->host_batch + c->items_at);
    c->attn_items = (attn_item *)(void *)(c->device_batch + c->items_at);
    return clear(c, c->device_batch, c->batch_bytes, err);
}

static facet_status alloc_attn(compiled *c, facet_error *err)
{
    if (!c->n_attn_classes) return FACET_OK;
    FACET_TRY(alloc_device(c, c->attn_parts_bytes, "parts of attention", (void **)&c->attn_parts, err));
    FACET_TRY(alloc_device(c, c->attn_counters_bytes, "parts of attention", (void **)&c->attn_counters, err));
    return clear(c, c->attn_counters, c->attn_counters_bytes, err);
}

/* The table of an earlier op with the same rotation, or NULL. */
static dev_turns *find_turns(const compiled *c, int op)
{
    const plan_op *ops = c->p->ops;
    for (int i = 0; i < c->n_tables; i++) {
        const plan_op *first = &ops[c->tables_of_turns[i].first_op];
        if (first->inv_freq == ops[op].inv_freq && first->n_rot == ops[op].n_rot) return &c->tables_of_turns[i];
    }
    return NULL;
}

static facet_status alloc_turns(compiled *c, facet_error *err)
{
    const size_t n = (size_t)c->p->n_ops;
    c->turns = mem_calloc(n + 1, sizeof *c->turns);
    c->tables_of_turns = mem_calloc(n + 1, sizeof *c->tables_of_turns);
    if (!c->turns || !c->tables_of_turns) return error_memory(err, "rotation tables", n * sizeof *c->tables_of_turns);
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        bool turns = (op->kind == OP_ROPE_Q || op->kind == OP_KV_WRITE) && op->n_rot > 0;
        if (!turns) continue;
        c->turns[i] = find_turns(c, i);
        if (c->turns[i]) continue;
        dev_turns *t = c->turns[i] = &c->tables_of_turns[c->n_tables++];
        t->first_op = i;
        size_t n_rot = (size_t)op->n_rot, rows = (size_t)c->max_rows;
        FACET_TRY(upload(c, op->inv_freq, n_rot * sizeof(double), "rotation tables", (void **)&t->freq, err));
        FACET_TRY(alloc_device(c, rows * n_rot * 2 * sizeof(float), "rotation tables", &t->turns, err));
    }
    return FACET_OK;
}

static facet_status alloc_host_rows(compiled *c, facet_error *err)
{
    c->host_rows_of = mem_calloc((size_t)c->p->n_ops + 1, sizeof *c->host_rows_of);
    if (!c->host_rows_of) return error_memory(err, "row tables", (size_t)c->p->n_ops * sizeof *c->host_rows_of);
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind != OP_EMBED || c->b->weights[op->w0].data) continue;
        host_rows *h = &c->host_rows_of[c->n_host_rows++];
        h->op = i;
        size_t bytes = (size_t)c->max_rows * c->b->weights[op->w0].n_in * sizeof(float);
        FACET_TRY(alloc_pinned(c, bytes, "embedding rows", (void **)&h->host, err));
        FACET_TRY(alloc_device(c, bytes, "embedding rows", (void **)&h->device, err));
    }
    return FACET_OK;
}

/* A plan has one vocabulary order at most (plan_keep_order). */
static facet_status upload_order(compiled *c, facet_error *err)
{
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind != OP_CENTROIDS || c->order) continue;
        const size_t n = (size_t)op->n_experts * op->group;
        FACET_TRY(upload(c, op->order, n * sizeof *op->order, "a vocabulary order", (void **)&c->order, err));
    }
    return FACET_OK;
}

static size_t packed_bytes(const compiled *c, int w)
{
    const dev_weight *d = w < 0 ? NULL : &c->b->weights[w];
    return d && d->record_bytes ? cuda_wide_bytes(c->max_rows, d->n_in, d->type) : 0;
}

/* Room for the activations of any one product of many rows. */
static facet_status alloc_packed(compiled *c, facet_error *err)
{
    size_t most = 0;
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind != OP_LINEAR && op->kind != OP_GATED) continue;
        const size_t first = packed_bytes(c, op->w0), second = packed_bytes(c, op->w1);
        if (first > most) most = first;
        if (second > most) most = second;
    }
    return most ? alloc_device(c, most, "activations", (void **)&c->packed, err) : FACET_OK;
}

static facet_status alloc_moe(compiled *c, facet_error *err)
{
    size_t at[6];
    const size_t bytes = cuda_moe_room(c, at);
    if (!bytes) return FACET_OK;
    FACET_TRY(alloc_device(c, bytes, "the workspace of experts", (void **)&c->moe_memory, err));
    c->moe = (moe_work){.logits = (float *)(void *)(c->moe_memory + at[0]),
                        .pairs = (int32_t *)(void *)(c->moe_memory + at[1]),
                        .batches = (moe_batch *)(void *)(c->moe_memory + at[2]),
                        .n_batches = (int32_t *)(void *)(c->moe_memory + at[3]),
                        .counters = (int32_t *)(void *)(c->moe_memory + at[4]),
                        .sums = (float *)(void *)(c->moe_memory + at[5])};
    cuda_moe_columns(c);
    return clear(c, c->moe_memory, bytes, err);
}

static facet_status compile_into(compiled *c, facet_error *err)
{
    FACET_TRY(check_ops(c, err));
    FACET_TRY(cuda_join_ops(c, err));
    FACET_TRY(cuda_moe_join(c, err));
    FACET_TRY(alloc_moe(c, err));
    FACET_TRY(alloc_values(c, err));
    FACET_TRY(cuda_attn_classes(c, err));
    FACET_TRY(alloc_batch(c, err));
    FACET_TRY(alloc_attn(c, err));
    FACET_TRY(alloc_turns(c, err));
    FACET_TRY(alloc_host_rows(c, err));
    FACET_TRY(upload_order(c, err));
    FACET_TRY(alloc_packed(c, err));
    if (!c->p->n_suppress) return FACET_OK;
    return upload(c, c->p->suppress, (size_t)c->p->n_suppress * sizeof(int32_t), "suppressed ids",
                  (void **)&c->suppress, err);
}

facet_status cuda_compile(backend *base, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    if (max_rows < 1 || max_rows > CUDA_MAX_ROWS || max_out < 0 || max_out > max_rows)
        return error_set(err, FACET_ERR_LIMIT, "%d rows and %d wanted ones: a CUDA batch takes 1 to %d rows", max_rows,
                         max_out, CUDA_MAX_ROWS);
    compiled *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "a compiled plan", sizeof *c);
    c->b = b;
    c->p = p;
    c->max_rows = max_rows;
    c->max_out = max_out;
    facet_status status = compile_into(c, err);
    if (status == FACET_OK)
        *out = c;
    else
        cuda_release(base, c);
    return status;
}

static void free_graphs(compiled *c)
{
    for (int i = 0; i < CUDA_N_WIDTHS; i++)
        for (int j = 0; j <= CUDA_N_WIDTHS; j++)
            if (c->graphs[i][j].exec) (void)cudaGraphExecDestroy(c->graphs[i][j].exec);
}

static void free_device(compiled *c)
{
    (void)cudaSetDevice(c->b->device);
    free_graphs(c);
    for (int i = 0; i < c->n_tables; i++) {
        (void)cudaFree(c->tables_of_turns[i].freq);
        (void)cudaFree(c->tables_of_turns[i].turns);
    }
    for (int i = 0; i < c->n_host_rows; i++) {
        (void)cudaFreeHost(c->host_rows_of[i].host);
        (void)cudaFree(c->host_rows_of[i].device);
    }
    (void)cudaFree(c->values);
    (void)cudaFree(c->device_batch);
    (void)cudaFree(c->suppress);
    (void)cudaFree(c->order);
    (void)cudaFree(c->packed);
    (void)cudaFree(c->attn_parts);
    (void)cudaFree(c->attn_counters);
    (void)cudaFree(c->moe_memory);
    (void)cudaFreeHost(c->host_batch);
}

static void free_host(compiled *c)
{
    mem_free(c->tables_of_turns);
    mem_free(c->turns);
    mem_free(c->host_rows_of);
    mem_free(c->offsets);
    mem_free(c->covers);
    mem_free(c->attn_classes);
    mem_free(c->attn_class_of);
    mem_free(c->moe_blocks);
    mem_free(c->moe_block_of);
}

void cuda_release(backend *base, compiled *c)
{
    (void)base;
    if (!c) return;
    free_device(c);
    free_host(c);
    c->b->compute_bytes -= c->device_bytes;
    mem_free(c);
}

/* A backend of which nothing but its weights is looked at, and those are nowhere. */
static facet_status describe_weights(const weight *weights, int n, cuda_backend *b, facet_error *err)
{
    static const uint8_t nowhere;
    b->weights = mem_calloc((size_t)n + 1, sizeof *b->weights);
    if (!b->weights) return error_memory(err, "the weight table", (size_t)n * sizeof *b->weights);
    for (int i = 0; i < n; i++) b->weights[i] = cuda_describe_weight(&weights[i], &nowhere);
    b->n_weights = n;
    return FACET_OK;
}

facet_status backend_cuda_plan_bytes(const weight *weights, int n, const plan *p, const kv_desc *kv, int max_rows,
                                     int max_out, uint64_t *out, facet_error *err)
{
    /* Of a card's sizes only the first has a part in what is allocated; no card has more. */
    cuda_backend b = {.shared_bytes = 227 << 10, .n_sms = 132};
    compiled c = {.b = &b, .p = p, .max_rows = max_rows, .max_out = max_out, .is_dry = true};
    facet_status status = describe_weights(weights, n, &b, err);
    if (status == FACET_OK) status = cuda_pages_describe(&b, kv, err);
    if (status == FACET_OK) status = compile_into(&c, err);
    if (status == FACET_OK) *out = c.device_bytes;
    free_host(&c);
    mem_free(b.layers);
    mem_free(b.weights);
    return status;
}
