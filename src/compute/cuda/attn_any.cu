/* attn_any.cu: attention for caches of f32 and for head sizes that attn_tile.cuh does not know: plain f32 arithmetic,
 * one block per query head and row (Dao et al. 2022, arXiv:2205.14135 section 3: online softmax).
 *
 * Keys are visited in logical order. They are cut into groups at fixed positions (group_begin), groups into splits of
 * SPLIT positions; a split gives (max, sum, o), splits are folded in order into a group's, and groups into the row's.
 * Inside a split warp w takes the keys w, w + 8, .. of the row's own. Blocks share the groups of a query head and row;
 * the one that comes last folds them. So a row's bits depend on its own keys alone, and a tree row, whose path leads to
 * the slots of its own ancestors, gets the bits of the plain step. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/pages.cuh"
#include "compute/cuda/product.cuh"

enum {
    SPLIT = 256,
    MAX_BLOCKS = 16, /* per query head and row */
    DIMS_PER_THREAD = CUDA_MAX_HEAD_DIM / BLOCK,
    LANE_DIMS = 8,           /* a lane reads 8 neighbouring dims at a time */
    SPAN = WARP * LANE_DIMS, /* dims that a warp covers with one read */
    KEYS_AT_ONCE = 4,        /* reads under way in a warp */
    PART_HEAD = 4,           /* floats before o in a group's part: max, sum, and two for alignment */
};

typedef struct any_args {
    dev_pages layer;
    dev_tables tables;
    dev_batch in;
    const int32_t *live, *map;
    const float *q; /* [row, n_heads, head_dim] */
    float *out;
    int n_heads, window;
    float scale;
    attn_sight sight;
    int first_row, max_groups;
    float *parts;  /* [row of this launch, head, group of the row, PART_HEAD + head_dim] */
    int *arrivals; /* [row of this launch, head], zero between launches */
} any_args;

/* Where group g begins. With a window a row sees few groups, of SPLIT positions each. Without one they grow with the
 * position, 52 up to 262144, so that a long context has neither many parts to fold nor too few to share out. */
static __host__ __device__ inline int group_begin(bool has_window, int g)
{
    if (has_window || g < 16) return g * 256;
    if (g < 28) return 4096 + (g - 16) * 1024;
    return g < 40 ? 16384 + (g - 28) * 4096 : 65536 + (g - 40) * 16384;
}

static __host__ __device__ inline int group_of(bool has_window, int pos)
{
    if (has_window || pos < 4096) return pos / 256;
    if (pos < 16384) return 16 + (pos - 4096) / 1024;
    return pos < 65536 ? 28 + (pos - 16384) / 4096 : 40 + (pos - 65536) / 16384;
}

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

/* The keys that a row sees: positions begin .. end - 1. */
typedef struct any_range {
    int begin, end, first_group, n_groups;
    int seq, base; /* of the row: its sequence, and where its draft tree begins */
} any_range;

static __device__ inline any_range range_of(const any_args &a, int source)
{
    const int pos = a.in.pos[source];
    any_range r;
    r.seq = a.in.seq[source];
    r.base = a.in.base[source];
    r.begin = a.window > 0 ? max(0, pos - a.window + 1) : 0;
    r.end = a.sight == SIGHT_COMMITTED ? a.in.committed[source] : a.sight == SIGHT_BLOCK ? a.in.end[source] : pos + 1;
    r.first_group = group_of(a.window > 0, r.begin);
    r.n_groups = r.end > r.begin ? group_of(a.window > 0, r.end - 1) - r.first_group + 1 : 0;
    r.n_groups = min(r.n_groups, a.max_groups); /* a sequence longer than the cache has no such pages */
    return r;
}

