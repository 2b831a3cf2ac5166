/* add.cu: OP_ADD. */
#include "compute/cuda/async.cuh"

/* Grid: quads of columns / BLOCK, rows. The last quad may be short. */
static __global__ void add_kernel(const float *a, const float *b, const int32_t *live, float scale, uint32_t width,
                                  float *out)
{
    const int row = (int)blockIdx.y;
    const uint32_t k = 4 * (blockIdx.x * BLOCK + threadIdx.x);
    const size_t at = (size_t)row * width + k;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0 || k >= width) return;
    if (width % 4 == 0) {
        float4 x = *(const float4 *)(a + at), y = *(const float4 *)(b + at);
        *(float4 *)(out + at) =
            make_float4((x.x + y.x) * scale, (x.y + y.y) * scale, (x.z + y.z) * scale, (x.w + y.w) * scale);
    } else {
        for (uint32_t i = 0; i < 4 && k + i < width; i++) out[at + i] = (a[at + i] + b[at + i]) * scale;
    }
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
    dim3 grid(n_blocks(out.width, 4 * BLOCK), (unsigned)out.n);
    launch_overlapped(p->b, add_kernel, grid, BLOCK, 0, a.data, b.data, out.live, op->scale, out.width, out.data);
}
