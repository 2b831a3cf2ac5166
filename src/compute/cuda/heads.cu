/* heads.cu: OP_ROPE_Q, OP_KV_WRITE, and the second right after the first in one launch. One warp per head and row; K
 * and V of a KV head are two of them. A lane holds the values 4 lane .. 4 lane + 3 of every span of 128. */
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
template <int N> static __device__ inline void load_head(float4 v[N], const float *x, int dim, float fill)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        const int at = 128 * j + 4 * lane_id();
        v[j] = x && at < dim ? *(const float4 *)(x + at) : make_float4(fill, fill, fill, fill);
    }
}

/* x = rms(x; w) */
template <int N> static __device__ inline void norm_head(float4 x[N], const float4 w[N], int dim, float eps)
{
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N; j++)
        sum = __fmaf_rn(x[j].w, x[j].w,
                        __fmaf_rn(x[j].z, x[j].z, __fmaf_rn(x[j].y, x[j].y, __fmaf_rn(x[j].x, x[j].x, sum))));
    const float inverse = 1.0f / sqrtf(warp_sum(sum) / (float)dim + eps);
#pragma unroll
    for (int j = 0; j < N; j++)
        x[j] = make_float4(x[j].x * inverse * w[j].x, x[j].y * inverse * w[j].y, x[j].z * inverse * w[j].z,
                           x[j].w * inverse * w[j].w);
}

/* Sines and cosines of four neighbouring pairs. */
typedef struct head_turns {
    float4 low, high;
} head_turns;

/* Those of this lane's values in the first half of a head, of a head of up to 128 in both halves; n_rot of them turn.
 */
template <int N>
static __device__ inline void load_turns(head_turns t[(N + 1) / 2], const float2 *turns, int dim, int n_rot)
{
#pragma unroll
    for (int j = 0; j < (N + 1) / 2; j++) {
        int at = 128 * j + 4 * lane_id();
        if (N == 1 && at >= dim / 2) at -= dim / 2;
        const bool has = at < n_rot && (N > 1 || 4 * lane_id() < dim);
        t[j].low = has ? *(const float4 *)(turns + at) : make_float4(0, 1, 0, 1);
        t[j].high = has ? *(const float4 *)(turns + at + 2) : make_float4(0, 1, 0, 1);
    }
}

/* One pair: a of the first half of a head, b of the second. */
static __device__ inline void turn_pair(float *a, float *b, float sine, float cosine)
{
    const float first = *a * cosine - *b * sine, second = *b * cosine + *a * sine;
    *a = first;
    *b = second;
}

static __device__ inline void turn_quad(float4 *a, float4 *b, const head_turns &t)
{
    turn_pair(&a->x, &b->x, t.low.x, t.low.y);
    turn_pair(&a->y, &b->y, t.low.z, t.low.w);
    turn_pair(&a->z, &b->z, t.high.x, t.high.y);
    turn_pair(&a->w, &b->w, t.high.z, t.high.w);
}

/* Pair i of (i, i + dim / 2) turns by the angle i. */
template <int N> static __device__ inline void rotate_head(float4 x[N], int dim, const head_turns t[(N + 1) / 2])
{
    if (N > 1) {
#pragma unroll
        for (int j = 0; j < N / 2; j++) turn_quad(&x[j], &x[(N > 1 ? N / 2 : 0) + j], t[j]);
        return;
    }
    const int step = dim / 8; /* lanes from one half to the other: 16, or 8 */
    const bool is_second = 4 * lane_id() >= dim / 2;
    float4 other = make_float4(__shfl_xor_sync(0xffffffffu, x[0].x, step), __shfl_xor_sync(0xffffffffu, x[0].y, step),
                               __shfl_xor_sync(0xffffffffu, x[0].z, step), __shfl_xor_sync(0xffffffffu, x[0].w, step));
    float4 a = is_second ? other : x[0], b = is_second ? x[0] : other;
    turn_quad(&a, &b, t[0]);
    x[0] = is_second ? b : a;
}

/* N spans of 128. Grid: query heads, then KV heads for K, then for V, a warp each; rows. Reads come before the first
 * use of any of them. */
