/* session_match.h: which session a prompt should go on from. */
#ifndef FACET_DECODE_SESSION_MATCH_H
#define FACET_DECODE_SESSION_MATCH_H

#include "decode/session.h"

/* Tokens of the prompt tokens [n >= 1] that a sync of the session would take from its cache. */
int32_t session_match(const facet_session *s, const int32_t *tokens, size_t n);
/* facet_session_fork, with the mark: a sync of the copy keeps what one of the original would. */
facet_status session_fork_marked(const facet_session *s, facet_session **out, facet_error *err);

#endif
