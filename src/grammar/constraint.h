/* constraint.h: what the tokens of one answer may be: the answer's content follows a grammar, thoughts and tool calls
 * around it are free.
 *
 *   open ──<|channel>──► thought ──<channel|>──► ready      any tokens but end tokens; no second thought
 *   open, ready ──<|tool_call>──► call ──<tool_call|>──► called ──► call, or the end
 *   open, ready ──any text──► content: the grammar alone; end tokens only where it may end
 *
 * Thoughts and calls only where the flags admit them. An answer of calls has no content.
 *
 * Several points of a text are kept at once, so that drafts are judged node by node: point 0 is where the text stands,
 * the others are the caller's. A point is a few bytes; to go back is to forget a point. */
#ifndef FACET_GRAMMAR_CONSTRAINT_H
#define FACET_GRAMMAR_CONSTRAINT_H

#include "grammar/mask.h"

enum { CONSTRAINT_POINTS = 66 };

typedef enum constraint_flags {
    CONSTRAINT_MAY_THINK = 1,
    CONSTRAINT_MAY_CALL = 2,
    CONSTRAINT_IN_THOUGHT = 4 /* the prompt ended with an open thought channel */
} constraint_flags;

typedef struct constraint constraint;

/* Borrows both. Several constraints may use one masker, in one thread. */
facet_status constraint_open(masker *k, const tokenizer *t, unsigned flags, constraint **out, facet_error *err);
void constraint_close(constraint *c);

/* Point `to` becomes what follows point `from` after the token; *is_allowed tells whether anything does. */
facet_status constraint_advance(constraint *c, int from, int32_t token, int to, bool *is_allowed, facet_error *err);
/* Point 0 becomes point `from`. */
void constraint_settle(constraint *c, int from);
/* An end token was there: nothing follows. */
bool constraint_is_over(const constraint *c, int at);
/* The tokens allowed at a point: mask_words words, good until the next call. For devices, too. */
facet_status constraint_mask(constraint *c, int at, const uint64_t **bits, facet_error *err);
/* logits [n_vocab] of tokens that are not allowed become -INFINITY. */
facet_status constraint_apply(constraint *c, int at, float *logits, facet_error *err);

#endif
