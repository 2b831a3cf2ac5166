/* moe_ops.cuh: what the ops of experts use of moe_product.cu. */
#ifndef FACET_COMPUTE_CUDA_MOE_OPS_CUH
#define FACET_COMPUTE_CUDA_MOE_OPS_CUH

#include "compute/cuda/moe_product.cuh"

/* Whether experts of this tensor (or its dense counterpart) have tile records that these kernels multiply. */
bool moe_product_fits(const dev_weight *w);
/* The matrices of a kind; up NULL: not gated; up = w: its rows lie behind the gate's in one tensor. */
moe_part moe_part_of(const dev_weight *w, const dev_weight *up, int n_out);
/* Chooses the schedule. The caller has filled parts, is_gated, activation, n_rows, n_used, live and route. */
void moe_launch(const cuda_pass *p, moe_args *a);

/* moe_leave.cu: out = the pairs' sums of OP_MOE_DOWN, weighted; and what stands behind them in a block. */
void moe_add_launch(const cuda_pass *p, const rows_view *route, const rows_view *out, int n_used);
void moe_leave_launch(const cuda_pass *p, const moe_block *block);

/* Rows up to which the dense branch goes along with the experts. */
enum { MOE_DENSE_ROWS = 8 };

/* The expert layer of an op, NULL when its ops are launched one by one. */
static inline const moe_block *moe_block_of(const cuda_pass *p, const plan_op *op)
{
    const int i = p->c->moe_block_of[op - p->c->p->ops];
    return i < 0 ? NULL : &p->c->moe_blocks[i];
}

#endif
