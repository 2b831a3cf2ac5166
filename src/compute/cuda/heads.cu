/* heads.cu: OP_ROPE_Q, OP_KV_WRITE, and the second right after the first in one launch. One warp per head and row; K
 * and V of a KV head are two of them. A lane holds the values lane, lane + 32, .. of its head. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/pages.cuh"

typedef struct heads_args {
    dev_batch in;
    const int32_t *live, *map;
    int n_rot;
    const float2 *turns; /* [row of the batch, n_rot] */
    float eps;
    /* queries */
    int n_q_heads, q_dim;
    const float *q, *q_norm;
    float *out;
    /* keys and values; none when n_kv_heads is 0 */
    int n_kv_heads;
    dev_pages layer;
    dev_tables tables;
    const float *k, *v, *k_norm;
    bool has_v_norm;
} heads_args;

/* What a warp works on. */
typedef struct head_part {
    bool is_query, is_key;
    int head, dim; /* head of its kind */
    const float *x, *norm;
} head_part;

static __device__ inline head_part part_of(const heads_args &a, int index, int row)
{
    head_part p = {};
    p.is_query = index < a.n_q_heads;
    p.is_key = !p.is_query && index < a.n_q_heads + a.n_kv_heads;
    p.head = p.is_query ? index : p.is_key ? index - a.n_q_heads : index - a.n_q_heads - a.n_kv_heads;
    p.dim = p.is_query ? a.q_dim : a.layer.head_dim;
    p.norm = p.is_query ? a.q_norm : p.is_key ? a.k_norm : NULL;
    const float *x = p.is_query ? a.q : p.is_key ? a.k : a.v;
    p.x = x + ((size_t)row * (p.is_query ? a.n_q_heads : a.n_kv_heads) + p.head) * p.dim;
    return p;
}

/* A lane's values of a head; `fill` past its end or without one. */
template <int N> static __device__ inline void load_head(float v[N], const float *x, int dim, float fill)
{
#pragma unroll
    for (int j = 0; j < N; j++) v[j] = x && 32 * j < dim ? x[lane_id() + 32 * j] : fill;
}

/* x = rms(x; w) */
template <int N> static __device__ inline void norm_head(float x[N], const float w[N], int dim, float eps)
{
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N; j++) sum = __fmaf_rn(x[j], x[j], sum);
    const float inverse = 1.0f / sqrtf(warp_sum(sum) / (float)dim + eps);
#pragma unroll
    for (int j = 0; j < N; j++) x[j] = x[j] * inverse * w[j];
}

/* Pair i < n_rot of (i, i + dim / 2) turns by the angle whose sine and cosine are turns[i]. */
template <int N> static __device__ inline void rotate_head(float x[N], int dim, const float2 turns[N / 2])
{
#pragma unroll
    for (int half = 1; half <= N / 2; half++) { /* x has no index that is known later than here */
        if (dim != 64 * half) continue;
#pragma unroll
        for (int j = 0; j < half; j++) {
            const float a = x[j], b = x[j + half], sine = turns[j].x, cosine = turns[j].y;
            x[j] = a * cosine - b * sine;
            x[j + half] = b * cosine + a * sine;
        }
    }
}

/* Grid: query heads, then KV heads for K, then for V, BLOCK_WARPS a block; rows. Reads come before the first use of any
 * of them. */
template <int N> static __global__ void __launch_bounds__(BLOCK) heads_kernel(const heads_args a)
{
    const int row = (int)blockIdx.y, index = (int)blockIdx.x * BLOCK_WARPS + warp_id();
    const bool has_head = index < a.n_q_heads + 2 * a.n_kv_heads;
    const head_part p = part_of(a, has_head ? index : 0, row);
    float x[N], w[N];
    float2 turns[N / 2];
    load_head<N>(w, p.norm, p.dim, 1);
    release_dependents();
    wait_for_predecessors();
    if (!has_head) return;
    load_head<N>(x, p.x, p.dim, 0);
    const int alive = a.live[row], source = max(batch_row(a.map, row), 0), seq = max(a.in.seq[source], 0);
#pragma unroll
    for (int j = 0; j < N / 2; j++) {
        const int i = lane_id() + 32 * j;
        const bool has_turn = (p.is_query || p.is_key) && i < a.n_rot;
        turns[j] = has_turn ? a.turns[(size_t)source * a.n_rot + i] : make_float2(0, 1);
    }
    const int64_t at = p.is_query ? 0 : page_index(a.tables, seq, a.layer.group, a.in.slot[source]);
    if (alive < 0) return;

    if (p.is_query || p.is_key || a.has_v_norm) norm_head<N>(x, w, p.dim, a.eps);
    if (p.is_query || p.is_key) rotate_head<N>(x, p.dim, turns);
    if (p.is_query) {
        float *out = a.out + ((size_t)row * a.n_q_heads + p.head) * p.dim;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (32 * j < p.dim) out[lane_id() + 32 * j] = x[j];
    } else if (p.is_key) {
        kv_store<N>(a.layer.k_type, page_k(a.layer, at, p.head), x, p.dim);
    } else {
        kv_store<N>(a.layer.v_type, page_v(a.layer, at, p.head), x, p.dim);
    }
}

