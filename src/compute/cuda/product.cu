/* product.cu: how a product is shared out, and its launch. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/product.cuh"
#include "compute/cuda/tile.h"
#include "compute/cuda/wide.cuh"

enum {
    MAX_COLUMNS = 32,
    MIN_STAGES = 2,
    MAX_STAGES = 4, /* an H100 steps no faster with 5 and 7 */
    FEW_ROWS = 8,
    ENOUGH_WARPS = 16 /* for the memory's latency */
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static int n8_tiles(int columns)
{
    return columns <= 8 ? 1 : columns <= 16 ? 2 : 4;
}

/* Row tiles in a work tile. Two share each read of the activations, which is what bounds wide products. */
static int row_tiles(bool is_gated, int columns)
{
    return is_gated || n8_tiles(columns) == 4 ? 2 : 1;
}

/* Warps that must share the packing of a chain. */
static int least_packers(int columns, int mt)
{
    return TILE_MAX_CHAIN / product_packed(n8_tiles(columns), mt);
}

/* The shortest chain of a row. */
static int shortest_chain(const product_args *a)
{
    const int last = a->n_records - (a->n_chains - 1) * a->chain_len;
    return last < a->chain_len ? last : a->chain_len;
}

/* Places of things in shared memory; s->shared_bytes is what they need. n_groups = 0: sums meet in global memory. */
static void lay_out(const product_args *a, int mt, int n_chains, int n_groups, product_schedule *s)
{
    int records = n_chains * a->chain_len < a->n_records ? n_chains * a->chain_len : a->n_records;
    int sums = n_groups * 2 * a->n_chains * mt * product_cells(s->columns) * (int)sizeof(float4);
    int n_stages = s->warps * s->stages;
    s->n_packers = TILE_MAX_CHAIN;
    while (s->n_packers > least_packers(s->columns, mt) && n_chains * s->columns * s->n_packers > s->warps)
        s->n_packers /= 2;
    s->plane = records * 32 * product_stride(s->columns);
    s->scales_at = s->n_planes * s->plane * (int)sizeof(uint4);
    s->most_at = s->scales_at + n_chains * s->columns * (int)sizeof(float);
    s->sums_at = ceil_div(s->most_at + 2 * s->warps * (int)sizeof(float), 128) * 128;
    s->ring_at = s->sums_at + sums;
    s->barriers_at = s->ring_at + n_stages * mt * s->slot_bytes;
    s->feeds_at = s->barriers_at + n_stages * (int)sizeof(uint64_t);
    s->shared_bytes = s->feeds_at + s->warps * PRODUCT_FEED_BYTES;
}

/* The most stages that fit, no more than the shortest chain has records (product_feed); false when not even the fewest
 * do. */
static bool lay_out_stages(const cuda_backend *b, const product_args *a, int mt, int n_chains, int n_groups,
                           product_schedule *s)
{
    const int chain = shortest_chain(a), most = chain < MAX_STAGES ? chain : MAX_STAGES;
    const int fewest = most < MIN_STAGES ? most : MIN_STAGES;
    for (s->stages = most; s->stages >= fewest; s->stages--) {
        lay_out(a, mt, n_chains, n_groups, s);
        if (s->shared_bytes <= b->shared_bytes) return true;
    }
    s->stages = fewest;
    return false;
}

/* Warps per tile and tiles at a time: the fewest chains one after another in a warp; among equals the fewest warps, as
 * they wait for each other least. */
static void choose_groups(int n_chains, int n_tiles, int max_warps, int *group_warps, int *n_groups)
{
    int best = INT32_MAX;
    for (int rounds = 1; rounds <= n_chains; rounds++) {
        int warps = ceil_div(n_chains, rounds);
        if (warps > max_warps) continue;
        int most = warps > 1 && max_warps / warps > 15 ? 15 : max_warps / warps; /* named barriers */
        int passes = ceil_div(n_tiles, most), groups = ceil_div(n_tiles, passes), length = passes * rounds;
        if (length > best || (length == best && groups * warps >= *n_groups * *group_warps)) continue;
        best = length;
        *group_warps = warps;
        *n_groups = groups;
    }
}

/* All chains of a tile in one block; false when the activations leave too little room for weights on their way. */
static bool schedule_whole(const cuda_backend *b, const product_args *a, int mt, product_schedule *s)
{
    int n_tiles = a->tile_end - a->tile_begin, group_warps = 1, n_groups = 1;
    if (a->n_rows > MAX_COLUMNS) return false;
    s->columns = a->n_rows;
    s->n_column_blocks = 1;
    s->is_split = false;
    choose_groups(a->n_chains, ceil_div(n_tiles, b->n_sms), product_max_warps(n8_tiles(s->columns), mt), &group_warps,
                  &n_groups);
    if (n_groups * group_warps < least_packers(s->columns, mt))
        n_groups = ceil_div(least_packers(s->columns, mt), group_warps);
    s->group_warps = group_warps;
    for (int groups = n_groups; groups == n_groups || groups * group_warps >= ENOUGH_WARPS; groups--) {
        s->warps = groups * group_warps;
        if (lay_out_stages(b, a, mt, a->n_chains, groups, s)) return true;
    }
    return false;
}

