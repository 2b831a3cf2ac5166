/* weights.h: binds the tensors of a Gemma 4 file to their roles, with exact shapes. */
#ifndef FACET_MODEL_WEIGHTS_H
#define FACET_MODEL_WEIGHTS_H

#include "compute/plan.h"
#include "model/hparams.h"

/* Indices into weights.list; -1 = absent. */
typedef struct layer_weights {
    int attn_norm, q, k, v, q_norm, k_norm, attn_out, post_attn_norm; /* v = -1 where V is the raw K */
    int ffn_norm, gate, up, down, post_ffn_norm;
    int router, router_scale, expert_norm, post_dense_norm, post_expert_norm; /* MoE */
    int expert_gate, expert_up, expert_gate_scale, expert_down,
        expert_down_scale;            /* expert_up = -1: fused into expert_gate */
    int ple_gate, ple_proj, ple_norm; /* per-layer embeddings */
    float out_scale;
} layer_weights;

typedef struct weights {
    weight *list;
    float *scale; /* per weight: factor of its products (1 unless the file has NAME.scale) */
    int n, cap;
    int token_embd, output, output_norm; /* output = token_embd when tied */
    int ple_embd, ple_proj, ple_proj_norm;
    layer_weights *layers;
    const float *rope_divisors; /* [head_dim_global / 2] in the mapping, NULL = synthesise */
} weights;

/* Errors name the tensor, the shape or type met and the one wanted. Unknown tensors are ignored. */
facet_status weights_bind(const gguf_file *f, const hparams *h, weights *out, facet_error *err);
void weights_free(weights *w);

#endif
