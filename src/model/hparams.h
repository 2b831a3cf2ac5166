/* hparams.h: the hyperparameters of a Gemma 4 target, from the metadata and tensor shapes of its file. */
#ifndef FACET_MODEL_HPARAMS_H
#define FACET_MODEL_HPARAMS_H

#include "file/gguf.h"

enum { MAX_LAYERS = 1024 };

typedef struct layer_hparams {
    bool is_local;
    int n_kv_heads, head_dim;
    int kv_source; /* the layer whose cache this one reads; itself when it owns one */
    uint32_t n_ff;
} layer_hparams;

typedef struct hparams {
    int n_layers;
    uint32_t n_embd, n_vocab, n_ctx_train;
    int n_heads;
    int window;
    int head_dim_local, head_dim_global;
    int n_shared_kv;         /* tail layers without K and V of their own */
    int first_shared;        /* = n_layers - n_shared_kv */
    float norm_eps, softcap; /* softcap 0 = off */
    double rope_base_local, rope_base_global;
    uint32_t n_embd_per_layer; /* 0 = no per-layer embeddings */
    int n_experts, n_experts_used;
    uint32_t n_ff_expert;
    float sampling_temp, sampling_top_p;
    int sampling_top_k;
    layer_hparams *layers; /* [n_layers], owned */
} hparams;

/* Errors name the key. FACET_ERR_UNSUPPORTED for another architecture (drafters and vision files are named as what they
 * are). */
facet_status hparams_read(const gguf_file *f, hparams *out, facet_error *err);
void hparams_free(hparams *h);

#endif
