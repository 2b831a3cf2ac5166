/* moe_product.cu: how products of experts are shared out, and their launch. */
#include "compute/cuda/moe_ops.cuh"
#include "compute/cuda/moe_product.cuh"

enum { MAX_STAGES = 6 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static int largest(int a, int b)
{
    return a > b ? a : b;
}

bool moe_product_fits(const dev_weight *w)
{
    return w->record_bytes > 0 && w->type != TYPE_F16 && w->type != TYPE_BF16 && w->n_out % TILE_M == 0 &&
           tile_n_records(w->n_in) <= MOE_MAX_RECORDS;
}

/* Batches of a kind at most. */
static int most_batches(const moe_args *a, int kind)
{
    const int pairs = a->n_rows * a->n_used, full = pairs / a->columns + a->n_experts;
    if (kind == MOE_DENSE) return ceil_div(a->n_rows, a->columns);
    return pairs < full ? pairs : full;
}

/* Items of a block at most. */
static int most_items(const cuda_backend *b, const moe_args *a)
{
    int items = 0;
    for (int i = 0; i < MOE_KINDS; i++) {
        items +=
            ceil_div(most_batches(a, i) * a->parts[i].n_tiles, b->n_sms) * (a->is_split ? a->parts[i].n_chains : 1);
    }
    return items;
}

/* Places in shared memory; false when it is too small. */
static bool lay_out(const cuda_backend *b, int mt, int nt, moe_args *a)
{
    const int sums = a->is_split ? most_items(b, a) * mt * nt * WARP * (int)sizeof(float4) : 0;
    a->scales_at = a->n_slots * a->most_records * 32 * product_stride(a->columns) * (int)sizeof(uint4);
    a->most_at = a->scales_at + a->n_slots * MOE_MAX_CHAINS * a->columns * (int)sizeof(float);
    a->pairs_at = a->most_at + a->warps * MOE_PACKED * (int)sizeof(float);
    a->runs_at = a->pairs_at + a->n_slots * a->columns * (int)sizeof(int);
    a->items_at = ceil_div(a->runs_at + (MOE_MAX_RUNS + 1) * (int)sizeof(moe_run) + 2 * (int)sizeof(int), 16) * 16;
    a->sums_at = ceil_div(a->items_at + most_items(b, a) * (int)sizeof(moe_item), 128) * 128;
    a->ring_at = a->sums_at + sums;
    a->barriers_at = a->ring_at + a->warps * a->stages * mt * a->slot_bytes;
    a->shared_bytes = a->barriers_at + a->warps * a->stages * (int)sizeof(uint64_t);
    return a->shared_bytes <= b->shared_bytes;
}

/* Stages and slots that fit so many warps, the first as many as possible; false when not even the fewest do. */
static bool fit(const cuda_backend *b, int mt, int nt, int most_slots, moe_args *a)
{
    for (a->n_slots = most_slots; a->n_slots >= 1; a->n_slots--)
        for (a->stages = MAX_STAGES; a->stages >= (a->n_slots > 1 ? 3 : MOE_MIN_STAGES); a->stages--)
            if (lay_out(b, mt, nt, a)) return true;
    return false;
}

/* Single chains where there are few items; as many warps as have work. */
static void choose(const cuda_backend *b, int mt, int nt, moe_args *a)
{
    a->is_split = true;
    if (most_items(b, a) > MOE_MAX_WARPS) a->is_split = false;
    const int items = most_items(b, a);
    a->warps = items < MOE_MAX_WARPS ? largest(items, 2 * MOE_MIN_WARPS) : (int)MOE_MAX_WARPS;
    for (; a->warps > MOE_MIN_WARPS; a->warps--)
        if (fit(b, mt, nt, a->columns <= 8 ? MOE_MAX_SLOTS : 1, a)) return;
    a->is_split = false;
    a->warps = MOE_MIN_WARPS; /* fits: the columns were chosen so (moe_join.c) */
    a->n_slots = 1;
    a->stages = MOE_MIN_STAGES;
    (void)lay_out(b, mt, nt, a);
}

/* Blocks: one per multiprocessor, more where a block would have too many runs. */
static int grid_of(const cuda_backend *b, const moe_args *a)
{
    int grid = b->n_sms;
    for (int i = 0; i < MOE_KINDS; i++) grid = largest(grid, ceil_div(most_batches(a, i), MOE_MAX_RUNS / 2 - 2));
    return grid;
}

moe_part moe_part_of(const dev_weight *w, const dev_weight *up, int n_ff)
{
    moe_part p = {};
    p.type = w->type;
    p.record_bytes = (int)w->record_bytes;
    p.n_in = w->n_in;
    p.n_out = (uint32_t)n_ff;
    p.n_tiles = (int)tile_n_rows((uint32_t)n_ff);
    p.n_records = (int)tile_n_records(w->n_in);
    p.chain_len = (int)tile_chain_len((uint32_t)p.n_records);
    p.n_chains = ceil_div(p.n_records, p.chain_len);
    p.expert_bytes = (size_t)tile_n_rows(w->n_out) * (size_t)p.n_records * w->record_bytes;
    p.tiles[0] = w->data;
    p.gain[0] = w->gain;
    p.scale[0] = 1 / w->gain;
    if (up) { /* a tensor of its own, or the rows behind the gate's */
        p.tiles[1] = up != w ? up->data : w->data + (size_t)p.n_tiles * (size_t)p.n_records * w->record_bytes;
        p.gain[1] = up->gain;
        p.scale[1] = 1 / up->gain;
    }
    p.pairs_per_row = 1;
    return p;
}

/* The type of all parts, TYPE_F32 where they differ. */
static tensor_type only_type(const moe_args *a)
{
    const moe_part *dense = &a->parts[MOE_DENSE], *experts = &a->parts[MOE_EXPERTS];
    if (!dense->n_tiles || !experts->n_tiles) return dense->n_tiles ? dense->type : experts->type;
    return dense->type == experts->type ? dense->type : TYPE_F32;
}

void moe_launch(const cuda_pass *p, moe_args *a)
{
    const int mt = a->is_gated ? 2 : 1;
    a->work = p->c->moe;
    a->columns = moe_columns(&a->work, a->n_rows);
    a->slot_bytes = largest(a->parts[0].record_bytes, a->parts[1].record_bytes);
    a->most_records = largest(a->parts[0].n_records, a->parts[1].n_records);
    const int nt = a->columns > 8 ? 2 : 1;
    choose(p->b, mt, nt, a);
    const int half = p->b->shared_bytes / 2 + 2048;
    if (a->shared_bytes < half) a->shared_bytes = half; /* one block per multiprocessor */
    const tensor_type type = only_type(a);
    launch_overlapped(p->b, nt == 1 ? moe_kernel_1(a->is_gated, type) : moe_kernel_2(a->is_gated, type),
                      dim3((unsigned)grid_of(p->b, a)), a->warps * WARP, (size_t)a->shared_bytes, *a);
}

facet_status cuda_moe_products_open(cuda_backend *b, facet_error *err)
{
    for (tensor_type type : {TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_0, TYPE_Q8_0, TYPE_F32})
        for (moe_fn f :
             {moe_kernel_1(false, type), moe_kernel_1(true, type), moe_kernel_2(false, type), moe_kernel_2(true, type)})
            FACET_TRY(cuda_check(b,
                                 cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, b->shared_bytes),
                                 "kernels", err));
    return FACET_OK;
}
