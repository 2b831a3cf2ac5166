/* kept.h: a session's state, put aside: its tokens, and a share in its pages. */
#ifndef FACET_DECODE_KEPT_H
#define FACET_DECODE_KEPT_H

#include "decode/session.h"

typedef struct kept_text {
    kv_seq kv;
    int32_t *tokens; /* [n_tokens] from position 0 on, also where pages of the first ones are not held */
    int32_t n_tokens;
    draft_gap gap;
} kept_text;

/* The first n tokens of a session, n <= its tokens, into *out (which need not be initialised). */
facet_status kept_take(const facet_session *s, int32_t n, kept_text *out, facet_error *err);
void kept_free(facet_engine *e, kept_text *k);
session_state kept_state(kept_text *k);

#endif
