/* batch.h: what varies from step to step. All arrays belong to the caller and live until run() returns. */
#ifndef FACET_COMPUTE_BATCH_H
#define FACET_COMPUTE_BATCH_H

#include "compute/kv.h"
#include "compute/sparse.h"

enum { BATCH_MAX_TREE = 64 };

/* One sequence that has rows in the batch. Slots below `base` hold finished positions (slot = position). */
typedef struct batch_seq {
    const int32_t *table[KV_MAX_GROUPS];
    int32_t base;
    int32_t end;    /* SIGHT_BLOCK: one past the last position of its rows in this batch; other plans do not read it */
    int32_t begin;  /* positions before it are seen by none of its rows; the CUDA backend takes 0 alone */
    bool is_prompt; /* sparse attention: which rule its rows follow, ... */
    int32_t prompt_end; /* ... and where the prompt ends */
} batch_seq;

/* Rows of plain decoding, prefill and chain verification: slot[r] == pos[r], path == NULL.
 * Rows of a draft tree: node j of a sequence is stored at slot base + j and has position base + depth. A query sees the
 * logical positions p <= pos[r] (inside the window): p < base lies in slot p; p >= base lies in slot base + path[r][p -
 * base], the node of the row's own root path at that depth (itself last). Attention visits keys in logical order, so
 * that a tree row gets the same bits as the plain step would. */
typedef struct batch {
    int n_rows;
    const int32_t *token; /* [n_rows] */
    const int32_t *pos;
    const int32_t *slot;
    const int32_t *seq;                    /* index into seqs */
    const uint8_t (*path)[BATCH_MAX_TREE]; /* [n_rows] or NULL: node index at each depth of the row's root path */
    int n_seqs;
    const batch_seq *seqs;
    int n_out;              /* rows whose logits (and ROWS_OUT values) are wanted */
    const int32_t *out_row; /* [n_out] ascending row indices */
    int n_copies;           /* done in order before everything else */
    const kv_copy *copies;
    /* Compaction of an accepted path, done after the copies: rows move from slot src to slot dst of seqs[seq]. */
    int n_moves;
    const struct batch_move {
        int32_t seq, src, dst;
    } * moves;
    sparse_stats *sparse; /* NULL, or what sparse attention did is added here */
} batch;

#endif
