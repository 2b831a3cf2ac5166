/* snapshot.h: states of sessions kept under numbers, in memory and on disk.
 *
 * A snapshot is the tokens of a session and its page tables: it shares the pages, so that taking one, restoring one and
 * holding the same text twice copies nothing; what is written afterwards is copied page by page first. It holds all
 * that a continuation needs. The rest follows from the tokens by rule: the last token is evaluated again when its
 * outputs are wanted, which gives its logits, the pending token and the hidden state that the MTP assistant starts
 * from; draws of the sampler depend on seed and position alone; the n-gram index is built from the tokens. So a
 * restored session goes on with the same tokens as the one that was kept, with every strategy, on the same device.
 *
 * Restore, then facet_session_sync or facet_generate with the complete prompt: what the prompt has in common with the
 * snapshot is compared token by token, and only the rest is evaluated.
 *
 * A thin snapshot holds the pages of positions [first, n_tokens) alone. It is of use on top of another one that ends at
 * or behind `first` and begins with the same tokens (snapshot_restore_chain).
 *
 * Slots belong to an engine and are used by its thread. Their pages come from the pool of the sessions: its room beside
 * them is facet_engine_params.cache_bytes. Nothing but snapshot_free, or parking the target with FACET_PARK_KV_DROP,
 * takes a snapshot away. docs/snapshots.md has the file's layout. */
#ifndef FACET_DECODE_SNAPSHOT_H
#define FACET_DECODE_SNAPSHOT_H

#include "decode/kept.h"

enum { SNAPSHOT_SLOTS = FACET_SNAPSHOT_SLOTS, SNAPSHOT_LABEL_MAX = FACET_SNAPSHOT_LABEL };

typedef facet_snapshot_info snapshot_info;

/* The session's first n tokens (n = -1: all of them) become the content of a slot (0 .. SNAPSHOT_SLOTS - 1), in place
 * of what it held. label: a text of SNAPSHOT_LABEL_MAX bytes at most, or NULL. FACET_ERR_ARG: slot, n or label out of
 * range, an empty session. FACET_ERR_LIMIT: n is so far back that local layers have forgotten its window; the message
 * tells the first position that can be kept. On failure the slot keeps what it held. */
facet_status snapshot_store(const facet_session *s, int slot, int32_t n, const char *label, facet_error *err);
/* A thin snapshot of positions [first, n), 0 < first < n <= tokens of the session. */
facet_status snapshot_store_thin(const facet_session *s, int slot, int32_t first, int32_t n, const char *label,
                                 facet_error *err);

/* The session's content becomes that of the slot; nothing is evaluated. FACET_ERR_ARG: slot out of range, empty, or
 * thin. On failure the session keeps what it had. */
facet_status snapshot_restore(facet_session *s, int slot, facet_error *err);
/* A slot and thin ones on top of it, in their order: each begins at or before the end of what lies below and ends
 * behind it, and has the same tokens up to there, else FACET_ERR_ARG tells which one does not fit. n_thin may be 0. */
facet_status snapshot_restore_chain(facet_session *s, int slot, const int *thin, int n_thin, facet_error *err);

/* FACET_ERR_ARG when the slot is out of range; an empty one is fine. */
facet_status snapshot_free(facet_engine *e, int slot, facet_error *err);
void snapshot_free_all(facet_engine *e);

/* out [SNAPSHOT_SLOTS], or NULL: the slots in use, ascending. Returns how many. */
int snapshot_list(const facet_engine *e, snapshot_info *out);
/* False when the slot is empty or out of range. */
bool snapshot_describe(const facet_engine *e, int slot, snapshot_info *out);
/* The tokens of a slot, all from position 0 on ([*n], borrowed until the slot changes); NULL when it is empty. */
const int32_t *snapshot_tokens(const facet_engine *e, int slot, int32_t *n);
/* The lowest slot with this label; -1: none. */
int snapshot_find(const facet_engine *e, const char *label);
/* The lowest empty slot; -1: none. */
int snapshot_empty_slot(const facet_engine *e);

/* ---- for the engine's own modules ---- */

typedef struct snapshot_parts {
    kept_text text;
    int32_t first;
    const char *label; /* NULL = "" */
} snapshot_parts;

void snapshot_close(facet_engine *e);
/* What a slot holds, borrowed. */
facet_status snapshot_get(const facet_engine *e, int slot, snapshot_parts *out, facet_error *err);
/* Makes it the content of a slot that is in range, which owns the text then. */
facet_status snapshot_put(facet_engine *e, int slot, const snapshot_parts *p, facet_error *err);
facet_status snapshot_check_slot(int slot, facet_error *err);
facet_status snapshot_check_label(const char *label, facet_error *err);
/* The state to go on from; false: empty, or thin. */
bool snapshot_state(const facet_engine *e, int slot, session_state *out);
/* The drafter's context of all of them is gone. */
void snapshot_forget_drafts(facet_engine *e);

#endif
