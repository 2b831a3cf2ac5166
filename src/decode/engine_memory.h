/* engine_memory.h: what an engine will take, known before anything is loaded, and what context fits beside it. */
#ifndef FACET_DECODE_ENGINE_MEMORY_H
#define FACET_DECODE_ENGINE_MEMORY_H

#include "decode/engine.h"

/* Bytes of the weights that the backend copies (the CPU's: none from a mapped file), of the cache of all sessions, and
 * of activations and scratch, as facet_engine_memory reports them afterwards; on a CUDA device also what the driver
 * takes for graphs. */
typedef struct engine_needs {
    uint64_t weights, kv, compute;
    uint64_t kv_per_token; /* what each further token of a context takes, in global layers */
} engine_needs;

/* Of an engine with these parameters on a CPU backend, but for a context of n_ctx tokens, which may lie beyond the
 * model's limit. Errors: what facet_engine_open finds wrong with the parameters. */
facet_status engine_estimate(facet_model *m, const facet_engine_params *p, int32_t n_ctx, engine_needs *out,
                             facet_error *err);

/* ---- for facet_engine_open ---- */

/* What decides about memory. */
typedef struct engine_config {
    int n_sessions, n_threads, draft_ctx;
    uint64_t cache_bytes;
    kv_type k, v;
    const char *cache_layers; /* borrowed from the parameters */
    sparse_config sparse;
    bool rebuild_keys;
    bool copies_weights; /* of the CPU backend: into its own layout */
    bool is_cuda;        /* the device's layouts are counted; not set at first */
} engine_config;
facet_status engine_config_read(const facet_engine_params *p, engine_config *out, facet_error *err);

/* All that needs no backend: parameters are checked, drafters taken, the cache laid out, weights listed, plans made.
 * facet_engine_close also after a failure. */
facet_status engine_prepare(facet_engine *e, const facet_engine_params *p, engine_config *c, facet_error *err);

/* The cache of the target and its drafters, but for the number of pages. Comes before the drafters' plans, which name
 * its layers. */
facet_status engine_layout_cache(facet_engine *e, const engine_config *c, facet_error *err);
/* Pages for all sessions with contexts of n_ctx tokens, and for cache_bytes of cached prompts. */
void engine_count_pages(const engine_config *c, int32_t n_ctx, kv_desc *d);

/* The context that was asked for; where none was, the model's limit, halved until the cache takes at most half of what
 * the rest leaves (but not below 1024). Either must fit into what the backend has available (0 = unknown), else
 * FACET_ERR_MEMORY with the figures. The engine is prepared (engine_prepare). */
facet_status engine_choose_context(const facet_engine *e, const engine_config *c, uint64_t available, int32_t wanted,
                                   int32_t *n_ctx, facet_error *err);

#endif
