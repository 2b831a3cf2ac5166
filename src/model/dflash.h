/* dflash.h: the DFlash drafter: one pass over a block [pending token, MASK, MASK, ...] proposes a token for every row
 * but the first. Its context is a cache of its own, made from residual streams of the target ("features"). */
#ifndef FACET_MODEL_DFLASH_H
#define FACET_MODEL_DFLASH_H

#include "model/drafter.h"

/* Who sees whom inside a block. AUTO: what the file says for all layers; else local layers causal, global ones not. */
typedef enum block_mask {
    BLOCK_MASK_AUTO,
    BLOCK_MASK_ALL_BIDIR,
    BLOCK_MASK_SWA_CAUSAL,
    BLOCK_MASK_ALL_CAUSAL
} block_mask;
bool block_mask_by_name(const char *name, block_mask *out); /* "auto", "all_bidir", "swa_causal", "all_causal" */

typedef struct dflash_options {
    block_mask mask;
    int top_k;  /* 1 .. PLAN_MAX_TOPK */
    float temp; /* of the log-probabilities; at least 1e-3 */
    bool wants_logits;
} dflash_options;

/* Committed rows enter the context: K and V of every drafter layer at slot = pos. Input v_in_hidden
 * [n_taps * n_embd], all rows: the target's captures side by side, v_capture[i] at column i * n_embd (copy_rows). */
facet_status dflash_inject_plan(const drafter *d, const facet_model *target, plan **out, facet_error *err);

/* The block. Batch: tokens [pending, mask_token, ...], pos = slot = C, C + 1, ..., at most block_size rows; seqs[].base
 * = C, seqs[].end = C + rows; wanted rows 1 .. (the first row's logits mean nothing). The rows' K and V go to slots C
 * .., which later injections overwrite: they are context for nobody else. Outputs, wanted rows: v_top_ids, v_top_logp
 * [top_k] of softcapped logits / temp, v_logits [n_vocab]. The drafter's first_weight and first_kv_layer must be set.
 */
facet_status dflash_block_plan(const drafter *d, const facet_model *target, const dflash_options *o, plan **out,
                               facet_error *err);

/* drafter.c: from an open file. */
facet_status dflash_read(drafter *d, const facet_model *target, facet_error *err);
bool dflash_is_architecture(gguf_str arch);

#endif
