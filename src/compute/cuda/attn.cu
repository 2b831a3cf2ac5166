/* attn.cu: OP_ATTN: its check, and its launch over the step's list of work. */
#include "compute/cuda/attn_tile.cuh"

facet_status check_attn(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, op->kv_layer >= 0 && op->kv_layer < c->b->n_layers, "the layer has pages", err));
    const dev_pages *l = &c->b->layers[op->kv_layer];
    int64_t width = (int64_t)op->n_heads * l->head_dim;
    FACET_TRY(op_expect(c, op, op->n_heads > 0 && op->n_heads % l->n_kv_heads == 0,
                        "n_heads is a multiple of the layer's KV heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    int window = c->b->groups[l->group].window;
    FACET_TRY(op_expect(c, op, window == 0 || (op->window > 0 && op->window <= window),
                        "the window is no wider than the one that keeps the pages", err));
    return op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->o),
                     "input and output hold n_heads heads", err);
}

static attn_fn kernel_of(int head_dim, bool is_small, int columns)
{
    static attn_fn (*const of[3][2])(int columns) = {{attn_kernel_128, attn_kernel_128_small},
                                                     {attn_kernel_256, attn_kernel_256_small},
                                                     {attn_kernel_512, attn_kernel_512_small}};
    return of[head_dim == 128 ? 0 : head_dim == 256 ? 1 : 2][is_small](columns);
}

facet_status cuda_attn_open(cuda_backend *b, facet_error *err)
{
    for (int head_dim = 128; head_dim <= 512; head_dim *= 2)
        for (int columns = 8; columns <= ATTN_MAX_COLUMNS; columns *= 2)
            for (int is_small = 0; is_small < 2; is_small++)
                FACET_TRY(cuda_check(b,
                                     cudaFuncSetAttribute(kernel_of(head_dim, is_small, columns),
                                                          cudaFuncAttributeMaxDynamicSharedMemorySize, b->shared_bytes),
                                     "kernels", err));
    return FACET_OK;
}

/* Blocks that can have work, as far as they run at once. */
static unsigned n_blocks_of(const cuda_backend *b, const attn_class *k, int n_rows, int columns)
{
    const int per_sm = columns == 8 ? 2 : 1, most = b->n_sms * per_sm;
    const int64_t items = n_rows > ATTN_SPLIT_ROWS ? n_rows : (int64_t)n_rows * k->max_groups;
    return items * k->n_kv_heads < most ? (unsigned)(items * k->n_kv_heads) : (unsigned)most;
}

void launch_attn(const cuda_pass *p, const plan_op *op)
{
    const compiled *c = p->c;
    const int index = c->attn_class_of[op - c->p->ops];
    if (index < 0) {
        attn_any_launch(p, op);
        return;
    }
    const rows_view q = view_of(p, op->i0), out = view_of(p, op->o);
    attn_args a = {};
    a.layer = p->b->layers[op->kv_layer];
    a.tables = p->b->tables;
    a.in = c->in;
    a.map = q.map;
    a.q = q.data;
    a.out = out.data;
    a.k = c->attn_classes[index];
    a.scale = op->attn_scale * 1.44269504f; /* exp(x) = 2^(x log2 e) */
    a.items = c->attn_items;
    a.parts = c->attn_parts;
    a.counters = c->attn_counters;
    const int columns = attn_columns(&a.k, q.n, p->b->shared_bytes);
    attn_lay_out(&a.k, columns, p->b->shared_bytes, &a.place);
    const unsigned grid = n_blocks_of(p->b, &a.k, q.n, columns);
    const bool is_split = q.n <= ATTN_SPLIT_ROWS;
    /* Few columns of a window have few parts, which the last block folds at once. */
    a.folds_apart = is_split && (a.k.window <= 0 || columns > 8);
    const int step = is_split ? a.k.wave_rows : q.n;
    for (int wave = 0; wave * step < q.n; wave++) {
        a.list = c->attn_lists + index * ATTN_MAX_WAVES + wave;
        a.first_row = wave * step;
        launch_overlapped(p->b, kernel_of(a.k.head_dim, a.k.k_type != KV_F16 || a.k.v_type != KV_F16, columns),
                          dim3(grid), attn_warps(columns / 8) * WARP, (size_t)a.place.shared_bytes, a);
        if (a.folds_apart) attn_fold_launch(p->b, a, q.live, q.n - a.first_row < step ? q.n - a.first_row : step);
    }
}