/* Chains of a tile over several blocks, each with the activations of its own chains. */
static void schedule_split(const cuda_backend *b, const product_args *a, product_schedule *s)
{
    const int most = b->shared_bytes / 5 * 3; /* for activations */
    s->is_split = true;
    s->columns = a->n_rows < MAX_COLUMNS ? a->n_rows : MAX_COLUMNS;
    const int chain_bytes = s->n_planes * a->chain_len * 32 * (int)sizeof(uint4); /* of one column */
    while (s->columns > 8 && product_stride(s->columns) * chain_bytes > most) s->columns = s->columns > 16 ? 16 : 8;
    s->n_column_blocks = ceil_div(a->n_rows, s->columns);
    /* One chain per block, as every block packs its own activations; more where blocks are fewer than chains. The same
     * number for all, so that they are even. */
    const int fit = most / (product_stride(s->columns) * chain_bytes);
    s->chunk_chains = 1;
    for (int q = 2; q <= fit && a->n_chains / s->chunk_chains * s->n_column_blocks > b->n_sms; q++)
        if (a->n_chains % q == 0) s->chunk_chains = q;
    s->n_chunks = a->n_chains / s->chunk_chains;
    s->n_per_chunk = b->n_sms / (s->n_chunks * s->n_column_blocks);
    if (s->n_per_chunk < 1) s->n_per_chunk = 1;
    const int mt = row_tiles(a->is_gated, s->columns);
    const int units = ceil_div((a->tile_end - a->tile_begin) * s->chunk_chains, s->n_per_chunk);
    const int rounds = ceil_div(units, product_max_warps(n8_tiles(s->columns), mt));
    s->warps = ceil_div(units, rounds); /* as many in the last round as in the others */
    if (s->warps < least_packers(s->columns, mt)) s->warps = least_packers(s->columns, mt);
    while (!lay_out_stages(b, a, mt, s->chunk_chains, 0, s) && s->warps > least_packers(s->columns, mt)) s->warps--;
}

static void number_tiles(product_args *a, int mt)
{
    int n = 0;
    for (int i = 0; i < a->n_parts; i++) {
        a->parts[i].first = n;
        n += ceil_div((int)tile_n_rows(a->parts[i].n_out), a->is_gated ? 1 : mt);
        if (a->is_gated) break;
    }
    a->tile_begin = 0;
    a->tile_end = n;
}

static product_fn kernel_of(int nt, int mt, tensor_type a, tensor_type b)
{
    return nt == 1 ? product_kernel_1(mt, a, b) : nt == 2 ? product_kernel_2(mt, a, b) : product_kernel_4(mt);
}

/* The kernel for the types of all parts. */
static product_fn kernel_for(const product_args *a, int nt, int mt)
{
    tensor_type low = a->parts[0].type, high = low;
    bool has_third = false;
    for (int i = 1; i < a->n_parts; i++) {
        const tensor_type t = a->parts[i].type;
        has_third = has_third || (low != high && t != low && t != high);
        if (t < low) low = t;
        if (t > high) high = t;
    }
    return has_third ? kernel_of(nt, mt, TYPE_F16, TYPE_BF16) : kernel_of(nt, mt, low, high);
}

/* Work tiles [begin, end) in launches whose chain sums fit the workspace. */
static void launch_tiles(const cuda_backend *b, product_args *a, int mt)
{
    product_schedule *s = &a->s;
    const int end = a->tile_end, nt = n8_tiles(s->columns);
    const int total = end - a->tile_begin;
    int step = total, grid = total < b->n_sms ? total : b->n_sms;
    if (s->is_split && a->n_chains > 1) {
        size_t sums = (size_t)s->n_column_blocks * a->n_chains * mt * product_cells(s->columns) * sizeof(float4);
        size_t most = PRODUCT_SUMS_BYTES / sums;
        if (most > (size_t)(PRODUCT_MAX_ARRIVALS / s->n_column_blocks))
            most = PRODUCT_MAX_ARRIVALS / s->n_column_blocks;
        if (most < 1) most = 1;
        if (most < (size_t)total) step = ceil_div(total, ceil_div(total, (int)most));
    }
    if (s->is_split) grid = s->n_per_chunk * s->n_chunks * s->n_column_blocks;
    for (int at = a->tile_begin; at < end; at += step) {
        a->tile_begin = at;
        a->tile_end = at + step < end ? at + step : end;
        launch_overlapped(b, kernel_for(a, nt, mt), dim3((unsigned)grid), s->warps * WARP, (size_t)s->shared_bytes, *a);
    }
}

