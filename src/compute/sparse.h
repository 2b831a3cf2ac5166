/* sparse.h: the rules by which attention over global layers reads only some of the keys, and what came of them.
 *
 * Keys stand in blocks of SPARSE_BLOCK positions, which are the pages of the cache. A row reads its first `sink`
 * blocks, its last `window` ones, and those that a rule selects by summaries of the blocks
 * (compute/cpu/attn_summary.h), for all query heads of a KV head together. What a row selects depends on its position
 * and on the keys before it alone, so a row has the same bits whatever rows stand beside it: a draft that is verified
 * gets what plain decoding gives. */
#ifndef FACET_COMPUTE_SPARSE_H
#define FACET_COMPUTE_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "compute/kv.h"

/* A window of two blocks or more covers every draft that a row may follow: a row at position p follows at most
 * BATCH_MAX_TREE - 1 drafts, and a block outside its window ends at p - 64 or before. */
enum { SPARSE_BLOCK = KV_PAGE_LEN, SPARSE_MIN_WINDOW = 2 };

/* x_b = scale * q . (mean key of block b). The estimated mass of a block is the sum of exp(logit) over its keys as
 * their centres and spreads let expect it; sink and window are known exactly. */
typedef enum sparse_kind {
    SPARSE_OFF,
    SPARSE_ALPHA, /* keep b iff exp(x_b - max x) >= threshold for a head */
    SPARSE_MASS,  /* keep the fewest blocks that hold 1 - threshold of the estimated mass, for every head */
    SPARSE_SHARE  /* keep b iff its estimated mass is at least threshold times the largest, for a head */
} sparse_kind;

typedef struct sparse_rule {
    sparse_kind kind;
    float threshold;
    int sink, window; /* blocks; window >= SPARSE_MIN_WINDOW */
    float cap;        /* where more than this share of the blocks would be read, all are */
    float hard;       /* a row whose certified dropped mass is above this reads the rest too; 1 = never */
    int32_t tail;     /* of prompts: their last `tail` positions read all */
} sparse_rule;

/* Of a target's plan. */
typedef struct sparse_config {
    sparse_rule decode, prompt;
    int32_t min_keys; /* rows that see fewer keys read all */
    bool is_checked;  /* the dropped mass is measured, too: everything is read */
} sparse_config;

/* Sums over rows, layers and KV heads (a "choice" is one of these). Zeroes at first; runs add to it. */
typedef struct sparse_stats {
    uint64_t choices, dense, rescued;   /* dense: by the cap */
    uint64_t blocks, selected;          /* selected: read in the end, those of dense and rescued choices included */
    uint64_t probed;                    /* blocks of sink and window whose keys the selector read as well */
    double certified_sum, measured_sum; /* of the dropped mass of each choice: the worst of its heads */
    float certified_max, measured_max;  /* measured: 0 unless the config is_checked */
    float estimated_max;
    double error_max; /* certified bound of |o - o_all| / |o| */
} sparse_stats;

static inline bool sparse_is_on(const sparse_config *c)
{
    return c->decode.kind != SPARSE_OFF || c->prompt.kind != SPARSE_OFF;
}

/* Blocks of a row that sees n keys. */
static inline int32_t sparse_n_blocks(int32_t n)
{
    return (n + SPARSE_BLOCK - 1) / SPARSE_BLOCK;
}

#endif