/* The angle in double: positions reach 262143. Grid: rows of the batch. */
static __global__ void turns_kernel(const int32_t *pos, const double *freq, int n_rot, float2 *out)
{
    const int row = (int)blockIdx.x;
    release_dependents();
    wait_for_predecessors();
    for (int i = (int)threadIdx.x; i < n_rot; i += BLOCK) {
        double s, c;
        sincos((double)pos[row] * freq[i], &s, &c);
        out[(size_t)row * n_rot + i] = make_float2((float)s, (float)c);
    }
}

/* The rotation of an op; the first op of a pass that uses a table fills it. */
static void set_rotation(const cuda_pass *p, const plan_op *op, heads_args *a)
{
    const dev_turns *t = p->c->turns[op - p->c->p->ops];
    a->in = p->c->in;
    a->n_rot = op->n_rot;
    a->eps = op->eps;
    if (!t) return;
    a->turns = (const float2 *)t->turns;
    if (&p->c->p->ops[t->first_op] == op)
        launch_overlapped(p->b, turns_kernel, dim3((unsigned)p->n_rows), BLOCK, 0, p->c->in.pos, t->freq, op->n_rot,
                          (float2 *)t->turns);
}

static void set_keys(const cuda_pass *p, const plan_op *op, heads_args *a)
{
    rows_view k = view_of(p, op->i0), v = view_of(p, op->i1);
    a->live = k.live;
    a->map = k.map;
    a->layer = p->b->layers[op->kv_layer];
    a->n_kv_heads = a->layer.n_kv_heads;
    a->tables = p->b->tables;
    a->k = k.data;
    a->v = v.data;
    a->k_norm = vector_of(p->b, op->w0);
    a->has_v_norm = op->has_v_norm;
}

static void launch_args(const cuda_pass *p, const heads_args &a, int n_rows)
{
    const dim3 grid(n_blocks((size_t)(a.n_q_heads + 2 * a.n_kv_heads), BLOCK_WARPS), (unsigned)n_rows);
    const int dim = a.n_q_heads ? a.q_dim : a.layer.head_dim; /* queries and keys of one launch have the same */
    launch_overlapped(p->b,
                      dim <= 128   ? heads_kernel<4>
                      : dim <= 256 ? heads_kernel<8>
                                   : heads_kernel<16>,
                      grid, BLOCK, 0, a);
}

facet_status check_rope_q(const compiled *c, const plan_op *op, facet_error *err)
{
    int64_t width = (int64_t)op->n_heads * op->head_dim;
    FACET_TRY(op_expect(c, op, op->n_heads > 0 && op->head_dim > 0 && op->head_dim <= CUDA_MAX_HEAD_DIM,
                        "head_dim is at most 512", err));
    FACET_TRY(op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->o),
                        "input and output hold n_heads heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    FACET_TRY(op_expect(c, op, op->n_rot >= 0 && op->n_rot <= op->head_dim / 2 && (op->n_rot == 0 || op->inv_freq),
                        "n_rot frequencies, at most head_dim / 2", err));
    return op_expect(c, op, op_has_vector(c, op->w0, (uint32_t)op->head_dim), "the norm is as long as a head", err);
}

void launch_rope_q(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    heads_args a = {};
    set_rotation(p, op, &a);
    a.live = x.live;
    a.map = x.map;
    a.n_q_heads = op->n_heads;
    a.q_dim = op->head_dim;
    a.q = x.data;
    a.q_norm = vector_of(p->b, op->w0);
    a.out = out.data;
    if (covered_by(p, op) > 1) set_keys(p, op + 1, &a);
    launch_args(p, a, x.n);
}

facet_status check_kv_write(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, op->kv_layer >= 0 && op->kv_layer < c->b->n_layers, "the layer has pages", err));
    const dev_pages *l = &c->b->layers[op->kv_layer];
    uint32_t width = (uint32_t)(l->n_kv_heads * l->head_dim);
    FACET_TRY(op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->i1),
                        "K and V hold the layer's KV heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->i1), "K and V have the same rows", err));
    FACET_TRY(op_expect(c, op, op->n_rot >= 0 && op->n_rot <= l->head_dim / 2 && (op->n_rot == 0 || op->inv_freq),
                        "n_rot frequencies, at most head_dim / 2", err));
    return op_expect(c, op, op_has_vector(c, op->w0, (uint32_t)l->head_dim), "the norm is as long as a head", err);
}

void launch_kv_write(const cuda_pass *p, const plan_op *op)
{
    heads_args a = {};
    set_rotation(p, op, &a);
    set_keys(p, op, &a);
    launch_args(p, a, view_of(p, op->i0).n);
}
