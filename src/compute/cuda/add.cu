/* add.cu: OP_ADD. */
#include "compute/cuda/ops.cuh"

static __global__ void add_kernel(const float *a, const float *b, const int32_t *live, float scale, uint32_t width,
                                  float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    if (live[row] < 0 || k >= width) return;
    size_t at = (size_t)row * width + k;
    out[at] = (a[at] + b[at]) * scale;
}

facet_status check_add(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t width = width_of(c, op->o);
    return op_expect(c, op,
                     width == width_of(c, op->i0) && width == width_of(c, op->i1) && op_same_rows(c, op->i0, op->o) &&
                         op_same_rows(c, op->i1, op->o),
                     "inputs and output have the same shape", err);
}

void launch_add(const cuda_pass *p, const plan_op *op)
{
    rows_view a = view_of(p, op->i0), b = view_of(p, op->i1), out = view_of(p, op->o);
    dim3 grid(n_blocks(out.width, BLOCK), (unsigned)out.n);
    add_kernel<<<grid, BLOCK, 0, p->b->stream>>>(a.data, b.data, out.live, op->scale, out.width, out.data);
}
