#include "decode/session_match.h"

int32_t session_match(const facet_session *s, const int32_t *tokens, size_t n)
{
    const kv_pool *pool = s->engine->pool;
    int32_t keep = 0;
    while (keep < s->n_tokens && (size_t)keep < n && s->tokens[keep] == tokens[keep]) keep++;
    if ((size_t)keep == n && (keep < s->n_tokens || !session_has_outputs(s))) keep--;
    if (keep == s->n_tokens || kv_seq_can_resume(pool, &s->kv, keep)) return keep;
    if (keep > s->n_mark) keep = s->n_mark;
    return kv_seq_can_resume(pool, &s->mark, keep) ? keep : 0;
}

facet_status session_fork_marked(const facet_session *s, facet_session **out, facet_error *err)
{
    facet_session *f;
    FACET_TRY(facet_session_fork(s, &f, err));
    if (s->n_mark && kv_seq_fork(s->engine->pool, &s->mark, &f->mark, NULL) == FACET_OK) f->n_mark = s->n_mark;
    *out = f;
    return FACET_OK;
}
