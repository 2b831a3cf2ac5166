/* measure.c: times of single ops, and of the device's memory. */
#include "compute/cuda/state.h"

enum { COPY_BYTES = 256 << 20, COPY_REPEATS = 20 };

static facet_status elapsed(cuda_backend *b, cudaEvent_t from, cudaEvent_t to, float *ms, facet_error *err)
{
    FACET_TRY(cuda_check(b, cudaEventSynchronize(to), "timing", err));
    return cuda_check(b, cudaEventElapsedTime(ms, from, to), "timing", err);
}

static facet_status time_op(const cuda_pass *pass, int op, cudaEvent_t from, cudaEvent_t to, double *ms,
                            facet_error *err)
{
    cuda_backend *b = pass->b;
    float f = 0;
    FACET_TRY(cuda_check(b, cudaEventRecord(from, b->stream), "timing", err));
    cuda_op_launch(pass, op);
    FACET_TRY(cuda_check(b, cudaGetLastError(), op_kind_name(pass->c->p->ops[op].kind), err));
    FACET_TRY(cuda_check(b, cudaEventRecord(to, b->stream), "timing", err));
    FACET_TRY(elapsed(b, from, to, &f, err));
    *ms = (double)f;
    return FACET_OK;
}

static facet_status make_events(cuda_backend *b, cudaEvent_t e[2], facet_error *err)
{
    FACET_TRY(cuda_check(b, cudaEventCreate(&e[0]), "timing", err));
    facet_status status = cuda_check(b, cudaEventCreate(&e[1]), "timing", err);
    if (status != FACET_OK) (void)cudaEventDestroy(e[0]);
    return status;
}

static void free_events(cudaEvent_t e[2])
{
    (void)cudaEventDestroy(e[0]);
    (void)cudaEventDestroy(e[1]);
}

static double width_of(const plan *p, const plan_op *op)
{
    return (double)p->values[op->o >= 0 ? op->o : op->i0].width;
}

/* Ops that one launch does share its time by their widths. */
static void share_time(const compiled *c, double *op_ms)
{
    for (int i = 0; i < c->p->n_ops; i++) {
        double total = 0, ms = op_ms[i];
        for (int k = 0; k < c->covers[i]; k++) total += width_of(c->p, &c->p->ops[i + k]);
        for (int k = 0; k < c->covers[i]; k++) op_ms[i + k] = ms * width_of(c->p, &c->p->ops[i + k]) / total;
    }
}

facet_status cuda_run_timed(backend *base, compiled *c, const batch *in, double *op_ms, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    cudaEvent_t e[2];
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(cuda_batch_check(c, in, err));
    const cuda_pass pass = {b, c, in->n_rows, in->n_out};
    FACET_TRY(cuda_pages_prepare(b, in, err));
    FACET_TRY(cuda_batch_stage(c, in, pass.n_rows, pass.n_out, err));
    FACET_TRY(make_events(b, e, err));
    facet_status status = FACET_OK;
    for (int i = 0; i < c->p->n_ops && status == FACET_OK; i++) status = time_op(&pass, i, e[0], e[1], &op_ms[i], err);
    (void)cudaStreamSynchronize(b->stream); /* the staging memory is written again by the next step */
    free_events(e);
    if (status == FACET_OK) share_time(c, op_ms);
    return status;
}

/* Half of the memory is copied to the other half: as many bytes are read as are written. */
static facet_status time_copies(cuda_backend *b, uint8_t *memory, cudaEvent_t e[2], double *best_ms, facet_error *err)
{
    *best_ms = 0;
    for (int i = 0; i < COPY_REPEATS; i++) {
        float ms;
        FACET_TRY(cuda_check(b, cudaEventRecord(e[0], b->stream), "timing a copy", err));
        FACET_TRY(
            cuda_check(b, cudaMemcpyAsync(memory + COPY_BYTES, memory, COPY_BYTES, cudaMemcpyDeviceToDevice, b->stream),
                       "timing a copy", err));
        FACET_TRY(cuda_check(b, cudaEventRecord(e[1], b->stream), "timing a copy", err));
        FACET_TRY(elapsed(b, e[0], e[1], &ms, err));
        if (i == 0 || (double)ms < *best_ms) *best_ms = (double)ms;
    }
    return FACET_OK;
}

facet_status cuda_measure(backend *base, backend_ceilings *out, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    void *memory;
    cudaEvent_t e[2];
    double ms = 0;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(cuda_alloc(b, (size_t)2 * COPY_BYTES, "the copy test", &memory, err));
    facet_status status = make_events(b, e, err);
    if (status == FACET_OK) {
        status = time_copies(b, memory, e, &ms, err);
        free_events(e);
    }
    (void)cudaFree(memory);
    if (status == FACET_OK) *out = (backend_ceilings){.read_gbps = ms > 0 ? 2e-6 * COPY_BYTES / ms : 0};
    return status;
}
