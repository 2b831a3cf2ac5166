/* prefix.h: a new prompt starts from the longest beginning that is still in the cache, wherever it is: in its own
 * session, another one of the engine, a snapshot, or among cached prompts. On with facet_engine_params.reuse_prompts;
 * the session then looks by itself (session_keep), and generations leave their text here (when the prompt is done, when
 * the text ends, and at the place where a prompt parted from what was there before).
 *
 * A place can be used only where the local layers' window before it is still held. Cached prompts take up to
 * facet_engine_params.cache_bytes; those that were not used for the longest time go first, also when the pool has no
 * pages left for the sessions. */
#ifndef FACET_DECODE_PREFIX_H
#define FACET_DECODE_PREFIX_H

#include "decode/session.h"

typedef struct prefix_stats {
    int n_entries;
    uint64_t bytes, budget;         /* of the pages that cached prompts hold, each counted once; at most */
    uint64_t n_lookups, n_hits;     /* prompts with something left to evaluate; those that began with others' pages */
    uint64_t n_reused, n_evictions; /* tokens that hits saved; prompts that were forgotten for room */
} prefix_stats;

void prefix_describe(const facet_engine *e, prefix_stats *out);
/* Another budget; forgets what is above it. 0: nothing is cached, sessions and snapshots are still looked at. */
void prefix_set_budget(facet_engine *e, uint64_t bytes);
/* Forgets all cached prompts. */
void prefix_clear(facet_engine *e);

/* ---- for the engine's own modules ---- */

typedef struct prefix_match {
    session_state from; /* borrowed; its first n_usable tokens are those that were asked for */
    int32_t n_usable;
    int32_t branch; /* a place to keep when the evaluation passes it; 0 = none */
} prefix_match;

facet_status prefix_open(facet_engine *e, uint64_t budget, facet_error *err);
void prefix_close(facet_engine *e);
/* The longest usable beginning of tokens [n] among all but the session itself, where it is longer than `own` by
 * enough to be worth it. Where
 * others hold more of it, but cannot go on from there, is a branch: two prompts parted there, so that a third one may.
 */
void prefix_find(facet_session *s, const int32_t *tokens, int32_t n, int32_t own, prefix_match *out);
/* Keeps the session's content for later prompts; without a cache, a budget, or memory for it: does not. */
void prefix_keep(const facet_session *s);
/* Forgets the prompt that was used least recently, so that pages become free. False: there is none whose pages are not
 * needed by the step in the making. */
bool prefix_evict(facet_engine *e);
/* The drafter's context of all of them is gone. */
void prefix_forget_drafts(facet_engine *e);

#endif
