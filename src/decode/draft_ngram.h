/* draft_ngram.h: drafting by looking the last tokens up in the session's own past (prompt lookup): no model, no memory
 * traffic on the device. Pays where text repeats itself: code edits, quoting, extraction, JSON.
 *
 * The index knows, for each length n in n_min .. n_max, the occurrences of every n-gram of the session. A proposal
 * looks for an earlier occurrence of the last n_max tokens, else of a shorter end of the text, down to n_min; among the
 * occurrences of the longest length found it looks at the n_candidates most recent ones and takes the one whose match
 * reaches furthest back, the most recent of equals. What followed it is the draft; when that runs into the end of the
 * session, the draft goes on with its own beginning (so a period shorter than the draft repeats).
 *
 * Results are exact: n-grams are compared by their tokens, not by their hashes. */
#ifndef FACET_DECODE_DRAFT_NGRAM_H
#define FACET_DECODE_DRAFT_NGRAM_H

#include "base/error.h"

enum {
    DRAFT_NGRAM_MAX_N = 8,
    DRAFT_NGRAM_MAX_CANDIDATES = 64,
    DRAFT_NGRAM_MAX_MATCH = 64, /* tokens compared backwards */
    DRAFT_NGRAM_MIN_WINDOW = 64,
    DRAFT_NGRAM_MAX_WINDOW = 1 << 24
};

typedef struct draft_ngram_params {
    int n_min, n_max; /* 1 <= n_min <= n_max <= DRAFT_NGRAM_MAX_N */
    int n_candidates; /* 1 = the most recent occurrence */
    /* Tokens remembered; older ones are forgotten. Bounds the memory: about 4 + 12 * (n_max - n_min + 1) bytes a token
     * (rounded up to a power of two), taken as the session grows. */
    int32_t max_tokens;
    uint64_t seed; /* of the hash, so that a client cannot aim for collisions; does not change results */
} draft_ngram_params;

/* Lengths 4 to 2, 16 candidates (measured: docs/speculation.md), 262144 tokens. */
draft_ngram_params draft_ngram_params_default(void);

typedef struct draft_ngram draft_ngram;

/* FACET_ERR_ARG names the parameter that is out of its range. */
facet_status draft_ngram_open(const draft_ngram_params *p, draft_ngram **out, facet_error *err);
void draft_ngram_close(draft_ngram *d);
/* A copy that goes on independently. */
facet_status draft_ngram_fork(const draft_ngram *d, draft_ngram **out, facet_error *err);

/* Adds n tokens at the end; amortised constant time each. The pending token is final, so append it too before
 * proposing. FACET_ERR_MEMORY and FACET_ERR_LIMIT (2^31 - 1 tokens) leave the index as it was. */
facet_status draft_ngram_append(draft_ngram *d, const int32_t *tokens, size_t n, facet_error *err);
/* Forgets the tokens at positions >= n_tokens, in time proportional to their number. */
void draft_ngram_truncate(draft_ngram *d, int32_t n_tokens);
int32_t draft_ngram_n_tokens(const draft_ngram *d);

/* Writes up to k tokens that may follow the last one; returns how many: k, or 0 when nothing matches. *n_match (may be
 * NULL) gets the length of the match in tokens, n_min to DRAFT_NGRAM_MAX_MATCH. */
int draft_ngram_propose(const draft_ngram *d, int k, int32_t *out, int *n_match);

/* Bytes held now. */
size_t draft_ngram_bytes(const draft_ngram *d);

#endif
