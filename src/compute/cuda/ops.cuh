/* ops.cuh: what the op files offer to ops.cu, and what they share. */
#ifndef FACET_COMPUTE_CUDA_OPS_CUH
#define FACET_COMPUTE_CUDA_OPS_CUH

#include "compute/cuda/device.cuh"
#include "compute/cuda/state.h"

/* A value as an op sees it in this pass. */
typedef struct rows_view {
    float *data; /* [n, width] */
    uint32_t width;
    int n;               /* rows of this pass, padding included */
    const int32_t *live; /* [n] on the device: negative = padding */
    const int32_t *map;  /* [n] on the device: row of the batch behind each row; NULL: the same row */
} rows_view;

static inline rows_view view_of(const cuda_pass *p, int value)
{
    const plan_value *v = &p->c->p->values[value];
    bool all = v->rows == ROWS_ALL;
    rows_view r;
    r.data = (float *)(p->c->values + p->c->offsets[value]);
    r.width = v->width;
    r.n = all ? p->n_rows : p->n_out;
    r.live = all ? p->c->in.seq : p->c->in.out_row;
    r.map = all ? NULL : p->c->in.out_row;
    return r;
}

static inline const dev_weight *weight_of(const cuda_backend *b, int w)
{
    return w < 0 ? NULL : &b->weights[w];
}

/* The f32 vector of a weight index, NULL for -1. */
static inline const float *vector_of(const cuda_backend *b, int w)
{
    return w < 0 ? NULL : (const float *)b->weights[w].data;
}

/* FACET_ERR_SHAPE naming plan, op and the fact, unless ok. */
facet_status op_expect(const compiled *c, const plan_op *op, bool ok, const char *fact, facet_error *err);
static inline uint32_t width_of(const compiled *c, int value)
{
    return value < 0 ? 0 : c->p->values[value].width;
}
bool op_has_vector(const compiled *c, int w, uint32_t n); /* w is -1 or an f32 vector of n */
bool op_has_matrix(const compiled *c, int w, uint32_t n_in, uint32_t n_out, uint32_t n_experts); /* on the device */
bool op_is_raw(const compiled *c, int w);           /* rows lie as in the file */
bool op_same_rows(const compiled *c, int a, int b); /* row sets agree */

/* Ops that this op's launch does: itself, and those after it in the plan. */
static inline int covered_by(const cuda_pass *p, const plan_op *op)
{
    return p->c->covers[op - p->c->p->ops];
}

/* linear.cu: what happens to a product before it is stored. */
typedef struct linear_epilogue {
    op_epilogue kind;
    op_activation activation;
    const float *mul; /* EPI_GELU_MUL: y = act(y) * mul[row * mul_width + column] */
    uint32_t mul_width, column;
    float softcap; /* EPI_LOGITS */
} linear_epilogue;
void linear_launch(const cuda_pass *p, const dev_weight *w, const rows_view *x, const rows_view *out, float scale,
                   const linear_epilogue *e);

/* attn_any.cu: OP_ATTN of the layers that have no class (attn.h). */
void attn_any_launch(const cuda_pass *p, const plan_op *op);

#define CUDA_OP(name)                                                                                                  \
    facet_status check_##name(const compiled *c, const plan_op *op, facet_error *err);                                 \
    void launch_##name(const cuda_pass *p, const plan_op *op);
CUDA_OP(embed)
CUDA_OP(norm)
CUDA_OP(norm_add)
CUDA_OP(add)
CUDA_OP(linear)
CUDA_OP(gated)
CUDA_OP(rope_q)
CUDA_OP(kv_write)
CUDA_OP(attn)
CUDA_OP(moe_route)
CUDA_OP(moe_gated)
CUDA_OP(moe_down)
CUDA_OP(gather)
CUDA_OP(capture)
CUDA_OP(argmax)
CUDA_OP(concat)
CUDA_OP(topk)
CUDA_OP(centroids)
#undef CUDA_OP

#endif
