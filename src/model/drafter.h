/* drafter.h: an open draft model beside its target: file, hyperparameters, weights; checks that the two belong
 * together.
 *
 * Use: drafter_open; drafter_extend_kv on the target's cache layout; drafter_join_weights, whose list the backend
 * loads; then the plans (mtp.h, dflash.h). */
#ifndef FACET_MODEL_DRAFTER_H
#define FACET_MODEL_DRAFTER_H

#include "model/model.h"

typedef enum drafter_kind { DRAFTER_MTP, DRAFTER_DFLASH } drafter_kind;

enum { DRAFT_CTX_DEFAULT = 4096, DRAFTER_MAX_LAYERS = 64 };

typedef struct mtp_layer {
    bool is_local;
    int head_dim;
    uint32_t n_ff;
    int donor; /* target layer whose cache it reads */
} mtp_layer;

typedef struct mtp_hparams {
    int n_layers, n_heads, window;
    uint32_t n_embd; /* own width; that between the models is the target's */
    float norm_eps;
    double rope_base_local, rope_base_global;
    int head_dim_local, head_dim_global;
    const float *rope_divisors; /* [head_dim_global / 2] in the mapping; NULL = the first quarter of them turns */
    int n_centroids, n_centroids_used;              /* 0 = dense head */
    int pre_projection, post_projection, centroids; /* in drafter.w.list */
    int32_t *order;                                 /* [n_vocab], owned; NULL with a dense head */
    mtp_layer layer[DRAFTER_MAX_LAYERS];
} mtp_hparams;

/* What a file says about the mask inside a block (dflash.h, block_mask). */
typedef enum dflash_causal { DFLASH_CAUSAL_UNSAID, DFLASH_CAUSAL_NO, DFLASH_CAUSAL_YES } dflash_causal;

typedef struct dflash_layer {
    bool is_local;
    int n_kv_heads;
    uint32_t n_ff;
} dflash_layer;

typedef struct dflash_hparams {
    int n_layers, n_heads, head_dim, window; /* window 0: no local layers */
    uint32_t n_embd;
    float norm_eps, softcap, embd_scale, attn_scale;
    double rope_base;
    bool is_gelu; /* else SiLU */
    dflash_causal causal;
    int block_size; /* rows of a block at most, the pending token included */
    int32_t mask_token;
    int n_taps; /* target layers whose output is read, ascending, counted from 0 (gemma4_options.capture_layer) */
    int tap[MAX_CAPTURES];
    int fc, hidden_norm; /* in drafter.w.list; w.token_embd and w.output are -1 unless the file brings its own */
    dflash_layer layer[DRAFTER_MAX_LAYERS];
} dflash_hparams;

typedef struct facet_drafter drafter;
struct facet_drafter {
    drafter_kind kind;
    char *path;
    gguf_file *file;
    void *image; /* a safetensors folder as a GGUF file in memory, image_bytes; NULL for files */
    size_t image_bytes;
    weights w; /* indices count from 0 in w.list; in the joined list from first_weight */
    int first_weight;
    int first_kv_layer; /* DFlash: of its layers in the cache layout */
    int draft_ctx;      /* DFlash: positions of context that its cache keeps */
    union {
        mtp_hparams mtp;
        dflash_hparams dflash;
    };
};

/* path: a GGUF file, or a folder with config.json and safetensors. Nothing large is read from a GGUF file; the matrices
 * of a folder are copied. One line names the file and the field that does not fit the target: hidden size, vocabulary,
 * layers, donors, shapes, missing and unknown tensors. FACET_ERR_UNSUPPORTED for other architectures and for successors
 * of DFlash. */
facet_status drafter_open(const char *path, const facet_model *target, drafter **out, facet_error *err);
void drafter_close(drafter *d);                /* after the backend that took its weights */
const char *drafter_kind_name(drafter_kind k); /* "mtp", "dflash" */

/* Fits the target's cache layout (gemma4_kv_desc) to a drafter. MTP: the donors' types become at least q8_0. DFlash:
 * its layers are appended with types k and v, in group KV_GROUP_DRAFT, whose window is draft_ctx (1 .. 2^24). Before
 * the drafter's plans are made, which name these layers and that window. */
facet_status drafter_extend_kv(drafter *d, const hparams *h, kv_type k, kv_type v, int draft_ctx, kv_desc *desc,
                               facet_error *err);

/* The weights of the target, then those of the drafters (n >= 0), whose first_weight is set: what backend load() takes.
 * The target is part 0, drafters[i] part i + 1.
 * *out is allocated (mem_free) and outlives the backend. */
facet_status drafter_join_weights(const facet_model *target, drafter *const *drafters, int n, weight **out,
                                  int *n_weights, facet_error *err);

#endif
