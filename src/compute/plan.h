/* plan.h: a forward pass, recorded once as a list of coarse operations. Backends run it over a batch.
 *
 * Values are rows of activations: [rows, width], rows being all rows of the batch (ROWS_ALL) or the wanted ones
 * (ROWS_OUT). Nothing in a plan depends on how many there are. Weights are named by their index in the model's weight
 * list. */
#ifndef FACET_COMPUTE_PLAN_H
#define FACET_COMPUTE_PLAN_H

#include "base/error.h"
#include "base/file_map.h"
#include "compute/sparse.h"
#include "quant/type.h"

typedef enum row_set { ROWS_ALL, ROWS_OUT } row_set;
typedef enum value_type { VALUE_F32, VALUE_I32 } value_type;

typedef struct plan_value {
    char name[32];
    value_type type;
    row_set rows;
    uint32_t width;
    bool is_output;        /* keeps its own memory, so that the host can read it after run() */
    bool is_input;         /* likewise; filled from outside before run() (backend.h: write, copy_rows) */
    int first_op, last_op; /* filled by plan_finish */
} plan_value;

/* Formulas: docs/architecture.md; eq. numbers are those of the model description there. i0, i1 = inputs, w0.. =
 * weights, o = output. */
typedef enum op_kind {
    OP_EMBED,     /* o = scale * row t of w0 [width, n_vocab]; t = the batch's token, or i0 [1, int32], an input. Zeros
                     when t lies outside the table (a chain goes on after a token that is -1) */
    OP_NORM,      /* o = rms(i0; w0 or 1), over groups of `group` columns (0 = the whole row) */
    OP_NORM_ADD,  /* o = (i1 + rms(i0; w0)) * scale */
    OP_ADD,       /* o = (i0 + i1) * scale */
    OP_LINEAR,    /* o = epilogue(scale * w0 i0) */
    OP_GATED,     /* o = act(scale * w0 i0) * (scale2 * w1 i0) */
    OP_ROPE_Q,    /* o = rope(rms per head (i0; w0)) */
    OP_KV_WRITE,  /* cache of kv_layer at the row's slot: K = rope(rms per head (i0; w0)), V = rms per head (i1)
                     (has_v_norm) */
    OP_ATTN,      /* o = softmax(attn_scale * i0 K^T) V over the visible keys of kv_layer; w0 and the rotation say how K
                     is made of V where the cache holds V alone: K = rope(w0 * V). Otherwise they are not read */
    OP_MOE_ROUTE, /* o = n_used expert ids (int32 bits), then n_used weights: top n_used of softmax(w0 (rms(i0) * w1 *
                     scale)), renormalised, times w2[id] */
    OP_MOE_GATED, /* o [n_used * n_ff] = act(G_e i0) * (U_e i0) for the experts of i1; w0 = G and U per expert in one
                     tensor (gate rows first) or w0 = G, w1 = U; w2 = optional scale per expert of the products */
    OP_MOE_DOWN,  /* o = sum over used experts, in routing order, of weight_e * (D_e h_e); i0 = h [n_used * n_ff], i1 =
                     routing, w0 = D */
    OP_GATHER,    /* o [ROWS_OUT] = wanted rows of i0 [ROWS_ALL] */
    OP_CAPTURE,   /* o (an output) = i0, for drafters */
    OP_ARGMAX,    /* o [1, int32] = index of the largest logit of i0, the lowest on ties; -1 when a logit is not finite
                     (-inf is allowed) */
    OP_CONCAT,    /* o = columns of i0, then columns of i1 */
    OP_TOPK, /* o [n_used, int32] = ids of the n_used (1 to PLAN_MAX_TOPK) largest values of i0, falling, the lowest
                id first on ties; o2 [n_used] = their log_softmax(i0 / temp). Entries past the finite values, and
                all of them when a value is NaN or +inf: id -1, log-probability -inf */
    OP_CENTROIDS, /* o [n_vocab] = scale * w0 i0 at n_used * group ids, -inf elsewhere: the ids order[c * group ..+
                     group] of the n_used largest of the n_experts centroid scores i1, the lowest index first on ties;
                     then -inf at plan->suppress */
    OP_KIND_COUNT
} op_kind;

typedef enum op_epilogue {
    EPI_NONE,
    EPI_GELU_MUL, /* gelu(y) * i1[:, column + j] */
    EPI_LOGITS    /* softcap * tanh(y / softcap) when softcap > 0; then -inf at plan->suppress */
} op_epilogue;
typedef enum op_activation { ACT_GELU, ACT_SILU } op_activation;

