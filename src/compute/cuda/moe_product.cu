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

/* Places in shared memory; false when it is too small. */
static bool lay_out(const cuda_backend *b, int mt, int nt, moe_args *a)
{
    int records = 0, chains = 0;
    for (int i = 0; i < MOE_KINDS; i++) {
        records = largest(records, a->parts[i].n_records);
        chains = largest(chains, a->parts[i].n_chains);
    }
    const int sums = a->is_split && chains > 1 ? 2 * a->warps * mt * nt * WARP * (int)sizeof(float4) : 0;
    a->scales_at = records * 32 * product_stride(a->columns) * (int)sizeof(uint4);
    a->most_at = a->scales_at + chains * a->columns * (int)sizeof(float);
    a->pairs_at = a->most_at + a->warps * MOE_PACKED * (int)sizeof(float);
    a->sums_at = ceil_div(a->pairs_at + a->columns * (int)sizeof(int), 128) * 128;
    a->ring_at = a->sums_at + sums;
    a->barriers_at = a->ring_at + a->warps * a->stages * mt * a->slot_bytes;
    a->shared_bytes = a->barriers_at + a->warps * a->stages * (int)sizeof(uint64_t);
    return a->shared_bytes <= b->shared_bytes;
}

/* As many warps as there is work for, then as many stages as fit. */
static void choose(const cuda_backend *b, int mt, int nt, moe_args *a)
{
    int units = 0, chains = 0;
    for (int i = 0; i < MOE_KINDS; i++) {
        const int n = i == MOE_DENSE ? ceil_div(a->n_rows, a->columns) : a->n_rows * a->n_used;
        units += ceil_div(n * a->parts[i].n_tiles, b->n_sms);
        chains += ceil_div(n * a->parts[i].n_tiles * a->parts[i].n_chains, b->n_sms);
    }
    a->is_split = units < MOE_MAX_WARPS;
    a->warps = a->is_split && chains < MOE_MAX_WARPS ? largest(chains, 2 * MOE_MIN_WARPS) : (int)MOE_MAX_WARPS;
    for (; a->warps >= MOE_MIN_WARPS; a->warps--)
        for (a->stages = MAX_STAGES; a->stages >= MOE_MIN_STAGES; a->stages--)
            if (lay_out(b, mt, nt, a)) return;
    a->warps = MOE_MIN_WARPS; /* fits: the columns were chosen so (moe_join.c) */
    a->stages = MOE_MIN_STAGES;
    (void)lay_out(b, mt, nt, a);
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

void moe_launch(const cuda_pass *p, moe_args *a)
{
    const int mt = a->is_gated ? 2 : 1;
    a->work = p->c->moe;
    a->columns = moe_columns(&a->work, a->n_rows);
    a->slot_bytes = largest(a->parts[0].record_bytes, a->parts[1].record_bytes);
    const int nt = a->columns > 8 ? 2 : 1;
    choose(p->b, mt, nt, a);
    const int half = p->b->shared_bytes / 2 + 2048;
    if (a->shared_bytes < half) a->shared_bytes = half; /* one block per multiprocessor */
    launch_overlapped(p->b, nt == 1 ? moe_kernel_1(a->is_gated) : moe_kernel_2(a->is_gated),
                      dim3((unsigned)p->b->n_sms), a->warps * WARP, (size_t)a->shared_bytes, *a);
}

facet_status cuda_moe_products_open(cuda_backend *b, facet_error *err)
{
    const moe_fn all[] = {moe_kernel_1(false), moe_kernel_1(true), moe_kernel_2(false), moe_kernel_2(true)};
    for (moe_fn f : all)
        FACET_TRY(cuda_check(b, cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, b->shared_bytes),
                             "kernels", err));
    return FACET_OK;
}
