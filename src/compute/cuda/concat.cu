/* concat.cu: OP_CONCAT: columns of one value, then columns of another. */
#include "compute/cuda/async.cuh"

static __global__ void concat_kernel(const float *a, uint32_t a_width, const float *b, const int32_t *live,
                                     uint32_t width, float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0 || k >= width) return;
    out[(size_t)row * width + k] =
        k < a_width ? a[(size_t)row * a_width + k] : b[(size_t)row * (width - a_width) + k - a_width];
}

facet_status check_concat(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, width_of(c, op->i0) + width_of(c, op->i1) == width_of(c, op->o),
                        "the output is as wide as both inputs", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o) && op_same_rows(c, op->i1, op->o),
                     "inputs and output have the same rows", err);
}

void launch_concat(const cuda_pass *p, const plan_op *op)
{
    rows_view a = view_of(p, op->i0), b = view_of(p, op->i1), out = view_of(p, op->o);
    dim3 grid(n_blocks(out.width, BLOCK), (unsigned)out.n);
    launch_overlapped(p->b, concat_kernel, grid, BLOCK, 0, a.data, a.width, b.data, out.live, out.width, out.data);
}
