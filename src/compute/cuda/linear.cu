/* linear.cu: OP_LINEAR. Weights in tile records are multiplied by product.cu. For the others: one warp per output and
 * tile of rows; a weight is decoded once for the tile. Every row keeps the order of warp_dot, so its bits do not depend
 * on the tile. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/decode.cuh"
#include "compute/cuda/epilogue.cuh"
#include "compute/cuda/product.cuh"

enum { TILE_ROWS = 8 };

typedef struct linear_args {
    const uint8_t *w;
    size_t row_bytes;
    uint32_t n_in, n_out;
    const float *x; /* [n_rows, n_in] */
    float *out;     /* [n_rows, n_out] */
    const int32_t *live;
    int n_rows;
    float scale;
    linear_epilogue epilogue;
} linear_args;

/* Grid: outputs / BLOCK_WARPS, rows / TILE_ROWS. Padding rows are summed (their memory exists) but not stored. */
template <int T> static __global__ void linear_kernel(linear_args a)
{
    uint32_t n = blockIdx.x * BLOCK_WARPS + (uint32_t)warp_id();
    if (n >= a.n_out) return;
    int first = (int)blockIdx.y * TILE_ROWS, rows = min((int)TILE_ROWS, a.n_rows - first);
    const uint8_t *w = a.w + n * a.row_bytes;
    const float *x = a.x + (size_t)first * a.n_in;
    float sum[TILE_ROWS] = {};
    for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP) {
        float wk = device_type<T>::at(w, k);
#pragma unroll
        for (int i = 0; i < TILE_ROWS; i++)
            if (i < rows) sum[i] = __fmaf_rn(wk, x[(size_t)i * a.n_in + k], sum[i]);
    }
#pragma unroll
    for (int i = 0; i < TILE_ROWS; i++) {
        float y = a.scale * warp_sum(sum[i]);
        int row = first + i;
        if (lane_id() == 0 && i < rows && a.live[row] >= 0)
            a.out[(size_t)row * a.n_out + n] = linear_finish(a.epilogue, y, row, n);
    }
}

static void launch_raw(const cuda_pass *p, const dev_weight *w, const rows_view *x, const rows_view *out, float scale,
                       const linear_epilogue *e)
{
    linear_args a = {w->data, w->row_bytes, w->n_in, w->n_out, x->data, out->data, out->live, out->n, scale, *e};
    dim3 grid(n_blocks(w->n_out, BLOCK_WARPS), n_blocks((size_t)out->n, TILE_ROWS));
    switch (w->type) {
#define LINEAR_CASE(T, LEN, BYTES, DECODE)                                                                             \
    case T: linear_kernel<T><<<grid, BLOCK, 0, p->b->stream>>>(a); break;
        DEVICE_TYPES(LINEAR_CASE)
#undef LINEAR_CASE
    default: break; /* load refuses other types */
    }
}

void linear_launch(const cuda_pass *p, const dev_weight *w, const rows_view *x, const rows_view *out, float scale,
                   const linear_epilogue *e)
{
    if (!product_fits(w)) {
        launch_raw(p, w, x, out, scale, e);
        return;
    }
    product q = {};
    q.x = *x;
    q.w[0] = w;
    q.out[0] = out->data;
    q.scale[0] = scale;
    q.n_parts = 1;
    q.epilogue = *e;
    product_launch(p, &q);
}

/* -inf at the suppressed ids. Grid: rows. */
static __global__ void suppress_kernel(const int32_t *ids, int n, const int32_t *live, uint32_t width, float *logits)
{
    int row = (int)blockIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0) return;
    for (int i = (int)threadIdx.x; i < n; i += BLOCK) logits[(size_t)row * width + (uint32_t)ids[i]] = -CUDART_INF_F;
}

static facet_status check_suppress(const compiled *c, const plan_op *op, facet_error *err)
{
    for (int i = 0; i < c->p->n_suppress; i++) {
        int32_t id = c->p->suppress[i];
        FACET_TRY(op_expect(c, op, id >= 0 && (uint32_t)id < width_of(c, op->o), "suppressed ids are logits", err));
    }
    return FACET_OK;
}

facet_status check_linear(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, width_of(c, op->i0), width_of(c, op->o), 1),
                        "the matrix fits input and output", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    if (op->epilogue == EPI_LOGITS) return check_suppress(c, op, err);
    if (op->epilogue == EPI_NONE) return FACET_OK;
    bool fits = op_same_rows(c, op->i1, op->o) && op->column <= width_of(c, op->i1) &&
                width_of(c, op->o) <= width_of(c, op->i1) - op->column;
    return op_expect(c, op, fits, "the columns lie in the multiplicand", err);
}

/* Products that read the same rows, in one launch. */
static void launch_joined(const cuda_pass *p, const plan_op *op, int n)
{
    product q = {};
    q.x = view_of(p, op->i0);
    q.n_parts = n;
    for (int i = 0; i < n; i++) {
        q.w[i] = weight_of(p->b, op[i].w0);
        q.out[i] = view_of(p, op[i].o).data;
        q.scale[i] = op[i].scale;
    }
    product_launch(p, &q);
}

void launch_linear(const cuda_pass *p, const plan_op *op)
{
    if (covered_by(p, op) > 1) {
        launch_joined(p, op, covered_by(p, op));
        return;
    }
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    linear_epilogue e = {op->epilogue, ACT_GELU, NULL, 0, op->column, op->softcap};
    if (op->epilogue == EPI_GELU_MUL) {
        rows_view mul = view_of(p, op->i1);
        e.mul = mul.data;
        e.mul_width = mul.width;
    }
    linear_launch(p, weight_of(p->b, op->w0), &x, &out, op->scale, &e);
    int n = p->c->p->n_suppress;
    if (op->epilogue == EPI_LOGITS && n)
        launch_overlapped(p->b, suppress_kernel, dim3((unsigned)out.n), BLOCK, 0, p->c->suppress, n, out.live,
                          out.width, out.data);
}
