/* gemma4.h: the forward pass of a Gemma 4 target as a plan. Equation numbers: docs/architecture.md, "The model". */
#ifndef FACET_MODEL_GEMMA4_H
#define FACET_MODEL_GEMMA4_H

#include "compute/kv.h"
#include "compute/sparse.h"
#include "model/graph.h"

enum { MAX_CAPTURES = 16 };

typedef struct gemma4_options {
    bool wants_hidden; /* the post-norm hidden of every wanted row becomes an output (plan->v_hidden) */
    int n_captures;    /* residual streams after these layers become outputs, for every row (plan->v_capture) */
    int capture_layer[MAX_CAPTURES];
    sparse_config sparse; /* of global layers; zeroes: they read all keys */
    bool keep_layers; /* tests: every layer's output is an output; v_layer of debug plans is values named "x.<layer>" */
} gemma4_options;

/* Rows whose logits are not wanted stop before the first layer without a cache of its own (nothing after it writes
 * one), unless a capture needs them. suppress [n_suppress]: ids whose logits are -inf. */
facet_status gemma4_plan(const hparams *h, const weights *w, const gemma4_options *o, const int32_t *suppress,
                         int n_suppress, plan **out, facet_error *err);

/* The cache that this model needs: one group for global and one for local layers; layer_to_kv [n_layers] maps a layer
 * to the kv layer it reads. layers of *out is allocated (mem_free). Page counts are left 0. */
facet_status gemma4_kv_desc(const hparams *h, kv_type k, kv_type v, kv_desc *out, facet_error *err);
int gemma4_kv_layer(const hparams *h, int layer);
/* Global layers whose V is their K projection: how many there are; they keep V alone. */
int gemma4_n_rebuilds(const hparams *h, const weights *w);
void gemma4_rebuild_keys(const hparams *h, const weights *w, kv_desc *d);
/* How the keys of global layers turn. */
rotation gemma4_global_rotation(const graph *g, const hparams *h, const weights *w);

#endif
