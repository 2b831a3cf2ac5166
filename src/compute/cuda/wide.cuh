/* wide.cuh: products of many rows (docs/cuda.md). The same sums in the same order as product.cuh, and so the same bits;
 * but activations are packed by a kernel of their own and streamed, and four warps share each read of them. */
#ifndef FACET_COMPUTE_CUDA_WIDE_CUH
#define FACET_COMPUTE_CUDA_WIDE_CUH

#include "compute/cuda/product.cuh"

enum {
    WIDE_WRITERS = 2,                /* warps of a block that write results, beside those that multiply */
    WIDE_HELPERS = WIDE_WRITERS + 2, /* and one that fetches weights, one that fetches activations */
    WIDE_K = 64,                     /* inputs in a stage of activations */
    WIDE_COLUMN_BYTES = WIDE_K * 2,  /* of one column in one plane of a stage */
    WIDE_COLUMNS = 64,               /* of a block at most; where four warps multiply together: */
    WIDE_MOST_COLUMNS = 128
};

/* Row tiles of a block, and warps that multiply: the fewer columns, the more of them hide each other's latency. */
static inline __host__ __device__ constexpr int wide_tiles(int columns)
{
    return columns <= 32 ? 16 : 8;
}

/* Floats from one column to the next where the results lie. */
static inline __host__ __device__ constexpr int wide_result_stride(int columns)
{
    return wide_tiles(columns) * TILE_M + 4;
}

/* An item is wide_tiles() row tiles (gated: half as many of either matrix) times a block of columns. The first n_whole
 * items are summed by one block each; of the others every chain is a unit of its own, and sums meet in global memory.
 */
typedef struct wide_args {
    product_part parts[PRODUCT_PARTS]; /* all of one type */
    int n_parts;
    bool is_gated;
    linear_epilogue epilogue;
    const uint8_t *x;    /* [column block][record x 4][plane][column] x 128 bytes, see wide_chunk() */
    const float *scales; /* [column block][chain][column]: what undoes the scaling of activations */
    const int32_t *live;
    int n_rows, n_column_blocks;
    int n_records, chain_len, n_chains;
    int n_whole, n_items;
    int a_stages, b_stages; /* of weights, one record of each row tile; of activations */
    int record_bytes;
    int weights_at, results_at, barriers_at; /* shared memory; activations lie first */
    float4 *sums;                            /* [item past n_whole][chain][cell][thread], a cell holds four */
    int *arrivals;                           /* [item past n_whole] */
} wide_args;

/* Where the 16 bytes lie that hold, for t = 0 .. 3, the words r = 2 s + b of pair i: bytes from the begin of the
 * record's first stage, for stages of n columns and n_planes planes. Chunks are spread over the banks by their column.
 */
static inline __host__ __device__ uint32_t wide_chunk(int column, int i, int s, int b, int n, int n_planes)
{
    const int chunk = i % 2 * 4 + s * 2 + b;
    return (uint32_t)((i / 2 * n_planes * n + column) * WIDE_COLUMN_BYTES + ((chunk ^ column % 8) * 16));
}

typedef void (*wide_fn)(wide_args a);

/* wide_N.cu, wide_N_types.cu: the kernel of a type for blocks of N columns; NULL: in another file. */
wide_fn wide_16(tensor_type type);
wide_fn wide_32(tensor_type type);
wide_fn wide_64(tensor_type type);
wide_fn wide_128_k(tensor_type type);
wide_fn wide_128_4(tensor_type type);
wide_fn wide_128_5(tensor_type type);
wide_fn wide_128_w(tensor_type type);

/* wide_pack.cu: x [n_rows, n_in] of the rows that live, as the kernels read it. */
typedef struct wide_pack_args {
    const float *x;
    const int32_t *live;
    uint32_t n_in;
    int n_rows, columns, n_planes;
    int n_records, chain_len, n_chains;
    uint8_t *out;
    float *scales;
} wide_pack_args;
void wide_pack(const cuda_backend *b, const wide_pack_args *a);

/* wide_64.cu: writes the most columns of a block to device memory. */
void wide_columns(const cuda_backend *b, int *out);

/* wide.cu */
bool wide_serves(const cuda_pass *p, const product *q);
void wide_launch(const cuda_pass *p, const product *q);

#endif
