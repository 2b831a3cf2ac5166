/* attn.cu: OP_ATTN. One block per query head and row (Dao et al. 2022, arXiv:2205.14135 section 3: online softmax).
 *
 * Keys are visited in logical order and cut into splits at fixed multiples of SPLIT positions; a split gives (max, sum,
 * o), and splits are folded in order. Inside a split warp w takes the keys w, w + 8, .. of the row's own. So a row's
 * bits depend on its own keys alone, and a tree row, whose path leads to the slots of its own ancestors, gets the bits
 * of the plain step. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/pages.cuh"

enum {
    SPLIT = 512,
    DIMS_PER_THREAD = CUDA_MAX_HEAD_DIM / BLOCK,
    LANE_DIMS = 8,           /* a lane reads 8 neighbouring dims at a time */
    SPAN = WARP * LANE_DIMS, /* dims that a warp covers with one read */
    KEYS_AT_ONCE = 4,        /* reads under way in a warp */
};

typedef struct attn_args {
    dev_pages layer;
    dev_tables tables;
    dev_batch in;
    const int32_t *live, *map;
    const float *q; /* [row, n_heads, head_dim] */
    float *out;
    int n_heads, window;
    float scale;
    attn_sight sight;
} attn_args;

typedef struct attn_shared {
    float p[SPLIT];                          /* scores of the split's keys, then exp(score - max) */
    int64_t index[SPLIT];                    /* where those keys lie */
    float o[BLOCK_WARPS][CUDA_MAX_HEAD_DIM]; /* sums over the keys of each warp */
    float part[BLOCK_WARPS];
} attn_shared;

/* The running state of the softmax; o is this thread's dims threadIdx.x + i * BLOCK. */
typedef struct attn_state {
    float max, sum, o[DIMS_PER_THREAD];
} attn_state;

static __device__ void find_keys(const attn_args &a, int row, int first, int n, attn_shared *s)
{
    int base = a.in.base[row], seq = a.in.seq[row];
    const uint8_t *path = a.in.path + (size_t)row * BATCH_MAX_TREE;
    for (int j = (int)threadIdx.x; j < n; j += BLOCK) {
        int p = first + j, slot = p < base ? p : base + path[p - base];
        s->index[j] = page_index(a.tables, seq, a.layer.group, slot);
    }
}

/* This lane's dims of up to KEYS_AT_ONCE keys: j0, j0 + BLOCK_WARPS, .. < n. */
typedef struct key_reads {
    kv_eight of[KEYS_AT_ONCE];
} key_reads;

/* SPANS: how often a warp must read to cover a head. */
template <int SPANS>
static __device__ inline void score_keys(const attn_args &a, const float (&q)[SPANS][LANE_DIMS], int kv_head, int n,
                                         attn_shared *s)
{
    for (int j0 = warp_id(); j0 < n; j0 += BLOCK_WARPS * KEYS_AT_ONCE) {
        float sum[KEYS_AT_ONCE] = {};
#pragma unroll
        for (int c = 0; c < SPANS; c++) {
            const int dim = c * SPAN + lane_id() * LANE_DIMS;
            key_reads r;
#pragma unroll
            for (int u = 0; u < KEYS_AT_ONCE; u++) {
                const int j = j0 + u * BLOCK_WARPS;
                const bool is_here = j < n && dim < a.layer.head_dim;
                r.of[u] = kv_read_eight(a.layer.k_type, is_here ? page_k(a.layer, s->index[j], kv_head) : NULL, dim);
            }
#pragma unroll
            for (int u = 0; u < KEYS_AT_ONCE; u++)
#pragma unroll
                for (int i = 0; i < LANE_DIMS; i++)
                    sum[u] = __fmaf_rn(q[c][i], kv_eight_value(a.layer.k_type, r.of[u], i), sum[u]);
        }
#pragma unroll
        for (int u = 0; u < KEYS_AT_ONCE; u++) {
            const float score = a.scale * warp_sum(sum[u]);
            if (lane_id() == 0 && j0 + u * BLOCK_WARPS < n) s->p[j0 + u * BLOCK_WARPS] = score;
        }
    }
}

template <int SPANS> static __device__ inline void add_values(const attn_args &a, int kv_head, int n, attn_shared *s)
{
    float o[SPANS][LANE_DIMS] = {};
    for (int j0 = warp_id(); j0 < n; j0 += BLOCK_WARPS * KEYS_AT_ONCE) {
#pragma unroll
        for (int c = 0; c < SPANS; c++) {
            const int dim = c * SPAN + lane_id() * LANE_DIMS;
            key_reads r;
#pragma unroll
            for (int u = 0; u < KEYS_AT_ONCE; u++) {
                const int j = j0 + u * BLOCK_WARPS;
                const bool is_here = j < n && dim < a.layer.head_dim;
                r.of[u] = kv_read_eight(a.layer.v_type, is_here ? page_v(a.layer, s->index[j], kv_head) : NULL, dim);
            }
#pragma unroll
            for (int u = 0; u < KEYS_AT_ONCE; u++) {
                const float p = j0 + u * BLOCK_WARPS < n ? s->p[j0 + u * BLOCK_WARPS] : 0.0f;
#pragma unroll
                for (int i = 0; i < LANE_DIMS; i++)
                    o[c][i] = __fmaf_rn(p, kv_eight_value(a.layer.v_type, r.of[u], i), o[c][i]);
            }
        }
    }
#pragma unroll
    for (int c = 0; c < SPANS; c++)
#pragma unroll
        for (int i = 0; i < LANE_DIMS; i++) s->o[warp_id()][c * SPAN + lane_id() * LANE_DIMS + i] = o[c][i];
}

