/* product.cuh: matrix products from tile records: what one launch does, and how it is shared out (docs/cuda.md). */
#ifndef FACET_COMPUTE_CUDA_PRODUCT_CUH
#define FACET_COMPUTE_CUDA_PRODUCT_CUH

#include "compute/cuda/ops.cuh"
#include "compute/cuda/tile.h"

enum {
    PRODUCT_PARTS = 3,
    PRODUCT_FEED_BYTES = 128,       /* of a warp's product_feed */
    PRODUCT_MAX_ROWS = 512,         /* of one launch; more rows take several */
    PRODUCT_SUMS_BYTES = 64 << 20,  /* chain sums on their way between blocks */
    PRODUCT_MAX_ARRIVALS = 1 << 18, /* counters of such sums */
};

/* One matrix of a launch. Matrices of one launch read the same rows. */
typedef struct product_part {
    const uint8_t *tiles;
    float *out; /* [rows, n_out] */
    uint32_t n_out;
    int first; /* number of its first work tile */
    tensor_type type;
    int record_bytes;
    float gain;  /* of the f16 weights */
    float scale; /* of the sum: the op's scale / gain */
} product_part;

/* A work tile is one row tile, or two: of a gate and its up matrix, or neighbours of one matrix.
 * A unit is a chain of a work tile: one warp's work without a break. */
typedef struct product_schedule {
    int columns, n_column_blocks; /* batch rows that a block holds in shared memory; blocks that cover the batch */
    int warps;
    bool is_split;   /* the chains of a tile lie in several blocks, and their sums meet in global memory */
    int group_warps; /* not split: warps that share a tile; each takes every such chain */
    int n_chunks, chunk_chains, n_per_chunk; /* split: chains that a block holds, blocks per chunk and columns */
    int stages, slot_bytes;                  /* of a warp's ring: a stage holds one slot per row tile */
    int at_once;   /* stages that a warp asks for at a time before its predecessors are done: theirs and its own reads
                    * wait behind them */
    int n_packers; /* warps that pack a chain of a row together: 1, 2, 4 or 8 */
    int n_planes;  /* 2: activations as the sum of two f16, for weights that are floats themselves */
    int plane;     /* uint4 from one plane to the next */
    int scales_at, most_at, sums_at, ring_at, barriers_at, feeds_at,
        shared_bytes; /* shared memory; activations lie first */
    bool is_late; /* the next kernel may start only when the sums are done: at many rows small ones would get in the way
                   */
} product_schedule;

typedef struct product_args {
    product_part parts[PRODUCT_PARTS];
    int n_parts;
    bool is_gated; /* out[0] = act(part 0) * (part 1) */
    linear_epilogue epilogue;
    const float *x; /* [n_rows, n_in] */
    const int32_t *live;
    int n_rows;
    uint32_t n_in;
    int n_records, chain_len, n_chains;
    int tile_begin, tile_end; /* work tiles of this launch */
    product_schedule s;
    float4 *sums; /* [column block][work tile][chain][row tile][cell] */
    int *arrivals;
} product_args;

/* Columns that a block keeps room for: those past the batch's rows hold anything, and so do their sums, which nobody
 * stores. */
static inline __host__ __device__ int product_stride(int columns)
{
    return columns <= 8 ? columns : columns <= 16 ? 16 : 32;
}

/* Cells of a chain sum: a lane's four results of one n8 tile. With at most eight columns those of absent ones are left
 * out. */
static inline __host__ __device__ int product_cells(int columns)
{
    if (columns > 8) return (columns + 7) / 8 * WARP;
    return columns >= 7 ? WARP : (columns + 1) / 2 * 8;
}

/* Registers bound how many warps a block has: the fewer results a warp holds, the more of them fit. */
static __host__ __device__ constexpr int product_max_warps(int nt, int mt)
{
    return nt == 1 && mt == 1 ? 24 : nt == 4 ? 12 : 16;
}

/* Records that a warp packs at once; with so many warps there are registers for four only. */
static __host__ __device__ constexpr int product_packed(int nt, int mt)
{
    return product_max_warps(nt, mt) > 16 ? TILE_MAX_CHAIN / 2 : TILE_MAX_CHAIN;
}

typedef void (*product_fn)(product_args a);

/* product_N.cu: the kernel for N n8 tiles of columns, mt row tiles, and weights of the types a and b: one that knows
 * only those where they are common, else one that knows all. */
product_fn product_kernel_1(int mt, tensor_type a, tensor_type b);
product_fn product_kernel_2(int mt, tensor_type a, tensor_type b);
product_fn product_kernel_4(int mt); /* knows all types */

/* What an op asks for. Every weight has tile records and the same n_in. */
typedef struct product {
    rows_view x;
    const dev_weight *w[PRODUCT_PARTS];
    float *out[PRODUCT_PARTS]; /* gated: only the first */
    float scale[PRODUCT_PARTS];
    int n_parts;
    bool is_gated;
    linear_epilogue epilogue; /* of the only part; gated: its activation counts */
} product;

bool product_fits(const dev_weight *w);
void product_launch(const cuda_pass *p, const product *q);

#endif
