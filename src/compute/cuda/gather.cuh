/* gather.cuh: single values of a weight, for ops that pick rows of a table: raw blocks or tile records. */
#ifndef FACET_COMPUTE_CUDA_GATHER_CUH
#define FACET_COMPUTE_CUDA_GATHER_CUH

#include "compute/cuda/decode.cuh"
#include "compute/cuda/ops.cuh"
#include "compute/cuda/tile.cuh"

typedef struct table_view {
    tensor_type type;
    const uint8_t *data;
    size_t row_bytes;                 /* raw rows */
    uint32_t record_bytes, n_records; /* tile records, when record_bytes is not 0 */
} table_view;

static inline table_view table_of(const dev_weight *w)
{
    table_view v = {w->type, w->data, w->row_bytes, w->record_bytes, tile_n_records(w->n_in)};
    return v;
}

static __device__ inline float tile_at(tensor_type type, const uint8_t *record, int row, int e)
{
    switch (type) {
#define TILE_AT(T, BYTES)                                                                                              \
    case T: return tile_value<T>(record, row, e);
        TILE_TYPES(TILE_AT)
#undef TILE_AT
    default: return 0;
    }
}

/* Value k of a row. */
static __device__ inline float table_at(const table_view &v, size_t row, uint32_t k)
{
    if (!v.record_bytes) return weight_at(v.type, v.data + row * v.row_bytes, k);
    const uint8_t *record = v.data + (row / TILE_M * v.n_records + k / TILE_K) * v.record_bytes;
    return tile_at(v.type, record, (int)(row % TILE_M), (int)(k % TILE_K));
}

#endif
