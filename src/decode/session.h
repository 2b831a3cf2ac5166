/* session.h: one sequence: its tokens and its pages. */
#ifndef FACET_DECODE_SESSION_H
#define FACET_DECODE_SESSION_H

#include <stdatomic.h>

#include "decode/draft_ngram.h"
#include "decode/engine.h"

struct facet_session {
    facet_engine *engine;
    kv_seq kv;
    int32_t *tokens; /* [n_tokens], all evaluated */
    int32_t n_tokens, cap_tokens;
    int32_t n_kept;     /* tokens that the last sync took from the cache */
    int out_row;        /* row of the engine's wanted values that belongs to the last token, while it owns the logits */
    draft_ngram *ngram; /* index of the tokens so far; NULL until n-gram drafting is used */
    kv_seq mark;        /* the pages as they were at the end of the last synced prompt: where kv has lost its window */
    int32_t n_mark;     /* tokens[0, n_mark) are what mark holds; 0 = no mark */
    atomic_bool is_cancelled;
};

/* facet_session_sync with progress ("prefill", before each step and at the end; NULL = none), which may cancel. */
facet_status session_sync(facet_session *s, const int32_t *tokens, size_t n, facet_progress_fn progress, void *ud,
                          facet_error *err);
/* Evaluates n further tokens; logits after the last one are wanted. */
facet_status session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
/* Makes the tokens of an evaluated step the session's: rows[i] of the step (NULL: i) holds tokens[i]; n >= 1 of them.
 * Their keys lie in slots n_tokens .. n_tokens + n - 1 already. */
facet_status session_commit(facet_session *s, const int32_t *tokens, const int32_t *rows, int n, facet_error *err);
/* Room for n tokens in all. FACET_ERR_LIMIT above the context. */
facet_status session_reserve(facet_session *s, size_t n, facet_error *err);
/* Gives up the mark, whose pages a step may need. */
void session_drop_mark(facet_session *s);
/* Reads the row of an output of the target that belongs to the last token. */
facet_status session_read(facet_session *s, int value, void *out, facet_error *err);
/* Argmax after the last token. */
facet_status session_argmax(facet_session *s, int32_t *out, facet_error *err);

#endif
