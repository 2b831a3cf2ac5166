/* wide.cu: how a product of many rows is shared out, and its launch. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/wide.cuh"

enum {
    STAGES_A = 5, /* of weights, at most; with the most columns: */
    STAGES_A_MOST = 3,
    STAGES_B = 8
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static bool is_float(tensor_type type)
{
    return type == TYPE_F16 || type == TYPE_BF16;
}

static int n_planes(tensor_type type)
{
    return is_float(type) ? 2 : 1;
}

static wide_fn kernel_of(tensor_type type, int columns)
{
    wide_fn (*const most[])(tensor_type) = {wide_128_k, wide_128_4, wide_128_5, wide_128_w};
    if (columns == 16) return wide_16(type);
    if (columns == 32) return wide_32(type);
    if (columns == 64) return wide_64(type);
    for (auto kernel : most)
        if (kernel(type)) return kernel(type);
    return NULL;
}

/* Columns of a block for so many rows. */
static int columns_for(int n_rows, int most)
{
    return n_rows <= 16 ? 16 : n_rows <= 32 ? 32 : n_rows <= WIDE_COLUMNS ? WIDE_COLUMNS : most;
}

size_t cuda_wide_bytes(int max_rows, uint32_t n_in, tensor_type type)
{
    const int columns = columns_for(max_rows, WIDE_MOST_COLUMNS);
    const size_t rows = (size_t)ceil_div(max_rows, columns) * (size_t)columns, n = tile_n_records(n_in);
    if (max_rows < WIDE_LEAST_ROWS) return 0;
    return rows * n * (TILE_K * 2 * (size_t)n_planes(type) + sizeof(float));
}

/* Stages that fit: as many of weights as are of use, with enough of activations beside them. */
static bool choose_stages(const cuda_backend *b, wide_args *a, int columns)
{
    const int weights = wide_tiles(columns) * a->record_bytes;
    const int stage = n_planes(a->parts[0].type) * columns * WIDE_COLUMN_BYTES;
    const int results = columns * wide_result_stride(columns) * (int)sizeof(float);
    for (a->a_stages = columns == WIDE_MOST_COLUMNS ? STAGES_A_MOST : STAGES_A; a->a_stages > 0; a->a_stages--) {
        const int room = b->shared_bytes - 1024 - results - 16 * (a->a_stages + STAGES_B + 1) - a->a_stages * weights;
        a->b_stages = room / stage < STAGES_B ? room / stage : STAGES_B;
        if (a->b_stages >= (a->a_stages > 2 ? 4 : a->a_stages)) break;
    }
    a->weights_at = a->b_stages * stage;
    a->results_at = a->weights_at + a->a_stages * weights;
    a->barriers_at = a->results_at + results;
    return a->a_stages > 0;
}

/* Which items are summed whole. The last round of them is often far from full: its chains are then shared out singly,
 * where the workspace holds their sums. */
static void choose_whole(wide_args *a, int columns, int n_blocks)
{
    const int rest = a->n_items % n_blocks, rounds = ceil_div(rest * a->n_chains, n_blocks);
    const size_t sums = (size_t)rest * a->n_chains * wide_tiles(columns) * TILE_M * columns * sizeof(float);
    a->n_whole = a->n_items;
    if (rest && rounds < a->n_chains && sums <= PRODUCT_SUMS_BYTES && rest <= PRODUCT_MAX_ARRIVALS) a->n_whole -= rest;
}

static int number_tiles(wide_args *a, int columns)
{
    const int rows = wide_tiles(columns) / (a->is_gated ? 2 : 1);
    int n = 0;
    for (int i = 0; i < a->n_parts; i++) {
        a->parts[i].first = n;
        n += ceil_div((int)tile_n_rows(a->parts[i].n_out), rows);
        if (a->is_gated) break;
    }
    return n;
}

