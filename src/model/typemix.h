/* typemix.h: which type each tensor gets when a model is converted to a mix such as Q4_K_M.
 *
 * The rule follows the mixes that public files carry:
 *   F32          vectors, norms, router weights, everything whose name does not end in ".weight"
 *   BF16         per_layer_model_proj, in every mix but F16
 *   embeddings   (token_embd, output, per_layer_token_embd) Q6_K in the 4- to 6-bit mixes, else the body's type
 *   attn_v, ffn_down, ffn_down_exps
 *                one step more (Q6_K) in the "more-bits" layers of Q4_K_M and Q5_K_M: the first and the last eighth
 *                and every third between
 *   the rest     the body's type; drafters' projections (nextn.*, fc) are ordinary matrices
 * A row length that is no multiple of the block falls back: Q4_K -> Q5_0, Q5_K -> Q5_1, Q6_K -> Q8_0, and to F16 where
 * 32 does not divide it either.
 *
 * Known difference: files whose source was F16 keep per_layer_model_proj as F16; ours have BF16 (same bytes, and the
 * released checkpoints are BF16). Integer tensors are no business of a mix: the caller copies them. */
#ifndef FACET_MODEL_TYPEMIX_H
#define FACET_MODEL_TYPEMIX_H

#include "quant/type.h"

typedef enum typemix {
    TYPEMIX_F16,
    TYPEMIX_BF16,
    TYPEMIX_Q4_0,
    TYPEMIX_Q8_0,
    TYPEMIX_Q4_K_M,
    TYPEMIX_Q5_K_M,
    TYPEMIX_Q6_K,
    TYPEMIX_COUNT
} typemix;

/* By name as users write it, case-insensitive; false (out untouched) when unknown. */
bool typemix_by_name(const char *name, enum typemix *out);
const char *typemix_name(typemix mix);
/* The number that general.file_type holds for it. */
uint32_t typemix_file_type(typemix mix);

/* Layers without attn_v (V = K) do not count when "more-bits" layers are chosen for attn_v. */
typedef struct typemix_counts {
    int n_attn_v;     /* tensors attn_v in the model */
    int attn_v_index; /* of those, how many stand in earlier layers */
} typemix_counts;

/* ne[0] is the row length. layer: -1 for tensors outside the blocks; n_layers: of the model. counts: read for attn_v
 * only, else may be NULL. */
tensor_type typemix_choose(typemix mix, const char *tensor_name, int n_dims, const uint64_t ne[4], int layer,
                           int n_layers, const struct typemix_counts *counts);

#endif
