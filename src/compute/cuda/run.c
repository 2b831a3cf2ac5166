/* run.c: a step. The launches of a width are captured into one CUDA graph; what varies lies in the arrays that stage.c
 * renews. Nothing in a graph depends on positions or on the length of a table. */
#include "compute/cuda/state.h"

static const int widths[CUDA_N_WIDTHS] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64};

/* Index of the smallest width that holds n rows, -1 above the largest. */
static int width_index(int n)
{
    for (int i = 0; i < CUDA_N_WIDTHS; i++)
        if (n <= widths[i]) return i;
    return -1;
}

static int padded(int n, int max)
{
    int i = n ? width_index(n) : -1;
    if (i < 0) return n;
    return widths[i] < max ? widths[i] : max;
}

static facet_status launch_all(const cuda_pass *pass, facet_error *err)
{
    for (int i = 0; i < pass->c->p->n_ops; i++) {
        cuda_op_launch(pass, i);
        FACET_TRY(cuda_check(pass->b, cudaGetLastError(), op_kind_name(pass->c->p->ops[i].kind), err));
    }
    return FACET_OK;
}

/* Ends the capture whatever happened in it; *graph stays NULL on failure. */
static facet_status capture(const cuda_pass *pass, cudaGraph_t *graph, facet_error *err)
{
    cuda_backend *b = pass->b;
    *graph = NULL;
    FACET_TRY(
        cuda_check(b, cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal), "beginning a capture", err));
    cudaError_t launched = cudaSuccess;
    int op = 0;
    for (; op < pass->c->p->n_ops && launched == cudaSuccess; op++) {
        cuda_op_launch(pass, op);
        launched = cudaGetLastError();
    }
    cudaError_t ended = cudaStreamEndCapture(b->stream, graph);
    if (launched == cudaSuccess) return cuda_check(b, ended, "ending a capture", err);
    if (*graph) (void)cudaGraphDestroy(*graph);
    *graph = NULL;
    return cuda_check(b, launched, op_kind_name(pass->c->p->ops[op - 1].kind), err);
}

static facet_status make_graph(const cuda_pass *pass, cudaGraphExec_t *exec, facet_error *err)
{
    cudaGraph_t graph;
    FACET_TRY(capture(pass, &graph, err));
    cudaGraphExec_t made = NULL;
    facet_status status =
        cuda_check(pass->b, cudaGraphInstantiateWithFlags(&made, graph, 0), "instantiating a graph", err);
    (void)cudaGraphDestroy(graph);
    if (status == FACET_OK) *exec = made;
    return status;
}

static cuda_graph *graph_of(compiled *c, const batch *in)
{
    int rows = width_index(in->n_rows), out = in->n_out ? width_index(in->n_out) + 1 : 0;
    return rows < 0 ? NULL : &c->graphs[rows][out];
}

static facet_status launch(const cuda_pass *pass, cuda_graph *g, facet_error *err)
{
    if (!g || !g->was_run) {
        FACET_TRY(launch_all(pass, err));
        if (g) g->was_run = true;
        return FACET_OK;
    }
    if (!g->exec) FACET_TRY(make_graph(pass, &g->exec, err));
    return cuda_check(pass->b, cudaGraphLaunch(g->exec, pass->b->stream), "launching a graph", err);
}

static facet_status step(const cuda_pass *pass, const batch *in, facet_error *err)
{
    FACET_TRY(cuda_pages_prepare(pass->b, in, err));
    FACET_TRY(cuda_batch_stage(pass->c, in, pass->n_rows, pass->n_out, err));
    return launch(pass, graph_of(pass->c, in), err);
}

facet_status cuda_run(backend *base, compiled *c, const batch *in, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(cuda_batch_check(c, in, err));
    cuda_pass pass = {b, c, padded(in->n_rows, c->max_rows), padded(in->n_out, c->max_out)};
    facet_status status = step(&pass, in, err);
    /* Also after a failure: the staging memory is written again by the next step. */
    cudaError_t end = cudaStreamSynchronize(b->stream);
    return status == FACET_OK ? cuda_check(b, end, c->p->name, err) : status;
}

facet_status cuda_read(backend *base, compiled *c, int value, int row, int n, void *dst, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    if (value < 0 || value >= c->p->n_values || !c->p->values[value].is_output)
        return error_set(err, FACET_ERR_ARG, "value %d of plan %s is no output", value, c->p->name);
    int rows = c->p->values[value].rows == ROWS_ALL ? c->max_rows : c->max_out;
    if (row < 0 || n < 0 || row > rows - n)
        return error_set(err, FACET_ERR_ARG, "rows %d + %d of value %d: it has %d", row, n, value, rows);
    size_t width = (size_t)c->p->values[value].width * sizeof(float);
    const uint8_t *src = c->values + c->offsets[value] + (size_t)row * width;
    FACET_TRY(cuda_check(b, cudaMemcpyAsync(dst, src, (size_t)n * width, cudaMemcpyDeviceToHost, b->stream),
                         "reading an output", err));
    return cuda_check(b, cudaStreamSynchronize(b->stream), "reading an output", err);
}
