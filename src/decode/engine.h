/* engine.h: a backend with a compiled target plan and those of its drafters, the page pool, and the buffers of one
 * step. */
#ifndef FACET_DECODE_ENGINE_H
#define FACET_DECODE_ENGINE_H

#include "compute/backend.h"
#include "decode/draft_control.h"
#include "decode/draft_tree.h"
#include "model/drafter.h"

enum { ENGINE_MAX_ROWS = 512, ENGINE_MAX_OUT = 64 };

/* A plan, made ready. */
typedef struct engine_plan {
    plan *plan;
    compiled *compiled;
} engine_plan;

struct facet_engine {
    facet_model *model;
    backend *be;
    weight *weights; /* of the target, then of the drafters */
    int n_weights;
    plan *plan; /* the target's */
    compiled *compiled;
    drafter *mtp, *dflash; /* borrowed; NULL = none */
    engine_plan mtp_step, dflash_inject, dflash_block;
    int tap_value[MAX_CAPTURES]; /* the target's values that the DFlash drafter reads */
    kv_desc kv;
    kv_pool *pool;
    int32_t n_ctx;
    draft_control control; /* what drafting costs here, and how well it goes */
    bool has_control;
    const facet_session *logits_owner; /* whose logits the outputs of the last step are; NULL = nobody's */
    uint64_t n_runs;                   /* steps of the target so far */
    /* buffers of one step */
    int32_t token[ENGINE_MAX_ROWS], pos[ENGINE_MAX_ROWS], slot[ENGINE_MAX_ROWS], seq[ENGINE_MAX_ROWS];
    uint8_t path[DRAFT_TREE_MAX_ROWS][DRAFT_TREE_MAX_ROWS];
    kv_copy copies[KV_MAX_GROUPS * (ENGINE_MAX_ROWS / KV_PAGE_LEN + 4)];
};

/* Evaluates tokens at positions [start, start + n), n <= ENGINE_MAX_ROWS, of one sequence; the last n_out rows (<=
 * ENGINE_MAX_OUT) are wanted. Their values can then be read at rows 0 .. n_out - 1. */
facet_status engine_eval(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                         facet_error *err);

/* The same for a draft tree whose root stands at position start: node j lies in slot start + j. All rows are wanted. */
facet_status engine_eval_tree(facet_engine *e, kv_seq *s, const draft_tree *t, int32_t start, facet_error *err);
/* engine_eval, and the milliseconds of each op of the plan. */
facet_status engine_eval_timed(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                               double *op_ms, facet_error *err);

/* Page tables of a sequence as a batch wants them. */
batch_seq engine_view(const facet_engine *e, const kv_seq *s, int32_t base, int32_t end);

/* What decides about memory before anything is loaded. */
typedef struct engine_config {
    const facet_model *model;
    drafter *const *drafters;
    int n_drafters, n_sessions, draft_ctx;
    kv_type k, v;
    bool use_mmap;
} engine_config;
/* Bytes of the weights that the CPU backend copies (none from a mapped file) and of the cache of all sessions, as
 * facet_engine_memory reports them afterwards. */
typedef struct engine_needs {
    uint64_t weights, kv;
} engine_needs;
facet_status engine_estimate(const engine_config *c, int32_t n_ctx, engine_needs *out, facet_error *err);

#endif
