/* scheduler.h: many generations on one engine: each step of the target has rows of several of them, prompts in pieces
 * beside single tokens and drafts. Which texts share a step does not change any of them (kernels are batch-invariant,
 * draws depend on seed and position). One thread at a time, the engine's. */
#ifndef FACET_DECODE_SCHEDULER_H
#define FACET_DECODE_SCHEDULER_H

#include "decode/generation.h"

enum { SCHEDULER_PROMPT_ROWS = 128 };

typedef struct scheduler scheduler;

/* How a text ended: FACET_OK with its result, or an error. The generation is closed already; the session may be used.
 */
typedef void (*scheduler_done_fn)(void *ud, facet_status status, const facet_generate_result *result,
                                  const facet_error *err);

/* What a text may do in a step. */
typedef enum scheduler_wish {
    SCHEDULER_RUN,
    SCHEDULER_WAIT, /* no rows in this step: its reader is behind */
    SCHEDULER_END   /* it ends with FACET_ERR_CANCELLED */
} scheduler_wish;

typedef struct scheduler_request {
    facet_session *session; /* of the scheduler's engine; one text at a time */
    const int32_t *prompt;  /* [n_prompt], copied */
    size_t n_prompt;
    facet_sampling sampling;          /* its arrays are borrowed until the end */
    facet_generate_params params;     /* likewise; facet_session_cancel ends it */
    scheduler_wish (*wish)(void *ud); /* asked before each step; NULL: SCHEDULER_RUN always */
    generation_drafts_fn on_drafts;   /* NULL: nobody wants to know */
    scheduler_done_fn done;
    void *done_ud; /* of wish and on_drafts, too */
} scheduler_request;

/* prompt_rows: rows of prompts in a step in which others decode, so that these do not wait long (0 =
 * SCHEDULER_PROMPT_ROWS); a step without decoding takes what fits. */
facet_status scheduler_open(facet_engine *e, int prompt_rows, scheduler **out, facet_error *err);
/* Ends what is under way, without calling done. */
void scheduler_close(scheduler *sc);

/* Takes a text in; it gets its first rows in the next step. FACET_ERR_ARG when the session has one under way. done is
 * called if and only if this succeeds, from scheduler_step. */
facet_status scheduler_add(scheduler *sc, const scheduler_request *r, facet_error *err);
/* One step of the target for all of them, as far as they fit: texts that decode come first, in turns; prompts take the
 * other rows, oldest first. A text that fails ends with its error and leaves the others alone. Returns how many are
 * under way afterwards. Callbacks may add texts and use other sessions of the engine. */
int scheduler_step(scheduler *sc);
int scheduler_n_active(const scheduler *sc);

#endif
