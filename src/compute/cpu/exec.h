/* exec.h: how the CPU backends run a plan: one parallel region, every thread walks the ops and does its share of each.
 *
 * `ref` and `cpu` share this executor; they differ in the kernels (scalar against SIMD) and in the weights (file layout
 * against packed tiles). A barrier stands before an op only when it reads or overwrites what another thread may have
 * written since the last. */
#ifndef FACET_COMPUTE_CPU_EXEC_H
#define FACET_COMPUTE_CPU_EXEC_H

#include <stdatomic.h>

#include "base/cpu.h"
#include "base/team.h"
#include "compute/backend.h"
#include "compute/cpu/attn_rebuild.h"
#include "compute/cpu/linear.h"
#include "compute/cpu/rows.h"

enum { MAX_FREQ_TABLES = 4, MAX_REBUILDS = 4 };

typedef struct cpu_backend {
    backend base;
    backend_config cfg;
    bool is_ref;
    team *team;
    const weight *weights; /* borrowed */
    int n_weights;
    packed_matrix *packed; /* per weight and expert 0; data NULL where the file layout is used */
    uint64_t packed_bytes;
    kv_desc kv;            /* layers: owned copy */
    attn_layer *kv_layers; /* pages NULL while their group is dropped */
    const row_kernels *rows;
    act_quantize_fn quantize;
    uint64_t kv_bytes, compute_bytes;
} cpu_backend;

/* What a value needs beyond its f32 rows. */
typedef struct value_state {
    float *f32;
    act_block *act;   /* twin for products with quantised weights: act[block * n + r], n = rows of the batch; NULL when
                         not needed */
    uint32_t segment; /* the twin is made of segments of this many columns (experts), each a row of its own; = width
                         otherwise */
} value_state;

struct compiled {
    const plan *plan;
    int max_rows, max_out;
    value_state *values;
    bool *barrier_before; /* per op */
    atomic_int *next;     /* per op and phase: next unit of work to take */
    uint8_t *memory;      /* values and their twins */
    size_t memory_bytes;
    float *scratch; /* one op at a time: gate products, expert products */
    size_t scratch_bytes;
    float *parts; /* partial attention results */
    size_t parts_bytes;
    float *thread_scratch;
    size_t thread_scratch_floats, thread_scratch_bytes;
    int n_freqs;
    const double *freqs[MAX_FREQ_TABLES];
    int freq_len[MAX_FREQ_TABLES];
    float *rope[MAX_FREQ_TABLES]; /* [max_rows][n_rot][cos, sin] */
    size_t rope_bytes[MAX_FREQ_TABLES];
    uint8_t *sparse; /* op_attn_sparse.c; NULL where no op is sparse */
    size_t sparse_bytes;
    int n_rebuilds;
    attn_rebuild rebuild[MAX_REBUILDS]; /* without norms: one per rotation and number of pairs decoded */
    uint8_t *rebuild_tables;            /* NULL: no layer rebuilds keys */
    size_t rebuild_bytes;
};

/* One run. */
typedef struct exec {
    cpu_backend *be;
    compiled *c;
    const batch *batch;
} exec;

typedef void (*op_fn)(const exec *x, const plan_op *op, int thread, int n_threads);

/* How a compiled plan makes the keys that the op reads; NULL: it knows no such way. */
static inline attn_rebuild *exec_rebuild(compiled *c, const plan_op *op, int n_turn)
{
    for (int i = 0; i < c->n_rebuilds; i++) {
        attn_rebuild *r = &c->rebuild[i];
        if (r->inv_freq == op->inv_freq && r->head_dim == op->head_dim && r->n_turn == n_turn) return r;
    }
    return NULL;
}

static inline int exec_n_rows(const exec *x, int value)
{
    return x->c->plan->values[value].rows == ROWS_ALL ? x->batch->n_rows : x->batch->n_out;
}
/* Row of the batch behind row r of a value. */
static inline int exec_batch_row(const exec *x, int v, int r)
{
    return x->c->plan->values[v].rows == ROWS_ALL ? r : x->batch->out_row[r];
}
static inline float *exec_row(const exec *x, int value, int r)
{
    return x->c->values[value].f32 + (size_t)r * x->c->plan->values[value].width;
}
static inline const float *exec_vector(const exec *x, int w)
{
    return w < 0 ? NULL : x->be->weights[w].data;
}
static inline float *exec_thread_scratch(const exec *x, int thread)
{
    return x->c->thread_scratch + (size_t)thread * x->c->thread_scratch_floats;
}
/* Takes the next unit of work of this op; each thread calls until it gets n or more. */
static inline int exec_take(const exec *x, const plan_op *op, int phase)
{
    return atomic_fetch_add_explicit(&x->c->next[2 * (op - x->c->plan->ops) + phase], 1, memory_order_relaxed);
}
/* Threads of a backend that was asked for `wanted`; 0 = one per processor. */
static inline int exec_n_threads(int wanted)
{
    return wanted > 0 ? wanted : cpu_count();
}
/* compile.c: entries of backend_ops. */
facet_status cpu_compile(backend *b, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err);
void cpu_release(backend *b, compiled *c);
/* weights.c: likewise. */
facet_status cpu_load(backend *b, const weight *weights, int n, facet_error *err);
void cpu_unload(backend *b, int part);
facet_status cpu_reload(backend *b, int part, facet_error *err);
void cpu_weights_free(cpu_backend *be);

