/* draft_cost.h: what a target step of n rows costs, learned from measurements. Times are arguments; nothing here reads
 * a clock. */
#ifndef FACET_DECODE_DRAFT_COST_H
#define FACET_DECODE_DRAFT_COST_H

#include <stdbool.h>
#include <stdint.h>

enum { DRAFT_COST_MAX_ROWS = 64, DRAFT_COST_BUCKETS = 5 };

/* Milliseconds by rows for contexts of one order of magnitude. */
typedef struct draft_cost_bucket {
    int n_known;                            /* widths that have a value */
    uint32_t n[DRAFT_COST_MAX_ROWS + 1];    /* measurements of the width; 0 = none */
    double ms[DRAFT_COST_MAX_ROWS + 1];     /* their running mean */
    double least[DRAFT_COST_MAX_ROWS + 1];  /* the fastest of the first ones */
    double weight[DRAFT_COST_MAX_ROWS + 1]; /* in the fit: recent measurements count, old ones fade */
    double curve[DRAFT_COST_MAX_ROWS + 1];  /* a non-decreasing fit through them, for every width from 1 */
} draft_cost_bucket;

/* Buckets end at contexts of 2Ki, 8Ki, 32Ki, 128Ki tokens; the last has no end. */
typedef struct draft_cost {
    double rise; /* guess for widths above the measured ones: each further row costs at least this share of one row */
    uint8_t padded[DRAFT_COST_MAX_ROWS + 1]; /* rows really run for n wanted ones */
    draft_cost_bucket bucket[DRAFT_COST_BUCKETS];
} draft_cost;

/* An empty table. widths [n_widths], rising: the widths at which a backend runs (captured graphs); a step of n rows
 * runs at the next one, and above the last at n. n_widths = 0: every width runs as it is. */
void draft_cost_init(draft_cost *c, const int *widths, int n_widths);
/* Sets the guess for widths that were not measured (0 at first: they cost no more than the widest measured one). */
void draft_cost_guess(draft_cost *c, double rise);

/* Takes a calibrated value, or one measured step, of n_rows rows (1 .. 64) after n_ctx positions. Of the first two
 * steps of a width the faster one counts, since a machine's hiccups only ever add; the first alone counts as twice what
 * the other widths let expect, at most. Further ones move the running mean of their width (weight 1 / n, at least 0.1),
 * where a step slower than twice or faster than half of what was expected counts as that (a machine hiccup teaches
 * little). Once the width is settled (eight measurements), half of the move goes to the other widths of the bucket too:
 * what makes steps slower as a context grows, the reading of keys and values, is the same for every width. A cheaper
 * width moves by no greater a share of its own than this one. Values that are not finite and positive are ignored. */
void draft_cost_set(draft_cost *c, int64_t n_ctx, int n_rows, double ms);
void draft_cost_observe(draft_cost *c, int64_t n_ctx, int n_rows, double ms);
/* What is known of the width is old: the next measurement counts a third. */
void draft_cost_doubt(draft_cost *c, int64_t n_ctx, int n_rows);

/* True when one-row steps have been measured twice in some bucket: the rest can be judged against them. */
bool draft_cost_is_known(const draft_cost *c);
/* Expected milliseconds of a step of n_rows rows, never falling with n_rows. Between measured widths it is linear;
 * above the last one it rises as between the first and the last, but at least by the guess (optimistic at 0: so the
 * width is tried). A bucket without measurements answers with the nearest one that has some, smaller contexts first. 0
 * when nothing was measured. */
double draft_cost_ms(const draft_cost *c, int64_t n_ctx, int n_rows);

#endif
