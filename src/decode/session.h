/* session.h: one sequence: its tokens and its pages. */
#ifndef FACET_DECODE_SESSION_H
#define FACET_DECODE_SESSION_H

#include <stdatomic.h>

#include "decode/engine.h"

struct facet_session {
    facet_engine *engine;
    kv_seq kv;
    int32_t *tokens; /* [n_tokens], all evaluated */
    int32_t n_tokens, cap_tokens;
    int32_t n_kept; /* tokens that the last sync took from the cache */
    atomic_bool is_cancelled;
};

/* Evaluates n further tokens; logits after the last one are wanted. */
facet_status session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
/* Argmax after the last token. */
facet_status session_argmax(facet_session *s, int32_t *out, facet_error *err);

#endif
