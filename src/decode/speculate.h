/* speculate.h: one generation's drafting: which strategies there are, which one drafts in a step and how much, and what
 * came of it. Tokens never depend on any of it (verify.h). */
#ifndef FACET_DECODE_SPECULATE_H
#define FACET_DECODE_SPECULATE_H

#include "decode/draft_adaptive.h"
#include "decode/draft_control.h"
#include "decode/spec_stats.h"
#include "decode/strategy.h"

typedef struct speculation {
    facet_session *s;
    facet_speculation opts;
    int n_arms;
    strategy arm[DRAFT_MAX_ARMS];
    bool has_control;      /* FACET_ADAPT_COST, and there is something to decide */
    draft_control control; /* the engine's, as it was at the beginning: generations may run inside one another */
    draft_adaptive window; /* FACET_ADAPT_WINDOW */
    proposal proposal;
    engine_part part;
    verdict verdict;
    /* of the step in progress */
    draft_plan plan;
    bool is_planned; /* by the controller, which then wants to know what came of it */
    int n_drafted;   /* drafts made; proposal.n of them are verified */
    float conf[DRAFT_TREE_MAX_NODES];
    bool is_switched;
    int last_arm;
    bool is_shared;
    double draft_ms, verify_ms;
    int n_caught; /* positions that the drafter's context got before the draft, and the time of that */
    double caught_ms;
    facet_spec_stats stats;
} speculation;

/* ops: one strategy of the caller's, up to opts->draft_max drafts a step (0 = DRAFT_TREE_MAX_NODES); NULL: those that
 * opts->method names. FACET_ERR_ARG names the option that is out of its range or wants a drafter that the engine lacks.
 */
facet_status speculation_begin(speculation *sp, facet_session *s, const facet_speculation *opts,
                               const strategy_ops *ops, facet_error *err);

/* Drafts after `pending`: sp->part are the rows to verify, max_rows (>= 1) at most. At most n_left further tokens are
 * wanted (>= 1). */
facet_status speculation_draft(speculation *sp, const chooser *c, int32_t pending, int32_t n_left, int max_rows,
                               facet_error *err);
/* After the step with sp->part: sp->verdict holds the rows that hold. step_ms: what the step took, or its share of one
 * in which other sessions had rows, too; then nothing is learned about costs. */
facet_status speculation_read(speculation *sp, const chooser *c, int32_t pending, double step_ms, bool is_shared,
                              facet_error *err);
/* All of it as a step of its own. */
facet_status speculation_step(speculation *sp, const chooser *c, int32_t pending, int32_t n_left, facet_error *err);
/* Keeps the first m rows of the verdict, and learns. */
facet_status speculation_commit(speculation *sp, int m, facet_error *err);

/* Leaves what was learned to the engine. */
void speculation_end(speculation *sp);

#endif
