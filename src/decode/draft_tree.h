/* draft_tree.h: a draft tree: built best first from a block drafter's marginals, laid out as rows of a batch, walked
 * with the target's verdicts, compacted.
 *
 * Method: DDTree (arXiv:2604.12989). A block drafter gives for each depth d = 1..L its K best tokens with
 * log-probability. A node is a path of ranks; its weight, the product of the probabilities on the path, is the chance
 * (by the drafter's own account) that the target follows it. The expected number of tokens a verification commits is 1
 * + sum of weights. A child weighs no more than its parent, nor a sibling more than the one ranked before it, so the B
 * heaviest nodes form a tree, and taking nodes best first is optimal for every B at once.
 *
 * Slot 0 is the root, the pending token; slot i is the i-th node taken. parent < child always. */
#ifndef FACET_DECODE_DRAFT_TREE_H
#define FACET_DECODE_DRAFT_TREE_H

#include "base/error.h"

/* DRAFT_TREE_MAX_ROWS equals BATCH_MAX_TREE: an ancestor set is one 64-bit word. */
enum { DRAFT_TREE_MAX_ROWS = 64, DRAFT_TREE_MAX_NODES = DRAFT_TREE_MAX_ROWS - 1, DRAFT_TREE_RANKS = 8 };

/* What a block drafter says. Row d - 1 belongs to depth d; ranks in falling order of log-probability, tokens of a row
 * distinct. Borrowed. */
typedef struct draft_marginals {
    int n_depths, n_ranks;
    const int32_t *token; /* [n_depths, n_ranks] */
    const float *logp;    /* [n_depths, n_ranks] */
} draft_marginals;

/* How the nodes of a budget are chosen. */
typedef struct draft_tree_rule {
    int n_ranks;          /* ranks considered at each depth (at most what the marginals hold) */
    bool is_chain_seeded; /* the first min(L, budget) nodes are the chain of the best tokens */
} draft_tree_rule;

/* Eight ranks and no seed at every budget: the measured best (docs/speculation.md). */
draft_tree_rule draft_tree_rule_default(void);

typedef struct draft_tree {
    int n_rows; /* nodes + 1 */
    int32_t token[DRAFT_TREE_MAX_ROWS];
    int8_t parent[DRAFT_TREE_MAX_ROWS]; /* slot; -1 for the root */
    uint8_t depth[DRAFT_TREE_MAX_ROWS];
    float weight[DRAFT_TREE_MAX_ROWS];       /* 1 for the root; falling in slot order when not seeded */
    uint64_t ancestors[DRAFT_TREE_MAX_ROWS]; /* bit j: slot j is on the path from the root, the slot itself included */
    /* Slots of that path by depth, entries 0..depth; what batch.path wants. */
    uint8_t path[DRAFT_TREE_MAX_ROWS][DRAFT_TREE_MAX_ROWS];
} draft_tree;

/* Grows *out from the root token. Fewer nodes than `budget` come out when the marginals hold no more paths of finite
 * log-probability. Equal weights are taken in the order in which they became candidates. A budget or depth of 0 or less
 * gives the root alone. O(budget * log budget); allocates nothing. FACET_ERR_LIMIT above DRAFT_TREE_MAX_NODES;
 * FACET_ERR_ARG for less than one rank. */
facet_status draft_tree_build(const draft_marginals *m, int32_t root, int budget, draft_tree_rule rule, draft_tree *out,
                              facet_error *err);
/* Keeps the first n_rows rows (at least the root). Unseeded, that is the best tree of the smaller budget. */
void draft_tree_shrink(draft_tree *t, int n_rows);
/* Keeps the rows whose bits are set: the root, and of each kept node the parent. The others' order stays. */
void draft_tree_prune(draft_tree *t, uint64_t kept);
/* Depth of the deepest node. */
int draft_tree_max_depth(const draft_tree *t);
/* Slot of the child of `slot` that holds `token`, -1 when there is none. */
int draft_tree_child(const draft_tree *t, int slot, int32_t token);

/* ---- rows of a batch ---- */

/* What rows that only fill a fixed batch width hold: token 0, or the root's token (on MoE targets it routes to the
 * experts that the root loads anyway). Either way they stand at the root's position, see themselves alone and are seen
 * by nobody, so that every row has a visible key. */
typedef enum draft_padding { DRAFT_PAD_ZERO, DRAFT_PAD_ROOT } draft_padding;

/* Writes the tree as rows 0 .. n_rows - 1 of a sequence whose committed positions are 0 .. base - 1: node j at position
 * base + depth and slot base + j. n_rows >= t->n_rows (at most DRAFT_TREE_MAX_ROWS); the rest is padding. Each output
 * holds n_rows entries; path rows are as in batch.h. */
void draft_tree_rows(const draft_tree *t, int32_t base, int n_rows, draft_padding padding, int32_t *token, int32_t *pos,
                     int32_t *slot, uint8_t (*path)[DRAFT_TREE_MAX_ROWS]);

/* ---- after the target's forward ---- */

typedef struct draft_move {
    int32_t src, dst; /* KV slots; src > dst */
} draft_move;

/* Moves that bring the first m rows of an accepted path to slots base .. base + m - 1, to be done in order: since the
 * path ascends, no move overwrites a later one's source. Returns their number (moves: room for m - 1). */
int draft_tree_moves(const uint8_t *path, int m, int32_t base, draft_move *moves);

#endif