static __device__ void find_keys(const any_args &a, const any_range &r, int row, int first, int n, attn_shared *s)
{
    const int base = r.base, seq = r.seq;
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
static __device__ inline void score_keys(const any_args &a, const float (&q)[SPANS][LANE_DIMS], int kv_head, int n,
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
                r.of[u] = kv_read_eight(a.layer.k_type, is_here ? page_k(a.layer, s->index[j], kv_head) : NULL,
                                        a.layer.head_dim, dim);
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

template <int SPANS> static __device__ inline void add_values(const any_args &a, int kv_head, int n, attn_shared *s)
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
                r.of[u] = kv_read_eight(a.layer.v_type, is_here ? page_v(a.layer, s->index[j], kv_head) : NULL,
                                        a.layer.head_dim, dim);
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
static __device__ inline void attend_split(const any_args &a, const float (&q)[SPANS][LANE_DIMS], const any_range &r,
                                           int row, int kv_head, int first, int n, attn_shared *s, attn_state *out)
{
    find_keys(a, r, row, first, n, s);
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

/* One group, its splits folded in order. */
template <int SPANS>
static __device__ inline void attend_group(const any_args &a, const float (&q)[SPANS][LANE_DIMS], const any_range &r,
                                           int source, int kv_head, int group, attn_shared *s, attn_state *all)
{
    const int begin = max(r.begin, group_begin(a.window > 0, group));
    const int end = min(r.end, group_begin(a.window > 0, group + 1));
    attn_state split;
    *all = {-CUDART_INF_F, 0, {}};
    for (int first = begin; first < end; first = (first / SPLIT + 1) * SPLIT) {
        attend_split<SPANS>(a, q, r, source, kv_head, first, min(end, (first / SPLIT + 1) * SPLIT) - first, s, &split);
        fold(all, split);
    }
}

static __device__ inline void put_part(const any_args &a, float *part, const attn_state &state)
{
    if (threadIdx.x == 0) part[0] = state.max, part[1] = state.sum;
    for (int i = 0; i < DIMS_PER_THREAD; i++) {
        const int d = (int)threadIdx.x + i * BLOCK;
        if (d < a.layer.head_dim) part[PART_HEAD + d] = state.o[i];
    }
}

/* All parts of a row, in order. */
static __device__ inline void fold_parts(const any_args &a, const float *parts, int n, attn_state *all)
{
    *all = {-CUDART_INF_F, 0, {}};
#pragma unroll 4
    for (int g = 0; g < n; g++) {
        const float *part = parts + (size_t)g * (PART_HEAD + a.layer.head_dim);
        attn_state state = {__ldcg(part), __ldcg(part + 1), {}};
        for (int i = 0; i < DIMS_PER_THREAD; i++) {
            const int d = (int)threadIdx.x + i * BLOCK;
            if (d < a.layer.head_dim) state.o[i] = __ldcg(part + PART_HEAD + d);
        }
        fold(all, state);
    }
}

/* True on all threads of the block that comes last of n. */
static __device__ inline bool is_last_block(int *arrivals, int n)
{
    __shared__ int is_last;
    fence();
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicAdd(arrivals, 1) == n - 1;
    __syncthreads();
    fence();
    return is_last;
}

/* Grid: query heads, rows, blocks that share the groups. */
template <int SPANS> static __global__ void __launch_bounds__(BLOCK) attn_kernel(const any_args a)
{
    __shared__ attn_shared s;
    const int head = (int)blockIdx.x, row = a.first_row + (int)blockIdx.y, dim = a.layer.head_dim;
    release_dependents();
    wait_for_predecessors();
    const int alive = a.live[row], source = max(batch_row(a.map, row), 0);
    const size_t at = ((size_t)row * a.n_heads + head) * dim;
    const any_range r = range_of(a, source);
    float q[SPANS][LANE_DIMS];
#pragma unroll
    for (int c = 0; c < SPANS; c++)
#pragma unroll
        for (int i = 0; i < LANE_DIMS; i++) {
            const int d = c * SPAN + lane_id() * LANE_DIMS + i;
            q[c][i] = d < dim ? a.q[at + d] : 0.0f;
        }
    if (alive < 0 || (int)blockIdx.z >= max(r.n_groups, 1)) return;

    const int kv_head = head / (a.n_heads / a.layer.n_kv_heads), index = (int)blockIdx.y * a.n_heads + head;
    float *parts = a.parts + (size_t)index * a.max_groups * (PART_HEAD + dim);
    attn_state all = {-CUDART_INF_F, 0, {}};
    for (int g = (int)blockIdx.z; g < r.n_groups; g += (int)gridDim.z) {
        attend_group<SPANS>(a, q, r, source, kv_head, r.first_group + g, &s, &all);
        if (r.n_groups > 1) put_part(a, parts + (size_t)g * (PART_HEAD + dim), all);
    }
    if (r.n_groups > 1) {
        if (!is_last_block(&a.arrivals[index], min(r.n_groups, (int)gridDim.z))) return;
        fold_parts(a, parts, r.n_groups, &all);
        if (threadIdx.x == 0) a.arrivals[index] = 0;
    }
    for (int i = 0; i < DIMS_PER_THREAD; i++) {
        int d = (int)threadIdx.x + i * BLOCK;
        if (d < dim) a.out[at + d] = r.n_groups > 0 ? all.o[i] / all.sum : 0; /* a row may see nothing */
    }
}

/* Groups that a row sees at most. */
static int max_groups(const cuda_pass *p, const plan_op *op, int group)
{
    const int n_pos = p->b->groups[group].n_pages * KV_PAGE_LEN;
    if (op->window <= 0) return group_of(false, n_pos > 0 ? n_pos - 1 : 0) + 1;
    return (op->window + (op->sight == SIGHT_BLOCK ? p->c->max_rows : 0)) / SPLIT + 2;
}

void attn_any_launch(const cuda_pass *p, const plan_op *op)
{
    rows_view q = view_of(p, op->i0), out = view_of(p, op->o);
    const dev_pages *l = &p->b->layers[op->kv_layer];
    any_args a = {*l,
                  p->b->tables,
                  p->c->in,
                  q.live,
                  q.map,
                  q.data,
                  out.data,
                  op->n_heads,
                  op->window,
                  op->attn_scale,
                  op->sight,
                  0,
                  max_groups(p, op, l->group),
                  (float *)p->b->product_sums,
                  p->b->product_arrivals};
    const size_t row_bytes = (size_t)op->n_heads * a.max_groups * (PART_HEAD + l->head_dim) * sizeof(float);
    size_t rows = PRODUCT_SUMS_BYTES / row_bytes, most = PRODUCT_MAX_ARRIVALS / op->n_heads;
    if (rows > most) rows = most;
    const int step = rows < 1 ? 1 : rows < (size_t)q.n ? (int)rows : q.n;
    const int blocks = a.max_groups < MAX_BLOCKS ? a.max_groups : (int)MAX_BLOCKS;
    for (a.first_row = 0; a.first_row < q.n; a.first_row += step) {
        const int n = q.n - a.first_row < step ? q.n - a.first_row : step;
        dim3 grid((unsigned)op->n_heads, (unsigned)n, (unsigned)blocks);
        launch_overlapped(p->b, l->head_dim > SPAN ? attn_kernel<2> : attn_kernel<1>, grid, BLOCK, 0, a);
    }
}
