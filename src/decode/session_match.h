/* session_match.h: which session a prompt should go on in. */
#ifndef FACET_DECODE_SESSION_MATCH_H
#define FACET_DECODE_SESSION_MATCH_H

#include "decode/session.h"

/* Tokens of the prompt tokens [n >= 1] that a sync of the session would take from its own pages. */
int32_t session_match(const facet_session *s, const int32_t *tokens, size_t n);

#endif
