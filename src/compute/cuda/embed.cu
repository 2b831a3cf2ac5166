/* embed.cu: OP_EMBED. Row `token` of a table, scaled. A table that is also multiplied lies on the device; one that is
 * only gathered stays on the host, and stage.cu has already sent the decoded rows. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/gather.cuh"

static __global__ void embed_kernel(const table_view table, const int32_t *token, const int32_t *live,
                                    const int32_t *map, float scale, uint32_t width, uint32_t n_vocab, float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0 || k >= width) return;
    int32_t t = token[batch_row(map, row)]; /* -1 where a chain has broken off */
    out[(size_t)row * width + k] = t >= 0 && (uint32_t)t < n_vocab ? scale * table_at(table, (size_t)t, k) : 0;
}

/* The rows are here already: [row, width]. */
static __global__ void scale_kernel(const float *x, const int32_t *live, const int32_t *map, float scale,
                                    uint32_t width, float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] < 0 || k >= width) return;
    out[(size_t)row * width + k] = scale * x[(size_t)batch_row(map, row) * width + k];
}

static const host_rows *find_host_rows(const compiled *c, const plan_op *op)
{
    for (int i = 0; i < c->n_host_rows; i++)
        if (&c->p->ops[c->host_rows_of[i].op] == op) return &c->host_rows_of[i];
    return NULL;
}

facet_status check_embed(const compiled *c, const plan_op *op, facet_error *err)
{
    const dev_weight *w = weight_of(c->b, op->w0);
    FACET_TRY(op_expect(c, op, w && w->n_in == width_of(c, op->o), "the table is as wide as the output", err));
    if (op->i0 < 0) return FACET_OK;
    const bool ok = op->i0 < c->p->n_values && c->p->values[op->i0].type == VALUE_I32 && width_of(c, op->i0) == 1 &&
                    op_same_rows(c, op->i0, op->o);
    FACET_TRY(op_expect(c, op, ok, "one integer for every row", err));
    if (w->data) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "tensor %s stays in host memory, since it is no head: plan %s looks up tokens that the device "
                     "finds, and needs it on the device",
                     w->host->name, c->p->name);
}

void launch_embed(const cuda_pass *p, const plan_op *op)
{
    const dev_weight *w = weight_of(p->b, op->w0);
    rows_view out = view_of(p, op->o);
    dim3 grid(n_blocks(out.width, BLOCK), (unsigned)out.n);
    if (w->data)
        launch_overlapped(p->b, embed_kernel, grid, BLOCK, 0, table_of(w),
                          op->i0 >= 0 ? (const int32_t *)view_of(p, op->i0).data : p->c->in.token, out.live,
                          op->i0 >= 0 ? NULL : out.map, op->scale, out.width, w->n_out, out.data);
    else
        launch_overlapped(p->b, scale_kernel, grid, BLOCK, 0, find_host_rows(p->c, op)->device, out.live, out.map,
                          op->scale, out.width, out.data);
}
