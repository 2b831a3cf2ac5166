/* engine.h: a backend with a compiled target plan, the page pool, and the buffers of one step. */
#ifndef FACET_DECODE_ENGINE_H
#define FACET_DECODE_ENGINE_H

#include "compute/backend.h"
#include "model/model.h"

enum { ENGINE_MAX_ROWS = 512, ENGINE_MAX_OUT = 64 };

struct facet_engine {
    facet_model *model;
    backend *be;
    plan *plan;
    compiled *compiled;
    kv_desc kv;
    kv_pool *pool;
    int32_t n_ctx;
    const facet_session *logits_owner; /* whose logits the outputs of the last step are; NULL = nobody's */
    /* buffers of one step */
    int32_t pos[ENGINE_MAX_ROWS], seq[ENGINE_MAX_ROWS];
    kv_copy copies[KV_MAX_GROUPS * (ENGINE_MAX_ROWS / KV_PAGE_LEN + 4)];
};

/* Evaluates tokens at positions [start, start + n), n <= ENGINE_MAX_ROWS, of one sequence; the last n_out rows (<=
 * ENGINE_MAX_OUT) are wanted. Their values can then be read at rows 0 .. n_out - 1. */
facet_status engine_eval(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                         facet_error *err);

/* The same, and the milliseconds of each op of the plan. */
facet_status engine_eval_timed(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                               double *op_ms, facet_error *err);

/* Memory that a model needs before it is loaded. */
typedef struct engine_needs {
    uint64_t weights, kv;
} engine_needs;
facet_status engine_estimate(const facet_model *m, kv_type k, kv_type v, int32_t n_ctx, int n_sessions, bool use_mmap,
                             engine_needs *out, facet_error *err);

#endif