/* Which keys a query at position q sees; with a window W > 0 only those with q - p < W. */
typedef enum attn_sight {
    SIGHT_CAUSAL,    /* p <= q */
    SIGHT_COMMITTED, /* p < base of its sequence, whatever q is: the donor layers of an MTP assistant */
    SIGHT_BLOCK      /* p < end of its sequence: every row of a DFlash block sees every other */
} attn_sight;

enum { PLAN_MAX_TOPK = 16 };

typedef struct plan_op {
    op_kind kind;
    int layer;     /* for printing; -1 outside the layers */
    int i0, i1, o; /* values, -1 = none */
    int o2;
    int w0, w1, w2; /* weights, -1 = none */
    float eps, scale, scale2, softcap, attn_scale, temp;
    op_epilogue epilogue;
    op_activation activation;
    uint32_t group, column;
    int n_heads, n_kv_heads, head_dim, kv_layer, window;
    bool has_v_norm;
    attn_sight sight;
    const sparse_config *sparse; /* of OP_ATTN that sees all positions before (no window, SIGHT_CAUSAL): the plan's;
                                    NULL reads all */
    /* Rotation: pair i < n_rot of (i, i + head_dim / 2) turns by pos * inv_freq[i]; the other pairs pass through. */
    int n_rot;
    const double *inv_freq; /* owned by the plan */
    int n_experts, n_used, n_ff;
    const int32_t *order; /* [n_experts * group], owned by the plan */
} plan_op;

/* A weight matrix as the file holds it: rows of ne[0] inputs, ne[1] outputs, ne[2] experts. */
enum { WEIGHT_MAX_PARTS = 4 };

typedef struct weight {
    char name[64];
    tensor_type type;
    uint64_t ne[3];
    const void *data; /* in the mapping */
    size_t bytes;
    const file_map *map; /* for letting pages go; NULL when data is owned memory */
    bool is_rows;        /* gathered by row (embeddings): stays on the mapping, is never repacked for that use */
    bool is_matrix;      /* multiplied (may hold together with is_rows: a tied head) */
    bool is_picked;      /* single rows are multiplied (OP_CENTROIDS): on the device, never repacked for that use */
    int part;            /* of WEIGHT_MAX_PARTS; a part stands together, and is unloaded and loaded again on its own */
} weight;

typedef struct plan {
    char name[32];
    int n_values, cap_values;
    plan_value *values;
    int n_ops, cap_ops;
    plan_op *ops;
    int n_freqs;
    double **freqs;
    int32_t *order; /* of OP_CENTROIDS */
    int32_t *suppress;
    int n_suppress;
    sparse_config sparse;
    /* Values that the engine asks for; -1 when the plan lacks them. */
    int v_logits, v_argmax, v_hidden; /* v_hidden: post-norm hidden of the wanted rows */
    int v_capture[16], n_captures;
    /* Drafters (model/mtp.h, model/dflash.h). */
    int v_in_token, v_in_hidden; /* inputs: token [1, int32]; hidden or features */
    int v_top_ids, v_top_logp;   /* of OP_TOPK; column 0 of the ids is the argmax */
    int v_kept_ids, v_kept_logp; /* inputs and outputs that no op touches: results of the steps of a chain are copied
                                    here, row by row, and read at its end */
    bool failed;                 /* an append ran out of memory */
} plan;

/* Building. plan_value_new and plan_add never fail visibly; plan_finish reports a failure and fills the lifetimes. */
facet_status plan_new(const char *name, plan **out, facet_error *err);
void plan_free(plan *p);
int plan_value_new(plan *p, row_set rows, value_type type, uint32_t width, bool is_output, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* A value that is filled from outside; is_output when it can be read back too. */
int plan_input_new(plan *p, row_set rows, value_type type, uint32_t width, bool is_output, const char *name);
/* Returns the op for the caller to fill; every index field is preset to -1, scale and scale2 to 1. Valid until the next
 * call. */
plan_op *plan_add(plan *p, op_kind kind, int layer);
/* Keeps a frequency table with the plan. */
const double *plan_keep_freqs(plan *p, const double *inv_freq, int n);
/* Copies the ids whose logits are -inf. */
void plan_keep_suppress(plan *p, const int32_t *ids, int n);
/* Keeps the vocabulary order of OP_CENTROIDS with the plan; NULL when memory is short. */
const int32_t *plan_keep_order(plan *p, const int32_t *ids, size_t n);
facet_status plan_finish(plan *p, facet_error *err);

/* Memory of all values for at most max_rows rows and max_out wanted rows: offsets[v] in bytes (64-byte aligned), values
 * whose lifetimes do not meet share memory. */
facet_status plan_layout(const plan *p, int max_rows, int max_out, size_t *offsets, size_t *total, facet_error *err);

const char *op_kind_name(op_kind k);

#endif
