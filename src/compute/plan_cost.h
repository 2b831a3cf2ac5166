/* plan_cost.h: what an op must at least move and compute: the figures that measured times are compared with. */
#ifndef FACET_COMPUTE_PLAN_COST_H
#define FACET_COMPUTE_PLAN_COST_H

#include "compute/kv.h"
#include "compute/plan.h"

typedef struct op_cost {
    double bytes; /* weights and cached keys and values, each read once; activations are left out */
    double ops;   /* multiplications and additions of products and attention */
} op_cost;

/* One op over n_rows rows of one sequence (n_out of them wanted) that has `depth` tokens before them. Of n experts the
 * expected number of distinct ones is counted that n_rows independent rows choose. */
op_cost plan_op_cost(const plan *p, const weight *weights, const kv_desc *kv, const plan_op *op, int n_rows, int n_out,
                     int32_t depth);
/* The same of all ops together. */
op_cost plan_cost(const plan *p, const weight *weights, const kv_desc *kv, int n_rows, int n_out, int32_t depth);

#endif
