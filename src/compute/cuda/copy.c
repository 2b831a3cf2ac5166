/* copy.c: values of compiled plans written from the host, and copied from plan to plan on the device. */
#include "compute/cuda/state.h"

static int rows_held(const compiled *c, int value)
{
    if (value < 0 || value >= c->p->n_values) return 0;
    return c->p->values[value].rows == ROWS_ALL ? c->max_rows : c->max_out;
}

static uint8_t *row_of(const compiled *c, int value, int row, uint32_t column)
{
    return c->values + c->offsets[value] + ((size_t)row * c->p->values[value].width + column) * sizeof(float);
}

facet_status cuda_write(backend *base, compiled *c, int value, int row, int n, const void *src, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(row_access_check(c->p, value, row, n, rows_held(c, value), true, err));
    const size_t bytes = (size_t)n * c->p->values[value].width * sizeof(float);
    /* pageable memory: the call returns when it has been read */
    return cuda_check(b, cudaMemcpyAsync(row_of(c, value, row, 0), src, bytes, cudaMemcpyHostToDevice, b->stream),
                      "writing an input", err);
}

/* Source rows that follow each other go in one copy. */
static facet_status copy_run(cuda_backend *b, const row_copy *copy, int first, int n, uint32_t width, facet_error *err)
{
    const int src_row = copy->src_rows ? copy->src_rows[first] : first;
    const size_t src_pitch = copy->src->p->values[copy->src_value].width * sizeof(float),
                 dst_pitch = copy->dst->p->values[copy->dst_value].width * sizeof(float);
    return cuda_check(b,
                      cudaMemcpy2DAsync(row_of(copy->dst, copy->dst_value, copy->dst_row + first, copy->dst_column),
                                        dst_pitch, row_of(copy->src, copy->src_value, src_row, copy->src_column),
                                        src_pitch, width * sizeof(float), (size_t)n, cudaMemcpyDeviceToDevice,
                                        b->stream),
                      "copying rows", err);
}

facet_status cuda_copy_rows(backend *base, const row_copy *copy, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(row_copy_check(copy, copy->src->p, rows_held(copy->src, copy->src_value), copy->dst->p,
                             rows_held(copy->dst, copy->dst_value), err));
    const uint32_t width = copy->width ? copy->width : copy->src->p->values[copy->src_value].width;
    for (int i = 0, n; i < copy->n; i += n) {
        n = copy->src_rows ? 1 : copy->n;
        while (copy->src_rows && i + n < copy->n && copy->src_rows[i + n] == copy->src_rows[i] + n) n++;
        FACET_TRY(copy_run(b, copy, i, n, width, err));
    }
    return FACET_OK;
}

facet_status cuda_move(backend *base, const batch *in, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(cuda_copies_check(b, in, err));
    return cuda_pages_prepare(b, in, err);
}