template <int N> static __global__ void __launch_bounds__(BLOCK) heads_kernel(const heads_args a)
{
    const int row = (int)blockIdx.y, index = (int)(blockIdx.x * (blockDim.x / WARP)) + warp_id();
    const bool has_head = index < a.n_q_heads + 2 * a.n_kv_heads;
    const head_part p = part_of(a, has_head ? index : 0, row);
    float4 x[N], w[N];
    head_turns turns[(N + 1) / 2];
    load_head<N>(w, p.norm, p.dim, 1);
    release_dependents();
    wait_for_predecessors();
    if (!has_head) return;
    const bool has_turns = p.is_query || p.is_key;
    const int alive = a.live[row], source = max(batch_row(a.map, row), 0), seq = max(a.in.seq[source], 0);
    load_head<N>(x, p.x, p.dim, 0);
    load_turns<N>(turns, a.turns + (size_t)source * a.n_rot, p.dim, has_turns ? a.n_rot : 0);
    const int64_t at = p.is_query ? 0 : page_index(a.tables, seq, a.layer.group, a.in.slot[source]);
    if (alive < 0) return;

    if (has_turns || a.has_v_norm) norm_head<N>(x, w, p.dim, a.eps);
    if (has_turns) rotate_head<N>(x, p.dim, turns);
    if (p.is_query) {
        float *out = a.out + ((size_t)row * a.n_q_heads + p.head) * p.dim + 4 * lane_id();
#pragma unroll
        for (int j = 0; j < N; j++)
            if (128 * j + 4 * lane_id() < p.dim) *(float4 *)(out + 128 * j) = x[j];
        return;
    }
    const kv_type type = p.is_key ? a.layer.k_type : a.layer.v_type;
    uint8_t *to = p.is_key ? page_k(a.layer, at, p.head) : page_v(a.layer, at, p.head);
#pragma unroll
    for (int j = 0; j < N; j++) kv_store(type, to, p.dim, 128 * j, x[j]);
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
    /* Few rows: each warp on a multiprocessor of its own. */
    const int warps = n_rows <= 8 ? 1 : BLOCK_WARPS;
    const dim3 grid(n_blocks((size_t)(a.n_q_heads + 2 * a.n_kv_heads), (size_t)warps), (unsigned)n_rows);
    const int dim = a.n_q_heads ? a.q_dim : a.layer.head_dim; /* queries and keys of one launch have the same */
    launch_overlapped(p->b,
                      dim <= 128   ? heads_kernel<1>
                      : dim <= 256 ? heads_kernel<2>
                                   : heads_kernel<4>,
                      grid, warps * WARP, 0, a);
}

facet_status check_rope_q(const compiled *c, const plan_op *op, facet_error *err)
{
    int64_t width = (int64_t)op->n_heads * op->head_dim;
    FACET_TRY(
        op_expect(c, op, op->n_heads > 0 && cuda_has_head_dim(op->head_dim), "head_dim is 64, 128, 256 or 512", err));
    FACET_TRY(op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->o),
                        "input and output hold n_heads heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    FACET_TRY(op_expect(c, op,
                        op->n_rot >= 0 && op->n_rot <= op->head_dim / 2 && op->n_rot % 4 == 0 &&
                            (op->n_rot == 0 || op->inv_freq),
                        "n_rot frequencies, a multiple of 4, at most head_dim / 2", err));
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
    FACET_TRY(op_expect(
        c, op, op->n_rot >= 0 && op->n_rot <= l->head_dim / 2 && op->n_rot % 4 == 0 && (op->n_rot == 0 || op->inv_freq),
        "n_rot frequencies, a multiple of 4, at most head_dim / 2", err));
    return op_expect(c, op, op_has_vector(c, op->w0, (uint32_t)l->head_dim), "the norm is as long as a head", err);
}

void launch_kv_write(const cuda_pass *p, const plan_op *op)
{
    heads_args a = {};
    set_rotation(p, op, &a);
    set_keys(p, op, &a);
    launch_args(p, a, view_of(p, op->i0).n);
}
