/* spec_stats.h: what speculation did, step by step (facet_spec_stats): counts, acceptance by position, times. */
#ifndef FACET_DECODE_SPEC_STATS_H
#define FACET_DECODE_SPEC_STATS_H

#include "facet.h"

/* One verification, or one plain step (n_drafted = 0). */
typedef struct spec_step {
    facet_spec_method method; /* that drafted */
    int n_asked;              /* drafts asked for */
    int n_drafted;            /* drafts verified: rows of the batch - 1, padding not counted */
    int n_accepted;           /* of them accepted, before the cut at stop tokens and limits */
    int n_committed;          /* tokens committed, after the cut; the pending token counts */
    int max_depth;            /* deepest draft; of a chain n_drafted */
    bool is_tree;
    int n_moves;                          /* rows copied to compact the accepted path */
    bool is_switched;                     /* not drafted as in the step before */
    double draft_ms, verify_ms, other_ms; /* other: acceptance, compaction, upkeep of the drafter */
} spec_step;

/* Adds a step; the ratios follow. */
void spec_stats_add(facet_spec_stats *s, const spec_step *step);

#endif
