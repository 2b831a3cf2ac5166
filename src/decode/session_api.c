/* session_api.c: the public view of engines and sessions, and the sampler over them. */
#include <string.h>

#include "base/mem.h"
#include "decode/prefix.h"
#include "decode/verify.h"

void facet_engine_describe(const facet_engine *e, facet_engine_info *out)
{
    backend_info info;
    prefix_stats cached;
    e->be->ops->info(e->be, &info);
    prefix_describe(e, &cached);
    *out = (facet_engine_info){.n_ctx = e->n_ctx,
                               .n_pages = e->kv.groups[KV_GROUP_GLOBAL].n_pages,
                               .n_free_pages = kv_pool_free_pages(e->pool, KV_GROUP_GLOBAL),
                               .n_steps = e->n_runs,
                               .memory_total = info.memory_total,
                               .memory_free = info.memory_free,
                               .n_cached_prompts = cached.n_entries,
                               .cached_bytes = cached.bytes,
                               .n_prompt_hits = cached.n_hits,
                               .n_reused_tokens = cached.n_reused};
    memcpy(out->device, info.name, sizeof info.name);
    memcpy(out->description, info.description, sizeof info.description);
}

facet_status facet_session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    if (n < 1) return error_set(err, FACET_ERR_ARG, "nothing to append: give at least one token");
    return session_append(s, tokens, n, err);
}

const int32_t *facet_session_tokens(const facet_session *s)
{
    return s->tokens;
}

facet_status facet_session_best(facet_session *s, int32_t *token, facet_error *err)
{
    int32_t best;
    FACET_TRY(session_argmax(s, &best, err));
    *token = best;
    return FACET_OK;
}

facet_status facet_session_hidden(facet_session *s, float *out, facet_error *err)
{
    if (s->engine->plan->v_hidden < 0)
        return error_set(err, FACET_ERR_ARG, "hidden state: open the engine with facet_engine_params.wants_hidden");
    return session_read(s, s->engine->plan->v_hidden, out, err);
}

facet_status facet_session_capture(facet_session *s, int i, float *out, facet_error *err)
{
    const facet_engine *e = s->engine;
    if (i < 0 || i >= e->n_captures)
        return error_set(err, FACET_ERR_ARG, "capture %d: the engine was opened with %d capture_layers", i,
                         e->n_captures);
    /* Captures have a row for each of the step's; in a step of one row that is the last token's. */
    if (e->step.n_rows != 1) s->out_run = 0;
    return session_read(s, e->capture_value[i], out, err);
}

/* ---- sampler ---- */

struct facet_sampler {
    const facet_model *model;
    chooser chooser;
};

facet_status facet_sampler_open(const facet_model *m, const facet_sampling *p, facet_sampler **out, facet_error *err)
{
    const size_t bytes = m->h.n_vocab * sizeof(float);
    facet_sampler *s = mem_calloc(1, sizeof *s);
    if (!s) return error_memory(err, "a sampler", sizeof *s);
    s->model = m;
    facet_status status = sampler_open(p, (int32_t)m->h.n_vocab, &s->chooser.sampler, err);
    if (status == FACET_OK && !(s->chooser.logits = mem_alloc(bytes))) status = error_memory(err, "logits", bytes);
    if (status != FACET_OK) {
        facet_sampler_close(s);
        return status;
    }
    *out = s;
    return FACET_OK;
}

void facet_sampler_close(facet_sampler *s)
{
    if (!s) return;
    sampler_close(s->chooser.sampler);
    mem_free(s->chooser.logits);
    mem_free(s);
}

facet_status facet_sampler_pick(facet_sampler *s, facet_session *from, int32_t *token, facet_error *err)
{
    int32_t picked;
    if (from->engine->model != s->model)
        return error_set(err, FACET_ERR_ARG, "the session belongs to another model than the sampler");
    FACET_TRY(verify_first(from, &s->chooser, &picked, err));
    *token = picked;
    return FACET_OK;
}
