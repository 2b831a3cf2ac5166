/* generation.h: one text in the making, step by step, so that several can share the steps of an engine:
 *
 *     generation_open
 *     until generation_is_over: generation_plan -> rows in a step of the engine -> generation_take
 *     generation_result, generation_close
 */
#ifndef FACET_DECODE_GENERATION_H
#define FACET_DECODE_GENERATION_H

#include "decode/speculate.h"

typedef struct generation generation;

/* Borrows the session, the prompt [n_prompt], and what *p points to (stop texts), until generation_close. ops: drafts
 * by one strategy of the caller's; NULL: by those that p->speculation names. */
facet_status generation_open(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                             const facet_generate_params *p, const strategy_ops *ops, generation **out,
                             facet_error *err);
void generation_close(generation *g);

/* Drafts that were verified in a step: row 0 is the token that they follow. */
typedef struct generation_drafts {
    int n_rows;
    const int32_t *token;  /* [n_rows] */
    const uint8_t *parent; /* [n_rows]; parent[i] < i for i > 0 */
    uint64_t held;         /* bit i: row i holds */
} generation_drafts;
typedef void (*generation_drafts_fn)(void *ud, const generation_drafts *d);
/* fn is told of each step with drafts, before their tokens are handed out. */
void generation_watch(generation *g, generation_drafts_fn fn, void *ud);

facet_session *generation_session(const generation *g);
bool generation_is_over(const generation *g);
/* True while prompt tokens are left to evaluate: its steps want many rows, and at most one of them. */
bool generation_is_prefill(const generation *g);

/* Its rows in the next step, max_rows at most, of which max_out at most are wanted (both >= 1). *part NULL: the text
 * ended without one. The part is the generation's. Drafting runs the engine, so no step may be in the making. */
facet_status generation_plan(generation *g, int max_rows, int max_out, engine_part **part, facet_error *err);
/* The step was run: reads what came of it. All generations of a step must do so before the engine runs anything else.
 * step_ms: what the step took, or the generation's share of it. */
facet_status generation_read(generation *g, double step_ms, bool is_shared, facet_error *err);
/* Then hands the tokens out (p->on_token, which may use other sessions of the engine), and keeps them. */
facet_status generation_take(generation *g, facet_error *err);
/* Instead of read or take after any failure: gives back what the part reserved. The session keeps what it had. */
void generation_abandon(generation *g);

/* What came of it; when it is over, or at any time before. */
void generation_result(const generation *g, facet_generate_result *out);

#endif
