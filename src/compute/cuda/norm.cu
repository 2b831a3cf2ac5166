/* norm.cu: OP_NORM and OP_NORM_ADD. One block per row and group of columns. */
#include "compute/cuda/ops.cuh"

/* out = rms(x; w or 1), or (add + rms(x; w)) * scale. Grid: groups, rows. */
static __global__ void norm_kernel(const float *x, const float *w, const float *add, const int32_t *live, float eps,
                                   float scale, uint32_t width, uint32_t group, float *out)
{
    __shared__ float part[BLOCK_WARPS];
    int row = (int)blockIdx.y;
    if (live[row] < 0) return;
    size_t at = (size_t)row * width + (size_t)blockIdx.x * group;
    float inverse = block_inverse_rms(x + at, group, eps, part);
    for (uint32_t i = threadIdx.x; i < group; i += BLOCK) {
        float y = x[at + i] * inverse * (w ? w[i] : 1.0f);
        out[at + i] = add ? (add[at + i] + y) * scale : y;
    }
}

static void norm_launch(const cuda_pass *p, const plan_op *op, const float *add)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    uint32_t group = op->group ? op->group : x.width;
    dim3 grid(x.width / group, (unsigned)x.n);
    norm_kernel<<<grid, BLOCK, 0, p->b->stream>>>(x.data, vector_of(p->b, op->w0), add, x.live, op->eps, op->scale,
                                                  x.width, group, out.data);
}

facet_status check_norm(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t width = width_of(c, op->i0), group = op->group ? op->group : width;
    FACET_TRY(op_expect(c, op, width == width_of(c, op->o) && op_same_rows(c, op->i0, op->o),
                        "input and output have the same shape", err));
    FACET_TRY(op_expect(c, op, group && width % group == 0, "groups divide the row", err));
    return op_expect(c, op, op_has_vector(c, op->w0, group), "the weight is as long as a group", err);
}

void launch_norm(const cuda_pass *p, const plan_op *op)
{
    norm_launch(p, op, NULL);
}

facet_status check_norm_add(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, width_of(c, op->i1) == width_of(c, op->o) && op_same_rows(c, op->i1, op->o),
                        "the addend has the shape of the output", err));
    return check_norm(c, op, err);
}

void launch_norm_add(const cuda_pass *p, const plan_op *op)
{
    norm_launch(p, op, view_of(p, op->i1).data);
}
