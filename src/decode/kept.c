#include "decode/kept.h"

#include <string.h>

#include "base/mem.h"

facet_status kept_take(const facet_session *s, int32_t n, kept_text *out, facet_error *err)
{
    kv_pool *pool = s->engine->pool;
    const size_t bytes = (size_t)n * sizeof *out->tokens;
    kept_text k = {.n_tokens = n, .gap = draft_feed_gap(&s->feed), .tokens = mem_alloc(bytes)};
    if (!k.tokens) return error_memory(err, "the tokens of a snapshot", bytes);
    const facet_status status = kv_seq_fork(pool, &s->kv, &k.kv, err);
    if (status != FACET_OK) {
        mem_free(k.tokens);
        return status;
    }
    kv_seq_truncate(pool, &k.kv, n);
    memcpy(k.tokens, s->tokens, bytes);
    if (k.gap.end > n) k.gap.end = n;
    if (k.gap.begin >= k.gap.end) k.gap = (draft_gap){0};
    *out = k;
    return FACET_OK;
}

void kept_free(facet_engine *e, kept_text *k)
{
    kv_seq_free(e->pool, &k->kv);
    mem_free(k->tokens);
    *k = (kept_text){0};
}

session_state kept_state(kept_text *k)
{
    return (session_state){.kv = &k->kv, .tokens = k->tokens, .n_tokens = k->n_tokens, .gap = k->gap};
}
