/* spec_accept.h: which drafted tokens the target accepts, and which of those are committed. Pure functions.
 *
 * A verification runs rows [pending, draft 1 .. draft k] through the target. Row r's verdict is the target's own choice
 * for the token after row r: its argmax, or at temperature > 0 a draw from its distribution. The row of the pending
 * token is always right, so every step commits at least one token. */
#ifndef FACET_DECODE_SPEC_ACCEPT_H
#define FACET_DECODE_SPEC_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

/* Accepts a chain of deterministic drafts. token, verdict [n_rows >= 1]; token[0] is the pending one. Returns the
 * number of accepted rows, row 0 included: draft j holds iff it equals the verdict of row j - 1. Exact for argmax
 * verdicts, and for drawn ones too: with a one-hot proposal, rejection sampling (Leviathan et al. 2023,
 * arXiv:2211.17192) accepts draft t with probability p(t) and otherwise leaves a draw from p given "not t", which is
 * what comparing t with one draw from p does. (Trees: draft_tree_walk.) */
int spec_accept_chain(const int32_t *token, const int32_t *verdict, int n_rows);

/* What one step commits. */
typedef struct spec_commit {
    int n;           /* rows committed: the first n of the accepted path */
    bool is_stopped; /* the last of them holds a stop token */
    int last_row;    /* that row: its hidden state and features are the ones to go on from; -1 when n == 0 */
    int32_t pending; /* the verdict of last_row: the token that comes next. With n == 0 the old pending token */
} spec_commit;

/* True when nothing may follow the token. Called once per committed token, in order: it may deliver the token too, and
 * a caller that cancels says true. */
typedef bool (*spec_stop_fn)(void *ud, int32_t token);

/* Cuts an accepted path of n_path rows (rows 0 .. n_path - 1 when path is NULL) at the budget of n_left tokens and at
 * the first stop token, which is itself committed. token, verdict: by row. The pending token is the verdict of the last
 * *committed* row, not of the last accepted one. is_stop may be NULL. */
spec_commit spec_truncate(const int32_t *token, const int32_t *verdict, const uint8_t *path, int n_path, int64_t n_left,
                          spec_stop_fn is_stop, void *ud);

/* ---- drawing ---- */

/* A uniform number in [0, 1) that depends on the seed, the absolute position of the token it decides and a lane
 * (several numbers for one position). A sequence's draws therefore do not depend on how it was cut into steps, and a
 * speculative run draws what the plain run draws. */
double spec_uniform(uint64_t seed, int64_t pos, uint32_t lane);

/* Index drawn from weights w [n] >= 0 (not normalised) with u in [0, 1); -1 when their sum is 0 or not finite. */
int32_t spec_draw(const float *w, int32_t n, double u);

/* Rejection sampling of a chain whose drafts were drawn from known distributions (Leviathan et al. 2023).
 * p [k + 1, n_vocab]: the target's distribution after each row; q [k, n_vocab]: row j - 1 is the one that draft j was
 * drawn from; draft [k] the drafts alone (no pending token). All after the sampler's transforms, each row summing to 1.
 * The draft with index j is the token of position pos + j. Returns the number of accepted drafts; *pending gets the
 * token after them: drawn from norm(max(p - q, 0)) at the first rejection, from p[k] when all were accepted.
 * The output follows p exactly, whatever q. Needs an n_vocab scratch. */
int spec_accept_sampled(const float *p, const float *q, const int32_t *draft, int k, int32_t n_vocab, uint64_t seed,
                        int64_t pos, float *scratch, int32_t *pending);

#endif
