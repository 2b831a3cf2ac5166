/* spec_stats.h: what speculation did: counts, acceptance by position, times. One object per request; merged into
 * totals. */
#ifndef FACET_DECODE_SPEC_STATS_H
#define FACET_DECODE_SPEC_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPEC_STATS_DEPTHS = 64 };

/* One verification, or one plain step (n_drafted = 0). */
typedef struct spec_step {
    int n_drafted;   /* drafts verified: rows of the batch - 1, padding not counted */
    int n_accepted;  /* of them accepted, before the cut at stop tokens and budget */
    int n_committed; /* tokens committed, after the cut; the pending token counts */
    int max_depth;   /* deepest draft; of a chain n_drafted */
    bool is_tree;
    int n_moves;                          /* rows copied to compact the accepted path */
    int planned_k;                        /* what the controller asked for */
    bool is_fallback;                     /* a plain step although a drafter was there */
    bool is_switched;                     /* the controller changed its choice */
    double draft_ms, verify_ms, other_ms; /* other: acceptance, compaction, sampling, upkeep of the drafter */
} spec_step;

typedef struct spec_stats {
    uint64_t n_steps, n_drafting; /* all; those that verified drafts */
    uint64_t n_drafted, n_accepted, n_committed;
    uint64_t n_fallback; /* plain steps although a drafter was there */
    /* Position j (from 1) at index j - 1: steps in which a draft of that depth was verified; in which also everything
     * before it was accepted; in which it was accepted. */
    uint64_t verified[SPEC_STATS_DEPTHS], reached[SPEC_STATS_DEPTHS], accepted[SPEC_STATS_DEPTHS];
    uint64_t histogram[SPEC_STATS_DEPTHS]; /* of steps by accepted drafts; plain steps count as 0 */
    uint64_t n_tree_steps, n_tree_nodes, sum_tree_depth, n_moves;
    uint64_t sum_planned_k, n_switches;
    double draft_ms, verify_ms, other_ms;
} spec_stats;

void spec_stats_reset(spec_stats *s);
void spec_stats_add(spec_stats *s, const spec_step *step);
void spec_stats_merge(spec_stats *into, const spec_stats *from);

/* Ratios; 0 where nothing was counted. */
double spec_stats_accept_rate(const spec_stats *s);     /* accepted / drafted */
double spec_stats_tokens_per_step(const spec_stats *s); /* committed / steps, after the cut at stop tokens and budget */
double spec_stats_accepted_length(const spec_stats *s); /* 1 + accepted / steps, before it: never smaller */
double spec_stats_at(const spec_stats *s, int position);    /* P(draft `position` accepted | verified), from 1 */
double spec_stats_given(const spec_stats *s, int position); /* the same given that those before it were accepted */
double spec_stats_mean_k(const spec_stats *s);              /* planned drafts per step */

/* One line for people, without a newline; cut to `size` bytes, always terminated. Returns what snprintf returns. */
int spec_stats_format(const spec_stats *s, char *line, size_t size);

#endif
