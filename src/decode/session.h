/* session.h: one sequence: its tokens and its pages. */
#ifndef FACET_DECODE_SESSION_H
#define FACET_DECODE_SESSION_H

#include <stdatomic.h>

#include "decode/draft_feed.h"
#include "decode/draft_ngram.h"
#include "decode/engine.h"

/* A state to go on from: the pages of tokens [n_tokens], all evaluated. Borrowed, or what a kept_text owns. */
typedef struct session_state {
    kv_seq *kv;
    int32_t *tokens;
    int32_t n_tokens;
    draft_gap gap;
} session_state;

struct facet_session {
    facet_engine *engine;
    facet_session *next, *prev; /* among those of the engine */
    kv_seq kv;
    int32_t *tokens; /* [n_tokens], all evaluated */
    int32_t n_tokens, cap_tokens;
    int32_t n_prompt; /* where the prompt that was evaluated last ends; what follows was generated */
    int32_t n_kept;   /* tokens that the last sync took from the cache */
    /* Row of the engine's wanted values that belongs to the last token, while the engine's step out_run is its last one
     * (0 = none). */
    int out_row;
    uint64_t out_run;
    draft_ngram *ngram; /* index of the tokens so far; NULL until n-gram drafting is used */
    kv_seq mark;        /* the pages as they were at the end of the last synced prompt: where kv has lost its window */
    int32_t n_mark;     /* tokens[0, n_mark) are what mark holds; 0 = no mark */
    draft_gap mark_gap;
    draft_feed feed; /* of the DFlash drafter */
    int32_t branch;  /* where the prompt in evaluation parts from others: kept for the next one. 0 = nowhere */
    atomic_bool is_cancelled;
};

/* True while the outputs of the last token can be read from the engine. */
static inline bool session_has_outputs(const facet_session *s)
{
    return s->out_run && s->out_run == s->engine->n_runs;
}

/* Cuts the session to the longest beginning of tokens [n >= 1] from which it can go on; s->n_kept gets the length.
 * When all of them are there and their outputs too, nothing is left to evaluate (n_kept = n); else at least one token
 * is. FACET_ERR_LIMIT above the context. */
facet_status session_keep(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
/* Rows that the next step of a prompt may have, of `left` tokens: a step ends where the prompt parts from others. */
int session_rows(const facet_session *s, size_t left, int max_rows);
/* The first n tokens of a state, pages shared, become the session's content. On failure nothing has changed. */
facet_status session_adopt(facet_session *s, const session_state *from, int32_t n, facet_error *err);
/* The session's content is forgotten. */
void session_clear(facet_session *s);
/* FACET_ERR_PARKED when that has happened to all sessions since the engine's n_drops was what is given. */
facet_status session_check_content(const facet_session *s, uint64_t n_drops, facet_error *err);
/* Keeps the pages as they are now for a next prompt that begins like this one; without if the pool is too full. */
void session_set_mark(facet_session *s);
/* Adds rows of the session to the engine's step; gives up the mark where the pool needs it. */
facet_status session_add(facet_session *s, engine_part *part, facet_error *err);

/* facet_session_sync with progress ("prefill", before each step and at the end; NULL = none), which may cancel. */
facet_status session_sync(facet_session *s, const int32_t *tokens, size_t n, facet_progress_fn progress, void *ud,
                          facet_error *err);
/* Evaluates n further tokens, generated ones or those of a prompt that ends with them (which matters to sparse
 * attention); logits after the last one are wanted. */
facet_status session_append_prompt(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
facet_status session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
/* Takes n further tokens without evaluating them: their keys and values are whatever lies in the pages. For measuring
 * times at a depth alone. */
facet_status session_append_blank(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
/* Makes the tokens of the engine's last step the session's: rows[i] of the step holds tokens[i]; n >= 1 of them. Their
 * keys lie in slots n_tokens .. n_tokens + n - 1 already. out_row: the wanted row of the last one, -1 = none. */
facet_status session_commit(facet_session *s, const int32_t *tokens, const int32_t *rows, int n, int out_row,
                            facet_error *err);
/* The same for a chain's part. */
facet_status session_commit_part(facet_session *s, const engine_part *part, facet_error *err);
/* Room for n tokens in all. FACET_ERR_LIMIT above the context. */
facet_status session_reserve(facet_session *s, size_t n, facet_error *err);
/* Gives up the mark, whose pages a step may need. */
void session_drop_mark(facet_session *s);
/* Reads the row of an output of the target that belongs to the last token. */
facet_status session_read(facet_session *s, int value, void *out, facet_error *err);
/* Argmax after the last token. */
facet_status session_argmax(facet_session *s, int32_t *out, facet_error *err);

#endif
