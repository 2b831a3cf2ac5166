/* kv_write.cu: OP_KV_WRITE. One block per KV head and row. */
#include "compute/cuda/head.cuh"
#include "compute/cuda/ops.cuh"
#include "compute/cuda/pages.cuh"

typedef struct kv_write_args {
    dev_pages layer;
    dev_tables tables;
    dev_batch in;
    const int32_t *live, *map;
    const float *k, *v, *norm; /* k, v [row, width] */
    uint32_t width;
    float eps;
    int n_rot;
    const double *freq;
    bool has_v_norm;
} kv_write_args;

static __global__ void kv_write_kernel(kv_write_args a)
{
    __shared__ float part[BLOCK_WARPS], h[CUDA_MAX_HEAD_DIM];
    int head = (int)blockIdx.x, row = (int)blockIdx.y, dim = a.layer.head_dim;
    if (a.live[row] < 0) return;
    int source = batch_row(a.map, row);
    size_t at = (size_t)row * a.width + (size_t)head * dim;
    int64_t index = page_index(a.tables, a.in.seq[source], a.layer.group, a.in.slot[source]);

    head_norm(a.k + at, a.norm, dim, a.eps, h, part);
    head_rotate(h, dim, a.n_rot, a.freq, a.in.pos[source]);
    kv_store(a.layer.k_type, page_k(a.layer, index, head), h, dim);
    __syncthreads();

    if (a.has_v_norm) {
        head_norm(a.v + at, NULL, dim, a.eps, h, part);
    } else {
        for (int i = (int)threadIdx.x; i < dim; i += BLOCK) h[i] = a.v[at + i];
        __syncthreads();
    }
    kv_store(a.layer.v_type, page_v(a.layer, index, head), h, dim);
}

facet_status check_kv_write(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, op->kv_layer >= 0 && op->kv_layer < c->b->n_layers, "the layer has pages", err));
    const dev_pages *l = &c->b->layers[op->kv_layer];
    uint32_t width = (uint32_t)(l->n_kv_heads * l->head_dim);
    FACET_TRY(op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->i1),
                        "K and V hold the layer's KV heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->i1), "K and V have the same rows", err));
    FACET_TRY(op_expect(c, op, op->n_rot >= 0 && op->n_rot <= l->head_dim / 2 && (op->n_rot == 0 || op->inv_freq),
                        "n_rot frequencies, at most head_dim / 2", err));
    return op_expect(c, op, op_has_vector(c, op->w0, (uint32_t)l->head_dim), "the norm is as long as a head", err);
}

void launch_kv_write(const cuda_pass *p, const plan_op *op)
{
    rows_view k = view_of(p, op->i0), v = view_of(p, op->i1);
    const dev_pages *l = &p->b->layers[op->kv_layer];
    kv_write_args a = {*l,
                       p->b->tables,
                       p->c->in,
                       k.live,
                       k.map,
                       k.data,
                       v.data,
                       vector_of(p->b, op->w0),
                       k.width,
                       op->eps,
                       op->n_rot,
                       p->c->freqs[op - p->c->p->ops],
                       op->has_v_norm};
    dim3 grid((unsigned)l->n_kv_heads, (unsigned)k.n);
    kv_write_kernel<<<grid, BLOCK, 0, p->b->stream>>>(a);
}
