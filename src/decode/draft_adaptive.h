/* draft_adaptive.h: the two published rules for the width of a draft: AdaptiveDraftMax, which follows the acceptance of
 * the last steps, and the cut by the drafter's own confidence. (The rule that knows costs is draft_control.h.) */
#ifndef FACET_DECODE_DRAFT_ADAPTIVE_H
#define FACET_DECODE_DRAFT_ADAPTIVE_H

#include <stdbool.h>

/* AdaptiveDraftMax: the width in rows, halved or doubled by how full the drafts of a window of steps were. */
enum { DRAFT_ADAPTIVE_WINDOW = 8, DRAFT_ADAPTIVE_FLOOR = 8 };

typedef enum draft_adaptive_mode {
    DRAFT_ADAPTIVE_AUTO, /* on for mixture-of-experts targets, where every row of a verification costs; else off */
    DRAFT_ADAPTIVE_ON,
    DRAFT_ADAPTIVE_OFF
} draft_adaptive_mode;

typedef struct draft_adaptive {
    bool is_on;
    int n_rows;             /* the width to use now, the row of the pending token included */
    int min_rows, max_rows; /* the floor keeps a bad window from shutting drafting down for good */
    int n_accepted, n_room; /* drafts accepted, and drafted, in this window */
    int n_steps;            /* of this window */
} draft_adaptive;

/* Starts a request. block: the drafter's block in rows; initial: the first width, 0 = the block. Off, the width stays.
 */
void draft_adaptive_init(draft_adaptive *a, draft_adaptive_mode mode, bool is_moe, int block, int initial);
/* One step: n_accepted rows of n_rows drafted ones (both count the pending token's row). n_accepted is the verified
 * length *before* the cut at stop tokens and budget: cut steps are no rejections. */
void draft_adaptive_observe(draft_adaptive *a, int n_accepted, int n_rows);

/* How DFLASH_NO_ADAPTIVE and its like are read: any value that is neither empty nor begins with '0'. NULL is unset. */
bool draft_switch_is_set(const char *value);

/* Rows worth verifying (the pending token's included) of a chain whose k drafts have these top-1 probabilities: as long
 * as their running product reaches theta, at least min_rows, at most k + 1. theta <= 0 keeps all. */
int draft_width_by_confidence(const float *p_top1, int k, float theta, int min_rows);

enum { DRAFT_WIDTH_MIN = 4 };

#endif
