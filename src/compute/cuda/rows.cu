/* rows.cu: OP_GATHER and OP_CAPTURE: rows copied as they are. */
#include "compute/cuda/async.cuh"

/* out row r = x row from[r], or row r when from is NULL. */
static __global__ void copy_rows_kernel(const float *x, const int32_t *from, const int32_t *live, uint32_t width,
                                        float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0 || k >= width) return;
    int source = from ? from[row] : row;
    out[(size_t)row * width + k] = x[(size_t)source * width + k];
}

static void copy_rows_launch(const cuda_pass *p, const plan_op *op, const int32_t *from)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    dim3 grid(n_blocks(out.width, BLOCK), (unsigned)out.n);
    launch_overlapped(p->b, copy_rows_kernel, grid, BLOCK, 0, x.data, from, out.live, out.width, out.data);
}

facet_status check_gather(const compiled *c, const plan_op *op, facet_error *err)
{
    bool sets = c->p->values[op->i0].rows == ROWS_ALL && c->p->values[op->o].rows == ROWS_OUT;
    FACET_TRY(op_expect(c, op, sets, "wanted rows come out of all rows", err));
    return op_expect(c, op, width_of(c, op->i0) == width_of(c, op->o), "input and output are as wide", err);
}

void launch_gather(const cuda_pass *p, const plan_op *op)
{
    copy_rows_launch(p, op, p->c->in.out_row);
}

facet_status check_capture(const compiled *c, const plan_op *op, facet_error *err)
{
    return op_expect(c, op, width_of(c, op->i0) == width_of(c, op->o) && op_same_rows(c, op->i0, op->o),
                     "input and output have the same shape", err);
}

void launch_capture(const cuda_pass *p, const plan_op *op)
{
    copy_rows_launch(p, op, NULL);
}