/* pages.c: likewise. */
facet_status cpu_kv_alloc(backend *b, const kv_desc *desc, facet_error *err);
void cpu_kv_drop(backend *b, int group);
facet_status cpu_kv_renew(backend *b, int group, facet_error *err);
facet_status cpu_kv_read(backend *b, int group, const int32_t *pages, int n, void *dst, facet_error *err);
facet_status cpu_kv_write(backend *b, int group, const int32_t *pages, int n, const void *src, facet_error *err);
facet_status cpu_move(backend *b, const batch *in, facet_error *err);
void cpu_pages_free(cpu_backend *be);
/* Page copies and slot moves of the batch, in order. */
void cpu_pages_prepare(cpu_backend *be, const batch *in);

/* What a row of an attention op sees. */
attn_row exec_query_row(const exec *x, const plan_op *op, int r);
/* Every attention that reads some of the rows' keys: its parts, between barriers that all threads meet. `stride` bytes
 * of masks a row and KV head. */
size_t sparse_space_bytes(const plan_op *op, const kv_desc *kv, int max_rows, int n_threads);
/* Whether some row of the batch may leave keys out; the same for all threads. */
bool sparse_is_wanted(const exec *x, const plan_op *op);
/* Before the attention itself: summaries and choices. */
void sparse_choose(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, int thread,
                   int n_threads);
/* The row's blocks and the place of its state. */
void sparse_set_row(const exec *x, const plan_op *op, int r, attn_row *row);
/* After it: certificates, rescues, statistics. */
void sparse_settle(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, int thread,
                   int n_threads);

/* Quantises row r of a value when products want it so. */
void exec_quantize_row(const exec *x, int value, int r);
/* The same for all rows, shared out, once every thread has written its columns (a barrier inside). */
void exec_quantize_all(const exec *x, int value, int thread, int n_threads);

enum { LOGIT_TILES = 8 }; /* tiles of logits that a thread finishes before it copies them to their rows */

enum { MOE_GROUP = 64 }; /* rows that one pass over an expert serves */
/* Floats of thread scratch that an expert matrix needs. */
size_t moe_scratch_floats(uint32_t n_in, uint32_t n_out, size_t tile_bytes);

/* Floats of shared scratch that op_topk needs for n_rows rows of n_in values. */
size_t topk_scratch_floats(int n_rows, uint32_t n_in);

void op_embed(const exec *x, const plan_op *op, int thread, int n_threads);
void op_norm(const exec *x, const plan_op *op, int thread, int n_threads);
void op_norm_add(const exec *x, const plan_op *op, int thread, int n_threads);
void op_add(const exec *x, const plan_op *op, int thread, int n_threads);
void op_gather(const exec *x, const plan_op *op, int thread, int n_threads);
void op_capture(const exec *x, const plan_op *op, int thread, int n_threads);
void op_argmax(const exec *x, const plan_op *op, int thread, int n_threads);
void op_concat(const exec *x, const plan_op *op, int thread, int n_threads);
void op_topk(const exec *x, const plan_op *op, int thread, int n_threads);
void op_centroids(const exec *x, const plan_op *op, int thread, int n_threads);
void op_linear(const exec *x, const plan_op *op, int thread, int n_threads);
void op_gated(const exec *x, const plan_op *op, int thread, int n_threads);
void op_rope_q(const exec *x, const plan_op *op, int thread, int n_threads);
void op_kv_write(const exec *x, const plan_op *op, int thread, int n_threads);
void op_attn(const exec *x, const plan_op *op, int thread, int n_threads);
void op_moe_route(const exec *x, const plan_op *op, int thread, int n_threads);
void op_moe_gated(const exec *x, const plan_op *op, int thread, int n_threads);
void op_moe_down(const exec *x, const plan_op *op, int thread, int n_threads);

/* Cos and sin of every row's position, before the first op. */
void exec_rope_tables(const exec *x, int thread, int n_threads);

/* Products of a matrix (expert e of it) with rows: columns of tiles [tile_begin, tile_end) for all rows of in. Uses the
 * packed weights or the file's. `pack` is room for one tile (mapped weights are packed tile by tile). */
void exec_product(const exec *x, int w, int expert, uint32_t tile_begin, uint32_t tile_end, const linear_input *in,
                  float *y, size_t ld, float *pack);
/* Floats of thread scratch for one packed tile of a matrix; what logits() needs lies behind them. */
static inline size_t exec_pack_floats(const weight *m)
{
    return linear_tile_bytes(m->type, (uint32_t)m->ne[0]) / sizeof(float);
}
/* A value as the input of products. */
linear_input exec_input(const exec *x, int value);
/* The product of one row of a matrix (in the file's layout) with row r of the input. */
float exec_row_dot(const weight *m, const uint8_t *row, const linear_input *in, int r);
/* Tiles of one unit of work for a matrix with n_out outputs. */
uint32_t exec_tiles_per_unit(const exec *x, int w, uint32_t n_tiles, int n_threads);

#endif