/* At most PRODUCT_MAX_ROWS rows. */
static void launch_rows(const cuda_backend *b, product_args *a)
{
    product_schedule *s = &a->s;
    int mt = row_tiles(a->is_gated, a->n_rows < MAX_COLUMNS ? a->n_rows : MAX_COLUMNS);
    number_tiles(a, mt);
    *s = (product_schedule){};
    s->n_planes = 1;
    for (int i = 0; i < a->n_parts; i++) {
        const tensor_type type = a->parts[i].type;
        if (type == TYPE_F16 || type == TYPE_BF16) s->n_planes = 2;
        if (a->parts[i].record_bytes > s->slot_bytes) s->slot_bytes = a->parts[i].record_bytes;
    }
    if (!schedule_whole(b, a, mt, s)) {
        schedule_split(b, a, s);
        mt = row_tiles(a->is_gated, s->columns);
        number_tiles(a, mt);
    }
    s->is_late = a->n_rows > FEW_ROWS;
    s->at_once = a->n_rows > FEW_ROWS ? s->stages : 1;
    if (s->shared_bytes < b->shared_bytes / 2 + 2048) s->shared_bytes = b->shared_bytes / 2 + 2048; /* one per SM */
    launch_tiles(b, a, mt);
}

bool product_fits(const dev_weight *w)
{
    return w->record_bytes > 0;
}

void product_launch(const cuda_pass *p, const product *q)
{
    const cuda_backend *b = p->b;
    if (wide_serves(p, q)) {
        wide_launch(p, q);
        return;
    }
    product_args a = {};
    a.n_parts = q->n_parts;
    a.is_gated = q->is_gated;
    a.n_in = q->w[0]->n_in;
    a.n_records = (int)tile_n_records(a.n_in);
    a.chain_len = (int)tile_chain_len((uint32_t)a.n_records);
    a.n_chains = ceil_div(a.n_records, a.chain_len);
    a.epilogue = q->epilogue;
    a.sums = (float4 *)b->product_sums;
    a.arrivals = b->product_arrivals;
    for (int row = 0; row < q->x.n; row += PRODUCT_MAX_ROWS) {
        a.n_rows = q->x.n - row < PRODUCT_MAX_ROWS ? q->x.n - row : PRODUCT_MAX_ROWS;
        a.x = q->x.data + (size_t)row * q->x.width;
        a.live = q->x.live + row;
        a.epilogue.mul = q->epilogue.mul ? q->epilogue.mul + (size_t)row * q->epilogue.mul_width : NULL;
        for (int i = 0; i < q->n_parts; i++) {
            const dev_weight *w = q->w[i];
            float *out = q->out[i] ? q->out[i] + (size_t)row * w->n_out : NULL;
            a.parts[i] = {w->data, out, w->n_out, 0, w->type, (int)w->record_bytes, w->gain, q->scale[i] / w->gain};
        }
        launch_rows(b, &a);
    }
}

facet_status cuda_products_open(cuda_backend *b, facet_error *err)
{
    static const tensor_type pairs[][2] = {{TYPE_Q4_K, TYPE_Q4_K}, {TYPE_Q6_K, TYPE_Q6_K}, {TYPE_Q8_0, TYPE_Q8_0},
                                           {TYPE_Q4_0, TYPE_Q4_0}, {TYPE_Q4_K, TYPE_Q6_K}, {TYPE_F16, TYPE_F16}};
    static const int shapes[][2] = {{1, 1}, {1, 2}, {2, 1}, {2, 2}, {4, 2}};
    for (const auto &types : pairs)
        for (const auto &shape : shapes)
            FACET_TRY(cuda_check(b,
                                 cudaFuncSetAttribute(kernel_of(shape[0], shape[1], types[0], types[1]),
                                                      cudaFuncAttributeMaxDynamicSharedMemorySize, b->shared_bytes),
                                 "kernels", err));
    FACET_TRY(cuda_alloc(b, PRODUCT_SUMS_BYTES, "sums of products", &b->product_sums, err));
    size_t bytes = PRODUCT_MAX_ARRIVALS * sizeof(int);
    FACET_TRY(cuda_alloc(b, bytes, "sums of products", (void **)&b->product_arrivals, err));
    b->compute_bytes += PRODUCT_SUMS_BYTES + bytes;
    return cuda_check(b, cudaMemsetAsync(b->product_arrivals, 0, bytes, b->stream), "clearing sums of products", err);
}
