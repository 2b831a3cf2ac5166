#include "decode/logits.h"

#include "base/mem.h"

facet_status logits_open(facet_engine *e, logits_reader *r, facet_error *err)
{
    const size_t n = (size_t)ENGINE_MAX_OUT * e->model->h.n_vocab;
    *r = (logits_reader){.engine = e, .rows = mem_calloc(n, sizeof *r->rows)};
    return r->rows ? FACET_OK : error_memory(err, "rows of logits", n * sizeof *r->rows);
}

facet_status logits_start(logits_reader *r, const int32_t *tokens, size_t n, size_t first, facet_error *err)
{
    if (n > (size_t)r->engine->n_ctx)
        return error_set(err, FACET_ERR_LIMIT, "%zu tokens: the context holds %d (set it with -c)", n,
                         r->engine->n_ctx);
    if (first >= n)
        return error_set(err, FACET_ERR_ARG, "logits from position %zu on: the text has %zu tokens", first, n);
    kv_seq_free(r->engine->pool, &r->kv);
    r->kv = (kv_seq){0};
    r->tokens = tokens;
    r->n = n;
    r->first = first;
    r->at = 0;
    r->n_drops = r->engine->n_drops;
    return FACET_OK;
}

/* One step: the unwanted tokens that still come, and as many wanted rows as fit. */
static facet_status step(logits_reader *r, size_t *n_out, facet_error *err)
{
    const size_t lead = r->first > r->at ? r->first - r->at : 0, left = r->n - r->at - lead;
    size_t rows = ENGINE_MAX_ROWS;
    *n_out = 0;
    if (lead < ENGINE_MAX_ROWS) {
        *n_out = left < ENGINE_MAX_OUT ? left : ENGINE_MAX_OUT;
        if (*n_out > ENGINE_MAX_ROWS - lead) *n_out = ENGINE_MAX_ROWS - lead;
        rows = lead + *n_out;
    }
    FACET_TRY(engine_eval(r->engine, &r->kv, r->tokens + r->at, (int32_t)r->at, (int)rows, (int)*n_out, err));
    r->at += rows;
    kv_seq_release_window(r->engine->pool, &r->kv, (int32_t)r->at);
    return FACET_OK;
}

facet_status logits_next(logits_reader *r, const float **rows, size_t *n_rows, facet_error *err)
{
    facet_engine *e = r->engine;
    size_t n_out = 0;
    if (r->n_drops != e->n_drops)
        return error_set(err, FACET_ERR_PARKED, "the target was parked and its cache dropped: begin the text again");
    while (!n_out && r->at < r->n) FACET_TRY(step(r, &n_out, err));
    if (n_out) FACET_TRY(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, 0, (int)n_out, r->rows, err));
    *rows = r->rows;
    *n_rows = n_out;
    return FACET_OK;
}

void logits_close(logits_reader *r)
{
    if (r->engine) kv_seq_free(r->engine->pool, &r->kv);
    mem_free(r->rows);
    *r = (logits_reader){0};
}