/* Keys first .. first + n of one split into *out. */
template <int SPANS>
static __device__ inline void attend_split(const attn_args &a, const float (&q)[SPANS][LANE_DIMS], int row, int kv_head,
                                           int first, int n, attn_shared *s, attn_state *out)
{
    find_keys(a, row, first, n, s);
    __syncthreads();
    score_keys<SPANS>(a, q, kv_head, n, s);
    __syncthreads();

    float max = -CUDART_INF_F, sum = 0;
    for (int j = (int)threadIdx.x; j < n; j += BLOCK) max = fmaxf(max, s->p[j]);
    out->max = block_max(max, s->part);
    for (int j = (int)threadIdx.x; j < n; j += BLOCK) {
        s->p[j] = expf(s->p[j] - out->max);
        sum = __fadd_rn(sum, s->p[j]);
    }
    out->sum = block_sum(sum, s->part); /* its barriers also publish p */

    add_values<SPANS>(a, kv_head, n, s);
    __syncthreads();
    for (int i = 0; i < DIMS_PER_THREAD; i++) {
        const int dim = (int)threadIdx.x + i * BLOCK;
        out->o[i] = 0;
        if (dim >= SPANS * SPAN) continue;
        for (int w = 0; w < BLOCK_WARPS; w++) out->o[i] = __fadd_rn(out->o[i], s->o[w][dim]);
    }
    __syncthreads(); /* p, index and o are free again */
}

static __device__ void fold(attn_state *all, const attn_state &split)
{
    float max = fmaxf(all->max, split.max), old = expf(all->max - max), add = expf(split.max - max);
    all->max = max;
    all->sum = __fmaf_rn(all->sum, old, __fmul_rn(split.sum, add));
    for (int i = 0; i < DIMS_PER_THREAD; i++) all->o[i] = __fmaf_rn(all->o[i], old, __fmul_rn(split.o[i], add));
}

template <int SPANS> static __global__ void __launch_bounds__(BLOCK) attn_kernel(const attn_args a)
{
    __shared__ attn_shared s;
    const int head = (int)blockIdx.x, row = (int)blockIdx.y, dim = a.layer.head_dim;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    const size_t at = ((size_t)row * a.n_heads + head) * dim;
    float q[SPANS][LANE_DIMS];
#pragma unroll
    for (int c = 0; c < SPANS; c++)
#pragma unroll
        for (int i = 0; i < LANE_DIMS; i++) {
            const int d = c * SPAN + lane_id() * LANE_DIMS + i;
            q[c][i] = d < dim ? a.q[at + d] : 0.0f;
        }

    int kv_head = head / (a.n_heads / a.layer.n_kv_heads), source = batch_row(a.map, row), pos = a.in.pos[source];
    int begin = a.window > 0 ? max(0, pos - a.window + 1) : 0;
    int end_of_sight = a.sight == SIGHT_COMMITTED ? a.in.committed[source]
                       : a.sight == SIGHT_BLOCK   ? a.in.end[source]
                                                  : pos + 1;
    attn_state all = {-CUDART_INF_F, 0, {}}, split;
    for (int first = begin; first < end_of_sight; first = (first / SPLIT + 1) * SPLIT) {
        int end = min(end_of_sight, (first / SPLIT + 1) * SPLIT);
        attend_split<SPANS>(a, q, source, kv_head, first, end - first, &s, &split);
        fold(&all, split);
    }
    for (int i = 0; i < DIMS_PER_THREAD; i++) {
        int d = (int)threadIdx.x + i * BLOCK;
        if (d < dim) a.out[at + d] = all.o[i] / all.sum;
    }
}

facet_status check_attn(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, op->kv_layer >= 0 && op->kv_layer < c->b->n_layers, "the layer has pages", err));
    const dev_pages *l = &c->b->layers[op->kv_layer];
    int64_t width = (int64_t)op->n_heads * l->head_dim;
    FACET_TRY(op_expect(c, op, op->n_heads > 0 && op->n_heads % l->n_kv_heads == 0,
                        "n_heads is a multiple of the layer's KV heads", err));
    FACET_TRY(op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err));
    int window = c->b->groups[l->group].window;
    FACET_TRY(op_expect(c, op, window == 0 || (op->window > 0 && op->window <= window),
                        "the window is no wider than the one that keeps the pages", err));
    return op_expect(c, op, width == width_of(c, op->i0) && width == width_of(c, op->o),
                     "input and output hold n_heads heads", err);
}

void launch_attn(const cuda_pass *p, const plan_op *op)
{
    rows_view q = view_of(p, op->i0), out = view_of(p, op->o);
    const dev_pages *l = &p->b->layers[op->kv_layer];
    attn_args a = {*l,       p->b->tables, p->c->in,   q.live,         q.map,    q.data,
                   out.data, op->n_heads,  op->window, op->attn_scale, op->sight};
    dim3 grid((unsigned)op->n_heads, (unsigned)q.n);
    launch_overlapped(p->b, l->head_dim > SPAN ? attn_kernel<2> : attn_kernel<1>, grid, BLOCK, 0, a);
}
