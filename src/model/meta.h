/* meta.h: the metadata of a GGUF file of the Gemma 4 family (target, MTP assistant, DFlash drafter), written from one
 * record, in the order in which public files have it. For the files that Facet makes: conversion and random weights. */
#ifndef FACET_MODEL_META_H
#define FACET_MODEL_META_H

#include "file/gguf_write.h"

#define META_TARGET "gemma4"
#define META_MTP "gemma4-assistant"
#define META_DFLASH "dflash"

/* Arrays are borrowed. A number of 0 leaves its key out unless stated otherwise. */
typedef struct meta {
    const char *arch; /* one of the three above; also the prefix of the keys */
    const char *name; /* general.name */
    int n_layers, n_heads;
    uint32_t n_ctx, n_embd;
    const int32_t *n_ff;       /* [n_layers]; a scalar in the file where all are equal */
    const int32_t *n_kv_heads; /* [n_layers]; likewise */
    const uint8_t *is_local;   /* [n_layers], 1 = sliding window; NULL: no pattern */
    uint32_t window;
    uint32_t head_dim, head_dim_local; /* global layers; local ones */
    float rope_base, rope_base_local, norm_eps, softcap;
    int n_experts, n_experts_used;
    uint32_t n_ff_expert;
    int n_shared_kv;                   /* written, also as 0, for target and MTP */
    uint32_t n_embd_per_layer;         /* likewise */
    uint32_t n_embd_out;               /* MTP: hidden size of the target */
    int n_centroids, n_centroids_used; /* MTP with a centroid head */
    int block_size;                    /* DFlash */
    bool has_causal, is_causal;        /* DFlash: the mask inside a block, where it is said */
    const char *activation;            /* DFlash; NULL = silu */
    float embedding_scale;             /* DFlash */
    const int32_t *target_layers;
    int n_target_layers;
    int target_depth; /* DFlash: layers of the target; 0 = not known */
    uint32_t file_type;
} meta;

facet_status meta_put(gguf_writer *w, const meta *m, facet_error *err);

/* The divisors of the global layers' rotary frequencies: the first quarter turns, the rest stands still. n = head_dim
 * / 2. */
void meta_rope_divisors(float *out, uint32_t n);

#endif
