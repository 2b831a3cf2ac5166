/* rope_q.cu: OP_ROPE_Q. One block per head and row. */
#include "compute/cuda/head.cuh"
#include "compute/cuda/ops.cuh"

static __global__ void rope_q_kernel(const float *x, const float *w, const int32_t *pos, const int32_t *live,
                                     const int32_t *map, float eps, int dim, int n_rot, const double *freq,
                                     uint32_t width, float *out)
{
    __shared__ float part[BLOCK_WARPS], h[CUDA_MAX_HEAD_DIM];
    int head = (int)blockIdx.x, row = (int)blockIdx.y;
    if (live[row] < 0) return;
    size_t at = (size_t)row * width + (size_t)head * dim;
    head_norm(x + at, w, dim, eps, h, part);
    head_rotate(h, dim, n_rot, freq, pos[batch_row(map, row)]);
    for (int i = (int)threadIdx.x; i < dim; i += BLOCK) out[at + i] = h[i];
}

facet_status check_rope_q(const compiled *c, const plan_op *op, facet_error *err)
{
    int64_t width = (int64_t)op->n_heads * op->head_dim;
    FACET_TRY(op_expect(c, op, op->n_heads > 0 && op->head_dim > 0 && op->head_dim <= CUDA_MAX_HEAD_DIM,
                        "head_dim is at most 512", err));
    FACET_TRY(op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->o),
                        "input and output hold n_heads heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    FACET_TRY(op_expect(c, op, op->n_rot >= 0 && op->n_rot <= op->head_dim / 2 && (op->n_rot == 0 || op->inv_freq),
                        "n_rot frequencies, at most head_dim / 2", err));
    return op_expect(c, op, op_has_vector(c, op->w0, (uint32_t)op->head_dim), "the norm is as long as a head", err);
}

void launch_rope_q(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    dim3 grid((unsigned)op->n_heads, (unsigned)x.n);
    rope_q_kernel<<<grid, BLOCK, 0, p->b->stream>>>(x.data, vector_of(p->b, op->w0), p->c->in.pos, x.live, x.map,
                                                    op->eps, op->head_dim, op->n_rot, p->c->freqs[op - p->c->p->ops],
                                                    x.width, out.data);
}
