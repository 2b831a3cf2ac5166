/* state.h: the objects of the CUDA backend. Host memory only; kernels get small views of them by value. */
#ifndef FACET_COMPUTE_CUDA_STATE_H
#define FACET_COMPUTE_CUDA_STATE_H

#include <cuda_runtime_api.h>

#include "compute/cuda/attn.h"
#include "compute/cuda/host.h"
#include "compute/cuda/moe.h"

enum {
    CUDA_MAX_SEQS = 64,      /* sequences in one batch */
    CUDA_MIN_TABLE = 4096,   /* page table entries per sequence and group: the family's longest context, 262144 */
    CUDA_MAX_HEAD_DIM = 512, /* a multiple of 32 */
    CUDA_MAX_EXPERTS = 512,
    CUDA_MAX_ROWS = 65535, /* rows are a grid's y or z */
    WIDE_LEAST_ROWS = 17,  /* wide.cu takes no fewer rows: docs/cuda.md has the measurements */
    CUDA_N_WIDTHS = 11,    /* batch widths that have a graph, see cuda_width() */
};

/* A weight on the device. Matrices of types that have tile records lie in those (tile.h); others, and experts, are raw
 * blocks as in the file; vectors (neither is_rows nor is_matrix) are f32. */
typedef struct dev_weight {
    tensor_type type;
    uint32_t n_in, n_out, n_experts;
    size_t row_bytes, expert_bytes; /* of raw rows */
    uint32_t record_bytes;          /* of a tile record; 0: the rows are raw */
    float gain;                     /* tile_part in tile.cuh */
    const uint8_t *data;            /* NULL for a table of rows that stays on the host */
    const weight *host;
} dev_weight;

/* Pages of one layer, as kernels see them. A page: K of all heads, then V; each [head][slot][head_dim] in its type. */
typedef struct dev_pages {
    uint8_t *data; /* NULL while the group is dropped */
    size_t page_bytes, v_offset;
    uint32_t k_row_bytes, v_row_bytes;
    kv_type k_type, v_type;
    int n_kv_heads, head_dim, group;
} dev_pages;

/* The batch on the device: fixed addresses, contents renewed for every step. A row whose seq (out_row in the set of
 * wanted rows) is negative is padding. */
typedef struct dev_batch {
    int32_t *token, *pos, *slot, *seq, *out_row;
    int32_t *base;            /* [row]: logical positions from here on go through path; INT32_MAX without a tree */
    int32_t *committed, *end; /* [row]: of its sequence: one past what is committed, one past this batch's rows */
    uint8_t *path;            /* [row][BATCH_MAX_TREE] */
} dev_batch;

/* Page tables: entry i of sequence s in group g is data[(s * n_groups + g) * cap + i]. */
typedef struct dev_tables {
    int32_t *data;
    int n_groups, cap;
} dev_tables;

typedef struct cuda_backend {
    backend base;
    int device;
    char description[128];
    bool failed;             /* a sticky error: the context is lost */
    int n_sms, shared_bytes; /* multiprocessors; shared memory that one block may have */
    bool has_overlap;        /* programmatic dependent launch */
    int n_threads;           /* backend_config */
    cudaStream_t stream;     /* everything runs here; it does not wait for the default stream, which is never used */
    facet_progress_fn progress;
    void *progress_ud;

    dev_weight *weights;
    const weight *host_weights; /* borrowed */
    int n_weights;
    uint8_t *weight_memory[WEIGHT_MAX_PARTS]; /* NULL: the part is empty, or unloaded */
    size_t part_bytes[WEIGHT_MAX_PARTS], weight_bytes;
    void *product_sums; /* workspace of product.cu */
    int *product_arrivals;
    int wide_columns; /* columns of a block in wide.cu at most: what the code for this device can do */
    int wide_rows;    /* from so many rows on products take that way; INT32_MAX: never */

    dev_pages *layers;
    int n_layers;
    kv_group_desc groups[KV_MAX_GROUPS];
    int n_groups;
    size_t kv_bytes;
    dev_tables tables;
    int32_t *host_tables; /* pinned, same layout */

    size_t compute_bytes;
} cuda_backend;

/* A row table that stays on the host: its rows are decoded there and sent ahead of the plan. */
typedef struct host_rows {
    int op;
    float *host, *device; /* [max_rows, width]; host is pinned */
} host_rows;

