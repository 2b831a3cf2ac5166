/* heads.cu: OP_ROPE_Q, OP_KV_WRITE, and the second right after the first in one launch. One block per head and row; K
 * and V of a KV head are two blocks. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/head.cuh"
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

static __device__ void rotate_query(const heads_args &a, int head, int row, int source, float *h,
                                    float part[BLOCK_WARPS])
{
    size_t at = ((size_t)row * a.n_q_heads + head) * a.q_dim;
    head_norm(a.q + at, a.q_norm, a.q_dim, a.eps, h, part);
    head_rotate(h, a.q_dim, a.n_rot, a.turns + (size_t)source * a.n_rot);
    for (int i = (int)threadIdx.x; i < a.q_dim; i += BLOCK) a.out[at + i] = h[i];
}

static __device__ void write_key(const heads_args &a, int head, int row, int source, float *h, float part[BLOCK_WARPS])
{
    const int dim = a.layer.head_dim;
    const int64_t index = page_index(a.tables, a.in.seq[source], a.layer.group, a.in.slot[source]);
    head_norm(a.k + ((size_t)row * a.n_kv_heads + head) * dim, a.k_norm, dim, a.eps, h, part);
    head_rotate(h, dim, a.n_rot, a.turns + (size_t)source * a.n_rot);
    kv_store(a.layer.k_type, page_k(a.layer, index, head), h, dim);
}

static __device__ void write_value(const heads_args &a, int head, int row, int source, float *h,
                                   float part[BLOCK_WARPS])
{
    const int dim = a.layer.head_dim;
    const int64_t index = page_index(a.tables, a.in.seq[source], a.layer.group, a.in.slot[source]);
    const float *v = a.v + ((size_t)row * a.n_kv_heads + head) * dim;
    if (a.has_v_norm) {
        head_norm(v, NULL, dim, a.eps, h, part);
    } else {
        for (int i = (int)threadIdx.x; i < dim; i += BLOCK) h[i] = v[i];
        __syncthreads();
    }
    kv_store(a.layer.v_type, page_v(a.layer, index, head), h, dim);
}

/* Grid: query heads, then KV heads for K, then for V; rows. */
static __global__ void heads_kernel(const heads_args a)
{
    __shared__ float part[BLOCK_WARPS], h[CUDA_MAX_HEAD_DIM];
    const int head = (int)blockIdx.x, row = (int)blockIdx.y;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    const int source = batch_row(a.map, row);
    if (head < a.n_q_heads)
        rotate_query(a, head, row, source, h, part);
    else if (head < a.n_q_heads + a.n_kv_heads)
        write_key(a, head - a.n_q_heads, row, source, h, part);
    else
        write_value(a, head - a.n_q_heads - a.n_kv_heads, row, source, h, part);
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
    dim3 grid((unsigned)(a.n_q_heads + 2 * a.n_kv_heads), (unsigned)n_rows);
    launch_overlapped(p->b, heads_kernel, grid, BLOCK, 0, a);
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