/* The parts are of one type, and x is packed. */
static void launch_parts(const cuda_backend *b, wide_args *a, int columns)
{
    a->record_bytes = a->parts[0].record_bytes;
    a->n_items = number_tiles(a, columns) * a->n_column_blocks;
    choose_whole(a, columns, b->n_sms);
    const int units = a->n_whole < a->n_items ? a->n_items * a->n_chains : a->n_items;
    if (!choose_stages(b, a, columns)) return;
    const size_t shared = (size_t)(a->barriers_at + 2 * 8 * (a->a_stages + a->b_stages + 1));
    launch_overlapped(b, kernel_of(a->parts[0].type, columns), dim3((unsigned)(units < b->n_sms ? units : b->n_sms)),
                      (wide_tiles(columns) + WIDE_HELPERS) * WARP, shared, *a);
}

static void pack(const cuda_pass *p, const product *q, const wide_args *a, int columns, int planes)
{
    const wide_pack_args w = {q->x.data,    q->x.live,    q->w[0]->n_in, a->n_rows,    columns,           planes,
                              a->n_records, a->chain_len, a->n_chains,   p->c->packed, (float *)a->scales};
    wide_pack(p->b, &w);
}

bool wide_serves(const cuda_pass *p, const product *q)
{
    return q->x.n >= p->b->wide_rows && p->c->packed;
}

void wide_launch(const cuda_pass *p, const product *q)
{
    const cuda_backend *b = p->b;
    const int columns = columns_for(q->x.n, b->wide_columns);
    wide_args a = {};
    a.is_gated = q->is_gated;
    a.epilogue = q->epilogue;
    a.live = q->x.live;
    a.n_rows = q->x.n;
    a.n_column_blocks = ceil_div(a.n_rows, columns);
    a.n_records = (int)tile_n_records(q->w[0]->n_in);
    a.chain_len = (int)tile_chain_len((uint32_t)a.n_records);
    a.n_chains = ceil_div(a.n_records, a.chain_len);
    a.x = p->c->packed;
    a.sums = (float4 *)b->product_sums;
    a.arrivals = b->product_arrivals;
    for (int i = 0, planes = 0; i < q->n_parts; i += a.n_parts) {
        const tensor_type type = q->w[i]->type;
        for (a.n_parts = 0; i + a.n_parts < q->n_parts && q->w[i + a.n_parts]->type == type; a.n_parts++) {
            const dev_weight *w = q->w[i + a.n_parts];
            a.parts[a.n_parts] = {w->data, q->out[i + a.n_parts], w->n_out, 0,
                                  w->type, (int)w->record_bytes,  w->gain,  q->scale[i + a.n_parts] / w->gain};
        }
        if (planes != n_planes(type)) {
            planes = n_planes(type);
            const size_t rows = (size_t)a.n_column_blocks * (size_t)columns;
            a.scales = (const float *)(p->c->packed + rows * (size_t)a.n_records * TILE_K * 2 * (size_t)planes);
            pack(p, q, &a, columns, planes);
        }
        launch_parts(b, &a, columns);
    }
}

static facet_status open_kernels(cuda_backend *b, facet_error *err)
{
    const tensor_type types[] = {
#define WIDE_TYPE(T, BYTES) T,
        TILE_TYPES(WIDE_TYPE)
#undef WIDE_TYPE
    };
    const int columns[] = {16, 32, 64, 128};
    for (tensor_type type : types)
        for (int n : columns)
            FACET_TRY(cuda_check(b,
                                 cudaFuncSetAttribute(kernel_of(type, n), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                      b->shared_bytes - 1024),
                                 "kernels", err));
    return FACET_OK;
}

facet_status cuda_wide_open(cuda_backend *b, facet_error *err)
{
    FACET_TRY(open_kernels(b, err));
    wide_columns(b, (int *)b->product_sums);
    FACET_TRY(cuda_check(b, cudaGetLastError(), "asking the device's code", err));
    FACET_TRY(cuda_check(
        b,
        cudaMemcpyAsync(&b->wide_columns, b->product_sums, sizeof b->wide_columns, cudaMemcpyDeviceToHost, b->stream),
        "asking the device's code", err));
    FACET_TRY(cuda_check(b, cudaStreamSynchronize(b->stream), "asking the device's code", err));
    b->wide_rows = b->wide_columns == WIDE_MOST_COLUMNS ? WIDE_LEAST_ROWS : WIDE_COLUMNS + 1;
    return FACET_OK;
}