/* A table of frequencies, and the sines and cosines of the step's rows, on the device. */
typedef struct dev_turns {
    int first_op; /* of the plan that uses it: its launch computes the turns */
    double *freq; /* [n_rot] */
    void *turns;  /* float2 [max_rows, n_rot] */
} dev_turns;

typedef struct cuda_graph {
    bool was_run; /* the first run of a width is eager, which also loads its kernels; the second is captured */
    cudaGraphExec_t exec;
} cuda_graph;

struct compiled {
    cuda_backend *b;
    const plan *p; /* borrowed, as plans outlive what was compiled from them */
    int max_rows, max_out;
    bool uses_kv, sees_committed; /* sees_committed: no row sees or writes a slot from its sequence's base on */
    int n_attn_classes;
    attn_class *attn_classes;
    int16_t *attn_class_of; /* [n_ops], -1: no attention, or of a layer that attn_any.cu serves */
    size_t attn_items_cap, attn_parts_bytes, attn_counters_bytes;
    attn_list *attn_host_lists, *attn_lists; /* [class][ATTN_MAX_WAVES], in the batch blocks */
    attn_item *attn_host_items, *attn_items; /* [attn_items_cap], likewise */
    float *attn_parts;
    int *attn_counters; /* zero between launches */
    int n_moe_blocks;
    moe_block *moe_blocks;
    int16_t *moe_block_of; /* [n_ops], -1: none */
    uint8_t *moe_memory;
    moe_work moe;    /* in that memory */
    uint8_t *covers; /* [n_ops] ops that the op's launch does: itself and neighbours; 0: an earlier one does */
    size_t *offsets; /* [n_values] into values */
    uint8_t *values;
    size_t values_bytes, batch_bytes, items_at, path_at; /* the latter three: of the batch blocks */
    uint8_t *host_batch, *device_batch;                  /* batch_bytes each; host is pinned */
    dev_batch in_host, in;                               /* the arrays inside them */
    dev_turns *tables_of_turns;                          /* [n_tables] */
    int n_tables;
    dev_turns **turns;         /* [n_ops] into those, NULL where the op has no rotation */
    int32_t *suppress, *order; /* device; order: of OP_CENTROIDS */
    uint8_t *packed;           /* activations of the product in hand, as wide.cu reads them; NULL for few rows */
    int n_host_rows;
    host_rows *host_rows_of;
    bool is_dry; /* only counts device_bytes */
    size_t device_bytes;
    cuda_graph graphs[CUDA_N_WIDTHS][CUDA_N_WIDTHS + 1]; /* [rows][wanted rows; 0 = none] */
};

/* One pass over the plan: how many rows the launches cover (padding included). */
typedef struct cuda_pass {
    cuda_backend *b;
    compiled *c;
    int n_rows, n_out;
} cuda_pass;

