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