#ifdef __cplusplus
extern "C" {
#endif

/* error.c */

/* FACET_OK, or the CUDA error as a status: what was done (`what`), and whether the device is lost. */
facet_status cuda_check(cuda_backend *b, cudaError_t e, const char *what, facet_error *err);
/* Device memory; FACET_ERR_MEMORY tells the sizes. *out stays NULL on failure. */
facet_status cuda_alloc(cuda_backend *b, size_t bytes, const char *what, void **out, facet_error *err);
/* Pinned host memory. */
facet_status cuda_alloc_pinned(cuda_backend *b, size_t bytes, const char *what, void **out, facet_error *err);
/* Every entry begins here: selects the device for this thread; refuses after a sticky error. */
facet_status cuda_enter(cuda_backend *b, facet_error *err);

/* The entries of backend_ops: weights.c, pages.c, compile.c, run.c. */
facet_status cuda_load(backend *b, const weight *weights, int n, facet_error *err);
facet_status cuda_kv_alloc(backend *b, const kv_desc *desc, facet_error *err);
facet_status cuda_compile(backend *b, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err);
void cuda_release(backend *b, compiled *c);
facet_status cuda_run(backend *b, compiled *c, const batch *in, facet_error *err);
facet_status cuda_read(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err);
facet_status cuda_write(backend *b, compiled *c, int value, int row, int n, const void *src, facet_error *err);
facet_status cuda_copy_rows(backend *b, const row_copy *copy, facet_error *err);
facet_status cuda_move(backend *b, const batch *in, facet_error *err);
void cuda_unload(backend *b, int part);
facet_status cuda_reload(backend *b, int part, facet_error *err);
void cuda_kv_drop(backend *b, int group);
facet_status cuda_kv_renew(backend *b, int group, facet_error *err);
facet_status cuda_kv_read(backend *b, int group, const int32_t *pages, int n, void *dst, facet_error *err);
facet_status cuda_kv_write(backend *b, int group, const int32_t *pages, int n, const void *src, facet_error *err);
/* measure.c. read_gbps is that of a copy inside the device, bytes read and written together. */
facet_status cuda_run_timed(backend *b, compiled *c, const batch *in, double *op_ms, facet_error *err);
facet_status cuda_measure(backend *b, backend_ceilings *out, facet_error *err);

/* product.cu: the workspace of products, once per backend. */
facet_status cuda_products_open(cuda_backend *b, facet_error *err);
/* wide.cu: products of many rows, after cuda_products_open(); what the activations of one take. */
facet_status cuda_wide_open(cuda_backend *b, facet_error *err);
size_t cuda_wide_bytes(int max_rows, uint32_t n_in, tensor_type type);
/* attn.cu: the shared memory that its kernels may have. */
facet_status cuda_attn_open(cuda_backend *b, facet_error *err);
/* moe_join.c, after cuda_join_ops(): fills moe_blocks and moe_block_of, and sets covers of their ops. */
facet_status cuda_moe_join(compiled *c, facet_error *err);
void cuda_moe_columns(compiled *c); /* sets those of c->moe */
/* moe_route.cu, moe_product.cu: the shared memory that their kernels may have. */
facet_status cuda_moe_open(cuda_backend *b, facet_error *err);
facet_status cuda_moe_products_open(cuda_backend *b, facet_error *err);
/* Bytes of the workspace, 0 without experts, and where its arrays lie in the order of moe_work. */
size_t cuda_moe_room(const compiled *c, size_t at[6]);
/* join.c: fills c->covers. */
facet_status cuda_join_ops(compiled *c, facet_error *err);
/* plan_layout() in which everything that a launch touches keeps its own memory. */
facet_status cuda_layout(const compiled *c, size_t *offsets, size_t *total, facet_error *err);

/* A weight whose bytes lie, or will lie, at data. */
dev_weight cuda_describe_weight(const weight *w, const uint8_t *data);
void cuda_weights_free(cuda_backend *b);
/* pages.c: layers and groups of a cache without memory; FACET_ERR_UNSUPPORTED tells what this backend lacks. */
facet_status cuda_pages_describe(cuda_backend *b, const kv_desc *desc, facet_error *err);
void cuda_pages_free(cuda_backend *b);
/* Page copies and slot moves of the batch, in order, on the stream. */
facet_status cuda_pages_prepare(cuda_backend *b, const batch *in, facet_error *err);

/* stage.c: checks the batch, and puts it on the device, padded to n_rows and n_out rows. */
facet_status cuda_batch_check(const compiled *c, const batch *in, facet_error *err);
facet_status cuda_copies_check(const cuda_backend *b, const batch *in, facet_error *err);
facet_status cuda_batch_stage(compiled *c, const batch *in, int n_rows, int n_out, facet_error *err);

/* attn_work.c: fills attn_classes, attn_class_of and the sizes. */
static inline bool cuda_has_head_dim(int d)
{
    return d == 64 || d == 128 || d == 256 || d == 512;
}
bool cuda_attn_has_kernel(int head_dim, kv_type k, kv_type v);
facet_status cuda_attn_classes(compiled *c, facet_error *err);
/* The lists and items of a step of n_rows and n_out rows, padding included; returns how many items. */
int cuda_attn_make_lists(compiled *c, const batch *in, int n_rows, int n_out);

/* ops.cu: an op's shape check (once, at compile), and its launch, whose error is left in cudaGetLastError(). */
facet_status cuda_op_check(const compiled *c, int op, facet_error *err);
void cuda_op_launch(const cuda_pass *pass, int op);

#ifdef __cplusplus
}
#endif

#endif
